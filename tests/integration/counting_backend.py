"""A backend as a program of its own, which can be killed: answers each request and notes which it executed.

Run as ``python counting_backend.py PORT FILE``; the file gets one line for each
request, the path.
"""

from __future__ import annotations

import asyncio
import sys

_THINKS_SECONDS = 0.005


async def main(port: int, notes: str) -> None:
    """Serve until killed."""
    with open(notes, "a", buffering=1) as file:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    lines = head.split(b"\r\n")
                    for line in lines:
                        if line.lower().startswith(b"content-length:"):
                            await reader.readexactly(int(line.partition(b":")[2]))
                    file.write(lines[0].split(b" ")[1].decode() + "\n")
                    await asyncio.sleep(_THINKS_SECONDS)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
        sys.stdout.write("up\n")
        sys.stdout.flush()
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
