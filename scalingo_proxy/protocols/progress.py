"""Does a slow reader still read?

A client on a thin line may need minutes for what lies in the kernel's send
buffer, and the transport tells nothing meanwhile.  The kernel does: it knows
how much the peer has not acknowledged yet.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # pragma: no cover - not on this platform
    ioctl = None  # type: ignore[assignment]

__all__ = ["SendProgress"]


class SendProgress:
    """Remembers how much lay in the kernel's send buffer when last asked."""

    __slots__ = ("_unsent",)

    def __init__(self) -> None:
        self._unsent = -1

    def has_moved(self, transport: Any) -> bool:
        """Whether the peer took bytes since the last call; on the first call, whether any wait.

        Always False where the transport is no plain socket.
        """
        unsent = _unsent_bytes(transport)
        before, self._unsent = self._unsent, unsent
        return unsent > 0 and (before < 0 or unsent != before)


def _unsent_bytes(transport: Any) -> int:
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle is not None else None
    if ioctl is None or not isinstance(handle, socket.socket):
        return 0
    try:
        return int(struct.unpack("i", ioctl(handle, TIOCOUTQ, b"\0\0\0\0"))[0])
    except OSError:
        return 0
