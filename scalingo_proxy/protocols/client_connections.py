"""The connections of clients: how many there are, whose they are, and which to give up first.

Two limits: on all of them, and on those of one address.  When all places are
taken, connections that do nothing make room, those of whoever has most of them
first, and after them those that move a few bytes a second; a client that asks
for something is worth more than one that might.  Last come the silent tunnels
of an address that has more than its share.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Protocol

from twisted.logger import Logger

from scalingo_proxy.errors import IdleTimeout, ProxyError, QueueFull, RateLimited
from scalingo_proxy.model import Limits
from scalingo_proxy.protocols.downstream import Phase, UnderWay
from scalingo_proxy.routing.rate_limits import rate_key

__all__ = [
    "CRAWL_DOWN",
    "CRAWL_SECONDS",
    "CRAWL_UP",
    "HANDSHAKE_SECONDS",
    "NO_ROOM",
    "Client",
    "ClientConnections",
    "is_loopback",
]

_log = Logger()

#: Under pressure, a connection that has never asked for anything is given up
#: after so many seconds; that browsers open some just in case is their risk.
SILENT_SECONDS = 0.25
#: One that has been of use is kept a little longer.
IDLE_SECONDS = 1.0
#: And longer still where nobody is turned away, but has to wait.
PATIENT_SECONDS = 10.0

#: A TLS handshake takes two ways there and back; one that takes longer counts
#: as silent.
HANDSHAKE_SECONDS = 0.75

#: Who has moved less than so many bytes a second, up or down, over so many
#: seconds, makes room after all that are idle.
CRAWL_SECONDS = 5.0
CRAWL_UP = 100.0
CRAWL_DOWN = 10_000.0

#: Tunnels may be silent for good reasons.  Where all places are taken, those
#: that were for so long make room, if their address holds this share of them.
TUNNEL_SECONDS = 10.0
TUNNEL_SHARE = 0.1
#: Fewer than of others: each is somebody who has to connect again.
TUNNEL_BATCH = 8

#: Given up at once; so that a flood costs one look at all of them for many that come.
BATCH = 64

#: How soon to look again after nobody could be given up.
_LOOK_AGAIN_SECONDS = 0.02
#: And so much later for each connection there is: looking at one takes 1 to 2 µs, which must not become all
#: that is done while thousands are busy and thousands more want in.
_SECONDS_FOR_EACH = 20e-6

#: How often the log tells of it.
_TELL_AGAIN_SECONDS = 60.0

#: What a connection that may not come in is told of with, by the limit that it met.
NO_ROOM: Mapping[str, ProxyError] = {
    "total": QueueFull("every place for a client connection is taken"),
    "address": RateLimited("this address has as many connections as one may have"),
}


class Client(Protocol):
    """A connection, as far as giving it up is concerned."""

    has_asked: bool

    def idle_since(self) -> float | None:
        """The moment from which on it has done nothing; ``None`` while something is under way."""

    def crawls(self, now: float) -> bool:
        """Whether it moves so slowly that it hardly can be meant well."""

    def under_way(self) -> Iterable[UnderWay]:
        """What goes on for it now."""

    def give_up(self) -> None:
        """Close it."""


@lru_cache(maxsize=4096)  # clients come again
def is_loopback(address: str) -> bool:
    """Whether *address* is this machine's own: a proxy in front, which brings many clients."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return not address or address.startswith("unix:")


