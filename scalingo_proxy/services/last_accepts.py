"""Closing a port without a reset for anybody who is connected already.

The system completes connections before anybody accepts them, and a port that
closes resets those that wait; under load there are always some.  So, where Linux
allows it, the port first takes no new ones for a moment, in which handshakes
under way are completed, and accepts all who wait before it closes.  What is done
for them is the factory's business.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.tcp import Port

__all__ = ["close_port"]

#: How long a handshake that has begun may take.
HANDSHAKE_SECONDS = 0.2

#: Reads of the port, each of which accepts many; a flood shall not keep it open.
_MOST_READS = 50
#: What such a read is to accept; a port may have a limit of its own.
_MANY = 100

_SO_ATTACH_FILTER = 26

#: Classic BPF: a segment with SYN and without ACK is dropped, all else is kept.
#: The flags are byte 13 of the TCP header, where the packet begins for a filter.
_DROP_NEWCOMERS = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte
        (0x54, 0, 0, 0x12),  # SYN and ACK of it
        (0x15, 1, 0, 0x02),  # SYN alone: skip one
        (0x06, 0, 0, 0xFFFFFFFF),  # keep
        (0x06, 0, 0, 0),  # drop
    )
)


def close_port(
    port: Any, accepted: Callable[[], int], for_good: bool, leave: Callable[[], None] | None = None
) -> Deferred[Any]:
    """Stop listening; fires when the port is closed.

    :param accepted: tells how many it has accepted.
    :param for_good: nobody will listen there again soon, so it may take a moment.
        A client that comes in that moment is refused when it tries again.
    :param leave: called when nobody else will be accepted.
    """
    if isinstance(port, Port) and for_good and _drops_newcomers(port.socket):
        reactor: Any = port.reactor
        return deferLater(reactor, HANDSHAKE_SECONDS, _accept_and_close, port, accepted, leave)
    return _accept_and_close(port, accepted, leave)


def _accept_and_close(
    port: Any, accepted: Callable[[], int], leave: Callable[[], None] | None
) -> Deferred[Any]:
    if isinstance(port, Port) and port.connected:
        port.numberAccepts = _MANY  # it may have taken them one by one
        for _ in range(_MOST_READS):
            before = accepted()
            port.doRead()  # type: ignore[no-untyped-call]
            if accepted() == before:
                break
    if leave is not None:
        leave()
    return maybeDeferred(port.stopListening)


def _drops_newcomers(listening: socket.socket) -> bool:
    """Let the system drop who wants to connect from now on, as if the network had lost it."""
    if sys.platform != "linux" or listening.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    program = ctypes.create_string_buffer(_DROP_NEWCOMERS, len(_DROP_NEWCOMERS))
    told = struct.pack("HP", len(_DROP_NEWCOMERS) // 8, ctypes.addressof(program))
    try:
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, told)
    except OSError:
        return False
    return True
