"""``python -m tests.benchmarks.aiohttp_proxy PORT BACKEND_PORT``: a reverse proxy in aiohttp."""

from __future__ import annotations

import sys

from aiohttp import ClientSession, TCPConnector, web

_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length")
)


def main() -> None:
    port, backend = map(int, sys.argv[1:])

    async def relay(request: web.Request) -> web.Response:
        session: ClientSession = request.app["session"]
        url = f"http://127.0.0.1:{backend}{request.path_qs}"
        body = await request.read() if request.body_exists else None
        async with session.request(request.method, url, headers=request.headers, data=body) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    async def start(app: web.Application) -> None:
        app["session"] = ClientSession(connector=TCPConnector(limit=0), auto_decompress=False)

    app = web.Application(client_max_size=1 << 30)
    app.on_startup.append(start)
    app.router.add_route("*", "/{path:.*}", relay)
    web.run_app(app, host="127.0.0.1", port=port, backlog=1024, print=None)


if __name__ == "__main__":
    main()
