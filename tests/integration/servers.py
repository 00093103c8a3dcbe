"""Small threaded servers for tests, where what the backend saw has to be counted."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

__all__ = ["SocketServer", "read_head"]


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """A message's head with its empty line, and what came behind it."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            return received, b""
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


class SocketServer:
    """Calls *serve* with each connection, in a thread of its own."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        connection.settimeout(120)
        with connection:
            try:
                self._serve(connection)
            except OSError:
                pass  # the proxy went away; whoever looks at the client's side sees it

    def close(self) -> None:
        """Accept no more; connections that exist go on."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
