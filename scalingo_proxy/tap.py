"""``twistd scalingo-proxy`` and ``twist scalingo-proxy``: options in, service out.

One of the two modules that know the global reactor.  A mistake of whoever
starts the program ends it with one sentence each and exit status 1.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from twisted.application.service import MultiService
from twisted.internet.error import ReactorNotRunning
from twisted.python import usage
from twisted.python.runtime import seconds as wall_clock

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from scalingo_proxy.running import Proxy
    from scalingo_proxy.settings import Settings

__all__ = ["Options", "makeService", "spare_what_is_loaded"]


class Options(usage.Options):
    """The command line of the proxy."""

    synopsis = "[options]"
    longdesc = (
        "ENDPOINT is a bare port, HOST:PORT, or a Twisted endpoint (tcp:, tcp6:, unix:, systemd:). "
        "Without any listener, HTTP is served on port 8080."
    )
    optParameters = [  # noqa: RUF012 - Twisted's way
        ["config", "c", None, "The configuration file (TOML)."],
        ["admin", None, None, "ENDPOINT of the admin API; 127.0.0.1:8081 by default."],
    ]
    optFlags = [["demo", None, "Also serve http://hello.localhost with two demo backends."]]  # noqa: RUF012
    compData = usage.Completions(optActions={"config": usage.CompleteFiles("*.toml")})  # type: ignore[no-untyped-call]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["http"] = []
        self["tls"] = []
        self["app"] = []

    def opt_http(self, endpoint: str) -> None:
        """ENDPOINT to serve HTTP on; may be given more than once."""
        self["http"].append(endpoint)

    def opt_tls(self, endpoint: str) -> None:
        """ENDPOINT to serve TLS on; may be given more than once."""
        self["tls"].append(endpoint)

    def opt_app(self, app: str) -> None:
        """NAME=DOMAIN[,DOMAIN]=HOST:PORT[,https://HOST:PORT]; may be given more than once."""
        self["app"].append(app)


def makeService(options: Options) -> MultiService:
    """Read the settings and build the service.

    :raises SystemExit: with status 1 after telling every mistake.
    """
    # Much is made now that stays (0.05 s of a start less); spare_what_is_loaded() ends it.
    gc.disable()
    # Imported here, since twistd imports this module to show its help.
    from twisted.internet import reactor

    from scalingo_proxy.assembly import assemble
    from scalingo_proxy.services.log_stream import LogStream
    from scalingo_proxy.transports.turns import shorten_turns

    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        # twistd takes it for its log after this, and must not block on it.
        sys.stdout = LogStream(cast(TextIO, sys.stdout))

    if getattr(type(reactor), "seconds", None) is wall_clock:
        # Timers must not jump with the wall clock, as most reactors' do.
        # Nothing has been scheduled yet, so the clock can still be exchanged.
        reactor.seconds = time.monotonic  # type: ignore[method-assign]

    shorten_turns(reactor)

    def read() -> Settings:
        from scalingo_proxy.config import load

        return load(options["config"]).with_options(
            http=options["http"],
            tls=options["tls"],
            admin=options["admin"],
            apps=options["app"],
            demo=bool(options["demo"]),
        )

    proxy: Proxy = _or_exit(lambda: assemble(reactor, read(), read))
    _raise_descriptor_limit(proxy.settings.limits.client_connections)
    return Program(reactor, proxy)


class Program(MultiService):
    """The proxy as a process: signals, banner, exit status."""

    def __init__(self, reactor: Any, proxy: Proxy) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        from scalingo_proxy.services.log_stream import LogStream
        from scalingo_proxy.services.signals import Signals

        self._reactor = reactor
        self._proxy = proxy
        self._log_stream = sys.stdout if isinstance(sys.stdout, LogStream) else None
        proxy.setServiceParent(self)  # type: ignore[no-untyped-call]
        Signals(reactor, {signal.SIGHUP: self._reload}).setServiceParent(self)  # type: ignore[no-untyped-call]

    def privilegedStartService(self) -> None:
        _or_exit(super().privilegedStartService)

    def startService(self) -> None:
        _or_exit(super().startService)
        if self._log_stream is not None:
            self._log_stream.begin()
            atexit.register(self._log_stream.end)
        for warning in self._proxy.settings.warnings:
            _tell(f"warning: {warning}")
        _write(sys.__stdout__, self._proxy.banner())
        loading = self._proxy.when_loaded()
        spare_what_is_loaded(loading)
        loading.addErrback(self._not_loaded)
        self._reactor.addSystemEventTrigger("after", "shutdown", self._ended)

    def stopService(self) -> Any:
        # A second SIGTERM does not wait: whoever sends it has no time left.
        signal.signal(signal.SIGTERM, _exit_now)
        signal.signal(signal.SIGINT, _exit_now)
        return super().stopService()  # type: ignore[no-untyped-call]

    def _ended(self) -> None:
        # Who was asked to stop, and has, has not failed; twistd would now let the signal kill the process.
        if getattr(self._reactor, "_exitSignal", None) == signal.SIGTERM:
            self._reactor._exitSignal = None

    def _reload(self) -> None:
        # What went wrong is in the log and in the metrics already.
        self._proxy.control.reload().addErrback(lambda _: None)

    def _not_loaded(self, failure: Any) -> None:
        _tell(str(failure.value))
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.callLater(0, self._stop)

    def _stop(self) -> None:
        with suppress(ReactorNotRunning):  # it stops already
            self._reactor.stop()


def spare_what_is_loaded(loading: Deferred[Any]) -> None:
    """Keep the garbage collector from tables that stay, of any size.

    Until *loading* is over it rests (1 s of 8 less for 100,000 apps); then it
    goes through what is there once, and not again.
    """
    gc.disable()

    def over(result: Any) -> Any:
        gc.enable()
        gc.collect()
        gc.freeze()
        return result

    loading.addBoth(over)


def _raise_descriptor_limit(clients: int) -> None:
    """Let so many clients in, as far as the system allows it; tell when that is not far enough."""
    from twisted.logger import Logger

    from scalingo_proxy.transports.descriptors import Descriptors, limit_for, raise_limit

    needed = limit_for(clients)
    limit = raise_limit(needed)
    # Kept-alive clients share what is held back for their backends: an eighth more than there are.
    if limit < needed - clients * 7 // 8:
        Logger().warn(
            "this process may open {limit} descriptors, enough for about {room} clients at once; "
            "client_connections = {clients} needs {needed} (ulimit -n, LimitNOFILE=)",
            limit=limit,
            room=Descriptors(limit, 32).room_for_clients(0),
            clients=clients,
            needed=needed,
        )


def _exit_now(number: int, frame: object) -> NoReturn:
    os._exit(128 + number)


def _or_exit(action: Callable[[], Any]) -> Any:
    from scalingo_proxy.errors import ConfigurationError, DomainTaken

    try:
        return action()
    except ConfigurationError as error:
        for mistake in error.mistakes:
            _tell(str(mistake))
    except DomainTaken as error:
        _tell(str(error))
    raise SystemExit(1)


def _tell(sentence: str) -> None:
    _write(sys.__stderr__, f"scalingo-proxy: {sentence}\n")


def _write(stream: TextIO | None, text: str) -> None:
    # Not sys.stdout: twistd has put its own log there.
    if stream is not None:
        with suppress(OSError):  # a full disk, or nobody reads: no reason to keep apps waiting
            stream.write(text)
            stream.flush()
