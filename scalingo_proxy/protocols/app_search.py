"""Find the app that one request is for, and see whether this client may ask it.

Where nothing has to be waited for, the way through it is one call after another, from
:meth:`AppSearch.start` to the connection that the request is sent on.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from scalingo_proxy.errors import BodyTooLarge, Denied, Misdirected, ProxyError, ResolverUnavailable
from scalingo_proxy.model import App, Route, RouteQuery
from scalingo_proxy.protocols.backend_search import BackendSearch
from scalingo_proxy.protocols.downstream import Phase
from scalingo_proxy.wire.http1_forwarding import ClientIdentity

__all__ = ["AppSearch"]

_log = Logger()

_ENDS_TLS_ITSELF = "the app of this host ends TLS itself; ask it over a TLS connection of its own"


class AppSearch(BackendSearch):
    """The way from a request head to the pool that serves it.

    Whoever derives from it says where an app wants its clients to ask (:meth:`_redirected`).
    """

    __slots__ = ("_identity",)

    _identity: ClientIdentity

    def _redirected(self, app: App) -> bool:
        """Send the client elsewhere, if the policies of *app* say so."""
        raise NotImplementedError

    def _preface_for(self, app: App) -> bytes:
        """What a connection begins with that *app* wants to be told by whose it is."""
        raise NotImplementedError

    def start(self) -> None:
        """Resolve, lease, connect and send, as far as that goes at once."""
        env, host = self._env, self._head.host
        if env.policies.access.has_lists and not self._is_let_in():
            return
        covers = self._identity.covers
        if covers is not None and not covers(host):
            # The connection may be reused for other hosts of its certificate, never beyond.
            self.fail(Misdirected())
            return
        route_at_once = env.route_at_once
        route = route_at_once(host)
        if route is not None:
            # No question is made for what stands in a table (0.7 µs less where hosts change).
            self._routed(route)
        else:
            self._ask_resolver(host)

    def _routed(self, route: Route) -> None:
        """The app is known: may this client ask it, and with this request?"""
        app, record, pools = route.app, self.record, self._env.pools
        record.app = app.name
        record.route = route
        find = pools.get
        pool = find(app.name)
        if pool is not None and pool.app is app and pool.takes_any_request:
            # As most do, and nothing has changed since the last request (0.3 µs less).
            self._pool = pool
        else:
            self._pool = pool = pools.for_route(route)
            if not self._is_taken_by(app):
                return
        # One request more that others may be repeated for.
        budget = pool.budget
        if record.started_at >= budget.turns_at:
            budget.turn(record.started_at)
        budget.requests += 1
        if self._upload is not None and self._head.framing.length > pool.limits.body_bytes:
            self.fail(BodyTooLarge())
            return
        lease = pool.lease_at_once()
        if lease is not None:
            self._leased(lease)
        else:
            self._find_backend(pool)

    # -- off the ordinary way ------------------------------------------------

    def _is_taken_by(self, app: App) -> bool:
        """Whether *app* takes this request from this client, by what it says of that; it has ended if not."""
        if (app.access or app.rate_limit) and not self._is_admitted(app):
            return False
        if (app.force_https or app.canonical) and self._redirected(app):
            return False
        if app.tls == "passthrough":
            # Its backends speak TLS with the client alone; a request in clear would only
            # fail there, and be held against them.
            self.fail(Misdirected(_ENDS_TLS_ITSELF))
            return False
        if app.send_proxy:
            self._preface = self._preface_for(app)
        return True

    def _ask_resolver(self, host: str) -> None:
        """Nobody knows at once which app *host* is."""
        env, identity, client = self._env, self._identity, self.record.client
        query = identity.query
        if query is None or query.host != host or query.client != client:
            # Most clients ask one host all the time: the same question again (0.5 µs less).
            query = identity.query = RouteQuery(host, "http", client)
        try:
            answer = env.resolver.resolve(query)
        except ProxyError as error:
            self.fail(error)
        except Exception as error:
            self._resolver_failed(error)
        else:
            if type(answer) is Route:
                self._routed(answer)
            elif isinstance(answer, Deferred):
                self._leave_the_way().resolving = answer
                env.deadlines.set(self._timed, env.seconds() + env.timeouts.connect)
                answer.addCallbacks(self._resolved, self._unresolved)
            else:
                self._resolved(answer)

    def _is_let_in(self) -> bool:
        """Whether the proxy's own lists let this client in; it has ended if not."""
        try:
            self._env.policies.admit(self.record.client)
        except Denied as error:
            self.fail(error)
            return False
        return True

    def _resolved(self, answer: Any) -> None:
        self._leave_the_way().resolving = None
        if self.phase is not Phase.RESOLVING:
            return
        self.leave_out_wait()
        if not isinstance(answer, Route):
            self._resolver_failed(TypeError(f"{type(answer).__name__} is no Route"))
            return
        try:
            self._routed(answer)
        except Exception:
            self.broke()

    def _unresolved(self, failure: Failure) -> None:
        self._detour.resolving = None
        if self.phase is not Phase.RESOLVING:
            return
        if isinstance(failure.value, ProxyError):
            self.fail(failure.value)
        else:
            self._resolver_failed(failure)

    def _resolver_failed(self, reason: Failure | Exception) -> None:
        failure = reason if isinstance(reason, Failure) else Failure(reason)  # type: ignore[no-untyped-call]
        _log.failure("the resolver failed on {host!r}", failure, host=self._head.host)
        self.fail(ResolverUnavailable())
