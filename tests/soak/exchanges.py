"""What a soak remembers of everything it asked, and what became of it."""

from __future__ import annotations

import attrs

__all__ = ["Exchange", "Touch"]


@attrs.define(eq=False)
class Exchange:
    """One request, one WebSocket, or one connection that passed through.

    :ivar kind: ``GET``, ``POST``, ``WEBSOCKET`` and so on, with the door it used.
    :ivar is_repeatable: the proxy may send it again when its backend closed.
    :ivar is_tunnel: it lives as long as its backend.
    :ivar backend: who answered, or the last who was asked; ``""`` while unknown.
    :ivar status: of the answer; 0 when there was none.
    :ivar code: the reason code of an error of the proxy's, or what broke.
    :ivar behind: the id of the exchange before it on the same connection.
    :ivar connected: when the connection was begun that it went over, where that passes through.
    :ivar source: where its client connects from, where that tells it from others.
    :ivar has_begun: a byte of an answer came.
    """

    id: str
    kind: str
    app: str
    began: float
    is_repeatable: bool = True
    is_tunnel: bool = False
    ended: float = 0.0
    backend: str = ""
    status: int = 0
    code: str = ""
    has_begun: bool = False
    connected: float = 0.0
    source: str = ""
    behind: str = ""

    @property
    def is_good(self) -> bool:
        """Whether all was as if nothing had ever been wrong."""
        return not self.code

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


@attrs.define
class Touch:
    """Something was done to a backend.

    :ivar ended: when it was as before; infinity while it is not.
    """

    kind: str
    began: float
    ended: float = float("inf")
