"""Every extension point, as zope interfaces.

Read this and :mod:`scalingo_proxy.model` first: a program that embeds the
proxy implements one or more of these and hands the objects in.  Nothing here
knows an implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from scalingo_proxy.model import (
    App,
    Backend,
    Certificate,
    CertificateChange,
    Health,
    Record,
    RouteQuery,
    TopologyChange,
)

__all__ = ["IBalancer", "ICertificateFeed", "IObserver", "IProbe", "IResolver", "IRouteFeed"]


class IResolver(Interface):
    """Answers which :class:`~scalingo_proxy.model.Route` serves a query.

    This is not DNS.  A table in memory answers at once, a remote directory
    with a Deferred; both are asked once per request.

    One whose answers depend on nothing but the host may have a method
    ``route_at_once``, too, which takes it and gives the Route, or ``None``
    where :meth:`resolve` is to be asked.
    """

    name: str = Attribute("The word by which logs and explanations call this resolver.")

    def resolve(query: RouteQuery) -> Any:
        """Find who serves *query*.

        :return: a Route, or a Deferred that fires with one.  The Deferred is
            cancelled when the client leaves or the wait is over.
        :raises UnknownHost: (or the Deferred fails with it) when nobody
            claims the host.
        :raises ResolverUnavailable: (or the Deferred fails with it) when the
            question cannot be answered now.
        """


class IRouteFeed(Interface):
    """A source of topology that tells of changes as they happen.

    Separate from :class:`IResolver`, so that a lookup per request need not
    pretend to push.
    """

    def apps() -> Mapping[str, App]:
        """The topology as it stands, by app name."""

    def watch(callback: Callable[[TopologyChange], None]) -> Callable[[], None]:
        """Call *callback* after each change, until the returned function is called."""


class ICertificateFeed(Interface):
    """A source of certificates that tells of changes as they happen."""

    def certificates() -> Mapping[str, Certificate]:
        """The certificates as they stand, by name."""

    def watch(callback: Callable[[CertificateChange], None]) -> Callable[[], None]:
        """Call *callback* after each change, until the returned function is called."""


class IBalancer(Interface):
    """Chooses one of a pool's members for the next request.

    One object serves one pool.  A member has ``backend``, ``weight``,
    ``in_flight`` and ``has_room``.
    """

    def members_changed(members: Sequence[Any]) -> None:
        """Take over the members that may be chosen, in the app's order."""

    def choose(avoid: Container[Any]) -> Any:
        """The next member that has room and is not in *avoid*, or ``None``."""


class IProbe(Interface):
    """Asks a backend whether it could serve."""

    def probe(backend: Backend, app: App, health: Health) -> Any:
        """Probe *backend* of *app* once, as *health* says.

        :return: a Deferred that fires with a
            :class:`~scalingo_proxy.model.ProbeResult` within ``health.timeout``
            seconds.  It never fails, except when it is cancelled; then nothing
            is left of the probe.
        """


class IObserver(Interface):
    """Is told what happened.  It must return quickly and never raise."""

    def exchange_finished(record: Record) -> None:
        """One exchange, refused request or tunnel is over."""

    def connection_opened(listener: str, kind: str) -> None:
        """A client connection began; *kind* is ``http``, ``websocket``, …"""

    def connection_closed(listener: str, kind: str) -> None:
        """A client connection of that kind ended."""
