"""A backend of its own process that writes down what it executed, before it answers.

``python backend.py NAME PORT JOURNAL [CERTIFICATE KEY]``; prints its port when
it listens.  The journal is appended to by all backends, one write for each
execution, so that a killed one has told of everything it did.  It is asked for
``/ID``, with ``think=SECONDS`` (before it answers), ``size=BYTES`` and
``drip=SECONDS`` (between two halves of its answer), or to become a WebSocket
that sends every message back.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import signal
import socket
import ssl
import struct
import sys
import time
from urllib.parse import parse_qs

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CLOSE = 8


class Backend:
    """What it is called, and where it writes."""

    def __init__(self, name: str, journal: str) -> None:
        self.name = name
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._connections: dict[asyncio.StreamWriter, bool] = {}
        self._is_stopping = False

    def note(self, request_id: str, method: str) -> None:
        """Write an execution down."""
        os.write(self._journal, f"{time.monotonic():.6f} {request_id} {method} {self.name}\n".encode())

    async def stop(self) -> None:
        """Finish what is under way, as a server does that is asked to end."""
        self._is_stopping = True
        for writer, is_busy in list(self._connections.items()):
            if not is_busy:
                writer.close()
        until = time.monotonic() + 2.0
        while any(self._connections.values()) and time.monotonic() < until:
            await asyncio.sleep(0.02)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._connections[writer] = False
        with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
            while await self._serve_one(reader, writer):
                self._connections[writer] = False
                if self._is_stopping:
                    break
        del self._connections[writer]
        writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self._connections[writer] = True
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        fields = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
        path, _, query = target.partition("?")
        request_id = path.strip("/")
        if "upgrade" in fields:
            self.note(request_id, "WEBSOCKET")
            await self._websocket(fields["sec-websocket-key"], reader, writer)
            return False
        size = await _body_size(reader, fields)
        self.note(request_id, method)
        wishes = {name: float(values[0]) for name, values in parse_qs(query).items()}
        await self._answer(request_id, size, wishes, writer)
        return fields.get("connection", "").lower() != "close"

    async def _answer(
        self, request_id: str, size: int, wishes: dict[str, float], writer: asyncio.StreamWriter
    ) -> None:
        if "think" in wishes:
            await asyncio.sleep(wishes["think"])
        body = b"%b %d " % (request_id.encode(), size)
        body += b"." * int(wishes.get("size", 0))
        writer.write(
            b"HTTP/1.1 200 OK\r\nX-Backend: %b\r\nContent-Length: %d\r\n\r\n"
            % (self.name.encode(), len(body))
        )
        half = len(body) // 2
        writer.write(body[:half])
        if "drip" in wishes:
            await writer.drain()
            await asyncio.sleep(wishes["drip"])
        writer.write(body[half:])
        await writer.drain()

    async def _websocket(self, key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"X-Backend: %b\r\nSec-WebSocket-Accept: %b\r\n\r\n" % (self.name.encode(), accept)
        )
        opcode = 0
        while opcode != _CLOSE:
            opcode, message = await read_frame(reader)
            writer.write(frame(opcode, message))
            await writer.drain()


async def _body_size(reader: asyncio.StreamReader, fields: dict[str, str]) -> int:
    if "chunked" not in fields.get("transfer-encoding", ""):
        size = int(fields.get("content-length", "0"))
        await reader.readexactly(size)
        return size
    total = 0
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        await reader.readexactly(size + 2)
        if not size:
            return total
        total += size


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next frame of a WebSocket: its opcode and its payload (RFC 6455, section 5.2)."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    mask = await reader.readexactly(4) if second & 0x80 else bytes(4)
    payload = await reader.readexactly(size)
    return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """A frame with a short payload; *mask* is what clients have to use."""
    size = len(payload)
    bit = 0x80 if mask else 0
    head = (
        bytes((0x80 | opcode, bit | size))
        if size < 126
        else struct.pack("!BBH", 0x80 | opcode, bit | 126, size)
    )
    if mask:
        payload = mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + payload


async def main(name: str, port: str, journal: str, certificate: str = "", key: str = "") -> None:
    """Serve until SIGTERM."""
    backend = Backend(name, journal)
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(
        backend.serve, "127.0.0.1", int(port), family=socket.AF_INET, ssl=context, backlog=512
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    server.close()
    await backend.stop()
    os._exit(0)  # what is still open ends as it does with any process


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
