"""``python -m tests.benchmarks.twisted_web_proxy PORT BACKEND_PORT``: Twisted's own reverse proxy."""

from __future__ import annotations

import sys


def main() -> None:
    from twisted.internet import reactor
    from twisted.web.proxy import ReverseProxyResource
    from twisted.web.server import Site

    port, backend = map(int, sys.argv[1:])
    site = Site(ReverseProxyResource("127.0.0.1", backend, b""))
    reactor.listenTCP(port, site, backlog=1024, interface="127.0.0.1")  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
