r"""What may happen to a connection in a world in memory, as values, and by chance from a seed.

Each fault is a frozen value.  A backend is given a list of them, one for each
connection that comes, ``None`` for one without trouble, and a tuple for one
with several at once::

    from scalingo_proxy.testing.faults import Drip, Faults, Reset

    world.backend("10.0.0.1:3000", faults=[Reset(at=100), None, Drip(every=0.5)])
    world.backend("10.0.0.2:3000", faults=Faults(seed=7, share=0.2))

They happen below the protocols, byte by byte: plain HTTP, TLS and tunnels
suffer alike.  *Request* is what the connecting side sends, *response* what
the accepting side does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

import attrs

from scalingo_proxy.testing.connecting import Reach
from scalingo_proxy.testing.lines import (
    CuttingTrouble,
    DrippingTrouble,
    GarblingTrouble,
    IdleClosingTrouble,
    Line,
    ResettingTrouble,
    StallingTrouble,
    Trouble,
)

__all__ = [
    "BlackHole",
    "CloseIdle",
    "Drip",
    "Fault",
    "Faults",
    "Garbage",
    "HalfOpen",
    "Outage",
    "Refuse",
    "Reset",
    "Stall",
]

_direction = attrs.validators.in_(("request", "response"))


@attrs.frozen
class Fault:
    """What happens to one connection.

    :cvar reach: what the attempt to connect meets.
    """

    reach = Reach.NORMAL

    def trouble(self, line: Line) -> Trouble | None:
        """What goes wrong once the connection is there."""
        return None

    @classmethod
    def drawn(cls, random: Random) -> Fault:
        """One of this kind, with numbers that *random* decides."""
        return cls()


@attrs.frozen
class Refuse(Fault):
    """The connection is refused."""

    reach = Reach.REFUSED


@attrs.frozen
class BlackHole(Fault):
    """The attempt is never answered: it ends by its own timeout."""

    reach = Reach.SILENT


@attrs.frozen
class Reset(Fault):
    """Both ends see a reset after *at* bytes; with 0, as soon as they are connected.

    :ivar of: which bytes are counted: ``"request"`` or ``"response"``.
    """

    at: int = 0
    of: str = attrs.field(default="response", validator=_direction)

    def trouble(self, line: Line) -> Trouble:
        """What goes wrong."""
        return ResettingTrouble(line, self.at, self.of)

    @classmethod
    def drawn(cls, random: Random) -> Reset:
        """Mostly in the first few hundred bytes: that is where heads are."""
        return cls(random.choice((0, random.randint(1, 400), random.randint(1, 20_000))), _either(random))


@attrs.frozen
class Stall(Fault):
    """After *at* bytes nothing moves in either direction for *seconds*, then everything goes on.

    So does a process that is stopped: its connections stay, new ones are
    accepted, and what was sent to it is read later.
    """

    at: int = 0
    of: str = attrs.field(default="response", validator=_direction)
    seconds: float = math.inf

    def trouble(self, line: Line) -> Trouble:
        """What goes wrong."""
        return StallingTrouble(line, self.at, self.of, self.seconds)

    @classmethod
    def drawn(cls, random: Random) -> Stall:
        """From half a second to two minutes."""
        return cls(random.choice((0, random.randint(1, 400))), _either(random), random.choice((0.5, 5, 120)))


@attrs.frozen
class HalfOpen(Fault):
    """After *at* bytes the other side is gone, and nobody is told: no FIN, no reset.

    So does a machine that loses its power, or a firewall that forgets.
    """

    at: int = 0
    of: str = attrs.field(default="response", validator=_direction)

    def trouble(self, line: Line) -> Trouble:
        """What goes wrong."""
        return CuttingTrouble(line, self.at, self.of)

    @classmethod
    def drawn(cls, random: Random) -> HalfOpen:
        """At once, or after a while."""
        return cls(random.choice((0, random.randint(1, 400))), _either(random))


@attrs.frozen
class Drip(Fault):
    """After *at* bytes only *size* bytes pass each *every* seconds, in the direction *of*."""

    size: int = 1
    every: float = 0.1
    at: int = 0
    of: str = attrs.field(default="response", validator=_direction)

    def trouble(self, line: Line) -> Trouble:
        """What goes wrong."""
        return DrippingTrouble(line, self.at, self.of, self.size, self.every)

    @classmethod
    def drawn(cls, random: Random) -> Drip:
        """From a byte each tenth of a second to a hundred each second."""
        size, every = random.choice(((1, 0.1), (10, 0.2), (100, 1.0)))
        return cls(size, every, random.choice((0, random.randint(1, 400))), _either(random))


@attrs.frozen
class CloseIdle(Fault):
    """The accepting side closes when nothing has moved for *seconds* since it last sent.

    A response that pauses for longer is cut, too: the fault knows bytes, not
    messages.
    """

    seconds: float = 5.0

    def trouble(self, line: Line) -> Trouble:
        """What goes wrong."""
        return IdleClosingTrouble(line, self.seconds)

    @classmethod
    def drawn(cls, random: Random) -> CloseIdle:
        """From half a second to half a minute."""
        return cls(random.choice((0.5, 2.0, 5.0, 30.0)))


@attrs.frozen
class Garbage(Fault):
    """After *at* bytes, what arrives in the direction *of* is random bytes, as many as were sent."""

    at: int = 0
    of: str = attrs.field(default="response", validator=_direction)
    seed: int = 0

    def trouble(self, line: Line) -> Trouble:
        """What goes wrong."""
        return GarblingTrouble(line, self.at, self.of, self.seed)

    @classmethod
    def drawn(cls, random: Random) -> Garbage:
        """In the response: a request that was garbled is another request."""
        return cls(random.choice((0, 0, random.randint(1, 60))), "response", random.getrandbits(32))


def _either(random: Random) -> str:
    return random.choice(("request", "response", "response"))


@attrs.frozen
class Outage:
    """A fault that an address suffers for a while: every connection, open ones too.

    :ivar begins: on the clock of the world.
    :ivar seconds: how long it lasts.
    """

    begins: float
    seconds: float
    fault: Fault


#: Every kind there is.
KINDS: tuple[type[Fault], ...] = (Refuse, BlackHole, Reset, Stall, HalfOpen, Drip, CloseIdle, Garbage)

#: The kinds that an outage may be of: what a process, a machine or a network does as a whole.
_OUTAGES: tuple[Fault, ...] = (Refuse(), BlackHole(), Reset(), Stall(), HalfOpen())


class Faults(Iterator["Fault | None"]):
    """Faults by chance: an endless series, the same for the same seed.

    :param seed: a number, or text that tells one series from another.
    :param share: how often there is a fault at all, from 0 to 1.
    :param kinds: what may come.
    """

    def __init__(
        self, seed: int | str = 0, share: float = 1.0, kinds: tuple[type[Fault], ...] = KINDS
    ) -> None:
        self._random = Random(seed)
        self._share = share
        self._kinds = kinds

    def draw(self) -> Fault | None:
        """The next one; ``None`` is a connection without trouble."""
        if self._random.random() >= self._share:
            return None
        return self._random.choice(self._kinds).drawn(self._random)

    __next__ = draw

    def outages(
        self,
        until: float,
        *,
        every: float,
        lasting: tuple[float, float] = (1.0, 30.0),
        faults: tuple[Fault, ...] = _OUTAGES,
    ) -> tuple[Outage, ...]:
        """A schedule: outages one after another, never two at once.

        :param until: when the last of them is over, on the clock of the world.
        :param every: seconds between the end of one and the begin of the next, on average.
        :param lasting: the least and the most seconds that one lasts.
        :param faults: what may be suffered.
        """
        drawn: list[Outage] = []
        now = 0.0
        while True:
            begins = now + self._random.expovariate(1 / every)
            outage = Outage(begins, self._random.uniform(*lasting), self._random.choice(faults))
            now = begins + outage.seconds
            if now > until:
                return tuple(drawn)
            drawn.append(outage)
