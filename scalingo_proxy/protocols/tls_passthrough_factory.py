"""The embedding API for TLS that always ends at the backends."""

from __future__ import annotations

from typing import Any

from scalingo_proxy.protocols.environment import Environment
from scalingo_proxy.protocols.factories import HTTPProxyFactory
from scalingo_proxy.protocols.tls_factory import TLSProxyFactory

__all__ = ["TLSPassthroughFactory"]


class TLSPassthroughFactory(TLSProxyFactory):
    """Hands each TLS client, unopened, to a backend of the app that its hello names.

    Hand it to any endpoint of plain TCP.  An app whose TLS would have to end
    here (``tls = "terminate"``) has no TLS at this door: the client gets the
    alert ``unrecognized_name``, as for a name that no app claims.

    :param resolver: an :class:`~scalingo_proxy.interfaces.IResolver`; asked
        with the protocol ``"tls"``.
    :param reactor: the reactor it runs on; never looked up.
    :param env: share pools and connections with another factory instead of
        making one's own; *resolver*, *reactor* and *options* are then unused.
    :param listener: the name of this door in logs and metrics.
    :param default_app: the app of clients that give no name; ``""``: they get
        ``unrecognized_name``.
    :param options: see :func:`~scalingo_proxy.protocols.factories.make_environment`.
    """

    def __init__(
        self,
        resolver: Any = None,
        reactor: Any = None,
        *,
        env: Environment | None = None,
        listener: str = "tls",
        default_app: str = "",
        **options: Any,
    ) -> None:
        http = HTTPProxyFactory(resolver, reactor, env=env, listener=listener, **options)
        super().__init__(http, default_app=default_app)
