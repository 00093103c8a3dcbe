"""What is known of the backends of a soak, real or simulated: who served when, and what was done to them."""

from __future__ import annotations

from collections.abc import Iterable

from tests.soak.exchanges import Touch

__all__ = ["Execution", "SoakMember", "SoakMembers"]

#: When, the id, the method, and the name of the backend.
Execution = tuple[float, str, str, str]


class SoakMember:
    """One backend, through all its deaths.

    :ivar touches: what was done to it, in order.
    :ivar serves_from: when the proxy had acknowledged it.
    :ivar serves_until: when the proxy was asked to let it go.
    :ivar gone_from: when the proxy had acknowledged that.
    """

    def __init__(self, app: str, name: str) -> None:
        self.app = app
        self.name = name
        self.touches: list[Touch] = []
        self.serves_from = self.serves_until = self.gone_from = float("inf")

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        raise NotImplementedError

    def was_touched(self, began: float, ended: float) -> bool:
        """Whether anything was done to it in that time."""
        return any(touch.began <= ended and touch.ended >= began for touch in self.touches)

    def served(self, began: float, ended: float) -> bool:
        """Whether the proxy had it all that time."""
        return self.serves_from <= began and self.serves_until >= ended


class SoakMembers:
    """The backends of all apps."""

    def everybody(self) -> Iterable[SoakMember]:
        """All that ever served, in the order they came."""
        raise NotImplementedError

    def executions(self) -> list[Execution]:
        """Everything that was executed."""
        raise NotImplementedError

    def by_name(self, name: str) -> SoakMember | None:
        return next((each for each in self.everybody() if each.name == name), None)

    def by_address(self, address: str) -> SoakMember | None:
        """The last that was there."""
        return next((each for each in reversed(list(self.everybody())) if each.address == address), None)

    def has_untouched(self, app: str, began: float, ended: float) -> bool:
        """Whether a backend served *app* all that time and nothing was done to it."""
        return any(
            each.app == app and each.served(began, ended) and not each.was_touched(began, ended)
            for each in self.everybody()
        )
