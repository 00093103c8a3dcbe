"""A backend for tunnels: ``python -m tests.benchmarks.raw_backend BULK_PORT HELLO_PORT FILE``.

Whatever comes first, it answers with the whole file on one port and with one
byte on the other.  What passes a tunnel need not be TLS behind its first words.
"""

from __future__ import annotations

import os
import socket
import sys
import threading


def serve(connection: socket.socket, path: str) -> None:
    with connection:
        try:
            connection.recv(65536)
            if path:
                size = os.path.getsize(path)
                with open(path, "rb") as file:
                    sent = 0
                    while sent < size:
                        sent += os.sendfile(connection.fileno(), file.fileno(), sent, size - sent)
            else:
                connection.sendall(b"x")
            connection.recv(1)
        except OSError:
            pass  # the client has what it wanted and left


def accept(port: int, path: str) -> None:
    listening = socket.create_server(("127.0.0.1", port), backlog=1024)
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=serve, args=(connection, path), daemon=True).start()


def main() -> None:
    bulk, hello, path = sys.argv[1:]
    threading.Thread(target=accept, args=(int(bulk), path), daemon=True).start()
    accept(int(hello), "")


if __name__ == "__main__":
    main()