class ClientConnections:
    """Every client connection of one proxy, oldest first.

    :ivar refused: how many were turned away, by the limit that did it.
    :ivar given_up: how many were closed to make room.
    :ivar asked: how many of those that are open have asked for something.
    """

    def __init__(self) -> None:
        self.refused = {"total": 0, "address": 0}
        self.given_up = 0
        self.asked = 0
        # The key of its address; "" where it does not count.
        self._open: dict[Client, str] = {}
        self._by_key: dict[str, int] = {}
        self._leaving: set[Client] = set()
        self._look_again_at = 0.0
        self._tell_again_at = 0.0

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._open)

    def refusal(self, address: str, limits: Limits, now: float) -> str:
        """Why a further connection may not come in: ``"total"``, ``"address"``, or ``""`` if it may.

        :param address: whose it is; ``""`` where one address may bring many clients.
        """
        if address and self._by_key.get(rate_key(address), 0) >= limits.connections_per_address:
            reason = "address"
        elif len(self._open) - len(self._leaving) < limits.client_connections or self.make_room(now):
            return ""
        else:
            reason = "total"
        self.refused[reason] += 1
        return reason

    def opened(self, client: Client, address: str) -> None:
        """A connection began; *address* as in :meth:`refusal`."""
        key = rate_key(address) if address else ""
        self._open[client] = key
        if key:
            self._by_key[key] = self._by_key.get(key, 0) + 1

    def first_asked(self, client: Client) -> None:
        """A connection asks for something for the first time."""
        client.has_asked = True
        self.asked += 1

    def closed(self, client: Client) -> None:
        """It is gone."""
        if self._leaving:
            self._leaving.discard(client)
        key = self._open.pop(client, None)
        if key is None:
            return
        if client.has_asked:
            self.asked -= 1
        if key:
            left = self._by_key[key] - 1
            if left:
                self._by_key[key] = left
            else:
                del self._by_key[key]

    def make_room(self, now: float, idle_seconds: float = IDLE_SECONDS) -> int:
        """Give up some connections that do nothing; tells how many.

        :param idle_seconds: how long one that has been of use may do nothing.
        """
        if now < self._look_again_at:
            return 0
        worst = max(self._by_key, key=self._by_key.__getitem__, default="")
        found = self._idle_or_crawling(now, idle_seconds, worst)
        if not found and worst and self._by_key[worst] > len(self._open) * TUNNEL_SHARE:
            found = self._silent_tunnels(now, worst)
        for client in found:
            self._leaving.add(client)
            try:
                client.give_up()
            except Exception:
                _log.failure("an idle connection was not given up in order")
        self.given_up += len(found)
        if len(found) < BATCH:
            self._look_again_at = now + max(_LOOK_AGAIN_SECONDS, len(self._open) * _SECONDS_FOR_EACH)
        self._tell(now, len(found))
        return len(found)

    def _idle_or_crawling(self, now: float, idle_seconds: float, worst: str) -> list[Client]:
        """Those who do nothing, the ones of *worst* first; if there are none, those who crawl."""
        of_worst: list[Client] = []
        idle: list[Client] = []
        crawling: list[Client] = []
        leaving = self._leaving
        for client, key in self._open.items():
            if client in leaving:
                continue
            since = client.idle_since()
            if since is not None and now - since >= (idle_seconds if client.has_asked else SILENT_SECONDS):
                if key != worst or not worst:
                    idle.append(client)
                    if len(idle) >= BATCH and not worst:
                        break
                else:
                    of_worst.append(client)
                    if len(of_worst) >= BATCH:
                        break
            elif not (idle or of_worst) and len(crawling) < BATCH and client.crawls(now):
                crawling.append(client)
        return (of_worst + idle)[:BATCH] or crawling

    def _silent_tunnels(self, now: float, key: str) -> list[Client]:
        """End those of one address that have been silent for long; the connections are to be closed."""
        found: list[Client] = []
        for client, its_key in self._open.items():
            if its_key != key or client in self._leaving:
                continue
            tunnels = list(client.under_way())
            if tunnels and all(
                each.phase is Phase.TUNNEL and now - each.moved_at >= TUNNEL_SECONDS for each in tunnels
            ):
                found.append(client)
                if len(found) >= TUNNEL_BATCH:
                    break
        for client in found:
            for tunnel in list(client.under_way()):
                tunnel.fail(IdleTimeout())
        return found

    def _tell(self, now: float, count: int) -> None:
        if now >= self._tell_again_at:
            self._tell_again_at = now + _TELL_AGAIN_SECONDS
            _log.warn(
                "{open} client connections are all there may be: {what}",
                open=len(self._open),
                what="idle ones are closed for new ones" if count else "new ones are refused",
            )
