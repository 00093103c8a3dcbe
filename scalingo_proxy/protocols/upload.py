"""Where the body of one request stands on its way; requests without one need nothing of it."""

from __future__ import annotations

from scalingo_proxy.protocols.kept_body import KeptBody

__all__ = ["Upload"]


class Upload:
    """The body of one request.

    :param waits_for_continue: whether the client holds it back until it is told to go on.
    :ivar is_complete: whether the client has sent all of it.
    :ivar is_paused: whether the backend takes no more of it for now.
    :ivar kept: what a backend was sent of it; ``None`` until a piece of it came, and when it is not needed
        any more.
    """

    __slots__ = ("is_complete", "is_paused", "kept", "waits_for_continue")

    def __init__(self, waits_for_continue: bool) -> None:
        self.waits_for_continue = waits_for_continue
        self.is_complete = False
        self.is_paused = False
        self.kept: KeptBody | None = None
