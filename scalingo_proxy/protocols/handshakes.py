"""Whose TLS handshake is next, when more come than there is time for.

A handshake costs more than several requests, and whoever sends a hello asks for one
without any effort of its own.  So each address may have so many a second; and
what all of them take of the reactor's turns is bounded, so that requests under
way, and doors without TLS, do not wait for a flood of hellos.  The others wait
in a fair queue for a later turn, and are sent away when it is full.

While there is time for all, nobody waits.
"""

from __future__ import annotations

from typing import Any, Protocol

from scalingo_proxy.errors import ProxyError, QueueFull, RateLimited
from scalingo_proxy.model import Limits
from scalingo_proxy.routing.fair_queue import FairQueue
from scalingo_proxy.routing.rate_limits import Buckets, rate_key

__all__ = ["BURST_SECONDS", "SECONDS_A_TURN", "Handshakes", "Waiting"]

#: How long handshakes may take of one turn of the reactor.
SECONDS_A_TURN = 0.002

#: An address may have so many seconds' worth of handshakes at once: an office opens in the morning.
BURST_SECONDS = 10

_TOO_MANY = "too many TLS handshakes from this address"


class Waiting(Protocol):
    """A client that has sent its hello."""

    def begin_handshake(self) -> None:
        """It is its turn."""

    def turn_away(self, error: ProxyError) -> None:
        """It will have no turn."""


class Handshakes:
    """Those who have sent a hello and wait for the answer.

    :param clock: gives ``seconds()`` and ``callLater()``.
    :ivar refused: how many were turned away, by the limit that did it.
    """

    def __init__(self, clock: Any) -> None:
        self.refused = {"address": 0, "queue": 0}
        self._clock = clock
        self._queue: FairQueue[Waiting] = FairQueue()
        self._use_rate(1)
        #: When handshakes will have had no more than half of the time again.
        self._even_at = 0.0
        self._timer: Any = None

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queue)

    def ask(self, whose: Waiting, address: str, app: str, limits: Limits) -> None:
        """Let *whose* begin, now or when it is its turn, or turn it away.

        :param address: whose it is; ``""`` where one address may bring many clients.
        """
        now = self._clock.seconds()
        wait = self._wait_of(address, limits.handshakes_per_address, now) if address else 0.0
        if wait:
            self.refused["address"] += 1
            whose.turn_away(RateLimited(_TOO_MANY, wait))
        elif not self._queue and self._even_at - now < SECONDS_A_TURN:
            self._begin(whose, now)
        else:
            self._queue.put(whose, rate_key(address) if address else "", app)
            if len(self._queue) > limits.handshake_queue:
                self.refused["queue"] += 1
                self._queue.drop().turn_away(QueueFull("too many TLS handshakes are waiting"))
            elif self._timer is None:
                self._timer = self._clock.callLater(0, self._go)

    def refusal(self, address: str, now: float) -> ProxyError | None:
        """Why *address* is not even let in: it has gone on asking, as often again as it may ask at all.

        What it may have is decided when its hello was read, by which time most of what a
        refusal costs is spent.  So this is for floods.

        :param address: as for :meth:`ask`.
        """
        if not address:
            return None
        key = rate_key(address)
        wait = self._buckets.wait(key, now)
        if not (wait and self._patience.wait(key, now)):
            return None
        self.refused["address"] += 1
        return RateLimited(_TOO_MANY, wait)

    def forget(self, whose: Waiting) -> None:
        """*whose* waits no longer."""
        self._queue.remove(whose)
        if not self._queue and self._timer is not None:
            timer, self._timer = self._timer, None
            timer.cancel()

    # -- inner parts ----------------------------------------------------------

    def _wait_of(self, address: str, rate: int, now: float) -> float:
        """Take one from what *address* may have; else the seconds until it may."""
        if rate != self._rate:
            self._use_rate(rate)
        key = rate_key(address)
        wait = self._buckets.take(key, now)
        if wait:
            self._patience.take(key, now)
        return wait

    def _use_rate(self, rate: int) -> None:
        self._rate = rate
        self._buckets = Buckets(rate, 1.0, rate * BURST_SECONDS)
        #: For refusals: whose is empty, too, is not let in.
        self._patience = Buckets(rate, 1.0, rate)

    def _begin(self, whose: Waiting, now: float) -> float:
        """Let *whose* begin; the moment at which that is done."""
        try:
            whose.begin_handshake()
        finally:
            done = self._clock.seconds()
            self._even_at = max(self._even_at, now) + 2 * (done - now)
        return float(done)

    def _go(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        end = now + SECONDS_A_TURN
        try:
            while self._queue and now < end:
                now = self._begin(self._queue.take(), now)
        finally:
            if self._queue and self._timer is None:
                self._timer = self._clock.callLater(0, self._go)
