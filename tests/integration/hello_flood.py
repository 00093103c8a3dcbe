"""A flood of TLS hellos as a program of its own: so many wait for an answer, and none is used.

At most three thousand a second, which is more than two processors' worth of handshakes.

Run as ``python hello_flood.py PORT COUNT NAME [PROXY-HEADER]``; it ends when its standard input does, and
writes how many hellos were answered by a handshake and how many by an alert or an end.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import sys
import time


def hello(name: str) -> bytes:
    """The first bytes of a client that asks for *name*."""
    going = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), going, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return going.read()


def main(port: int, count: int, name: str, header: str = "") -> None:
    """Flood until told to end."""
    words = (header + "\r\n").encode() * bool(header) + hello(name)
    answered = refused = opened = 0
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for _ in range(min(count - opened, 30)):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            selector.register(client, selectors.EVENT_WRITE)
            opened += 1
        for key, events in selector.select(1.0):
            client = key.fileobj  # type: ignore[assignment]
            if key.fileobj is sys.stdin:
                sys.stdout.write(f"{answered} {refused}\n")
                return
            try:
                if events & selectors.EVENT_WRITE:
                    client.send(words)
                    selector.modify(client, selectors.EVENT_READ)
                    continue
                answer = client.recv(4096)
            except OSError:
                answer = b""
            if answer[:1] == b"\x16":
                answered += 1
            else:
                refused += 1
            selector.unregister(client)
            client.close()
            opened -= 1
        time.sleep(0.01)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
