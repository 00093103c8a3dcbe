"""What only the kernel knows of a connection: does a slow reader still read, is an idle peer still there?

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

__all__ = ["SendProgress", "has_unread", "is_alive"]


class SendProgress:
    """Remembers how much lay in the kernel's send buffer when last asked."""

    __slots__ = ("_unsent",)

    def __init__(self) -> None:
        self._unsent = -1

    def note(self, transport: Any) -> None:
        """Remember how much waits now; what moves is counted from here."""
        self._unsent = _unsent_bytes(transport)

    def forget(self) -> None:
        """Begin anew: at the next look it is enough that any wait."""
        self._unsent = -1

    def has_moved(self, transport: Any) -> bool:
        """Whether the peer took bytes since the last look; when there was none, whether any wait.

        Always False where there is no socket to ask.
        """
        unsent = _unsent_bytes(transport)
        before, self._unsent = self._unsent, unsent
        return unsent > 0 and unsent != before


def is_alive(transport: Any) -> bool:
    """Whether the peer of an idle connection has neither closed it nor said anything.

    True where there is no socket to ask; costs one system call.
    """
    handle = _socket_of(transport)
    if handle is None:
        return True
    try:
        handle.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError):
        return True
    except OSError:
        return False
    return False


def has_unread(transport: Any) -> bool:
    """Whether bytes of the peer lie in the system's buffer; costs one system call.

    False where there is no socket to ask.
    """
    handle = _socket_of(transport) or _socket_of(getattr(transport, "transport", None))
    try:
        return handle is not None and bool(handle.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def _socket_of(transport: Any) -> socket.SocketType | None:
    try:
        handle = transport.getHandle()
    except AttributeError:
        return None  # it never had a socket, or it was lost and Twisted has deleted it
    return handle if isinstance(handle, socket.SocketType) else None


def _unsent_bytes(transport: Any) -> int:
    # A TLS transport of Twisted has no socket; the one it runs on does.
    handle = _socket_of(transport) or _socket_of(getattr(transport, "transport", None))
    if ioctl is None or handle is None:
        return 0
    try:
        return int(struct.unpack("i", ioctl(handle, TIOCOUTQ, b"\0\0\0\0"))[0])
    except (OSError, ValueError):  # closed; then there is no file descriptor any more
        return 0
