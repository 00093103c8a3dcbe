"""Hellos of clients that came before: the same but for what is another in each.

A program says hello to a host in the same bytes each time, but for its random,
its session id and its keys.  Nobody who looks for a route looks at those
(:mod:`scalingo_proxy.wire.hello_message`): of an extension that decides nothing
only the kind and the length count.  So a hello is known again by all that is
looked at, and by whatever else does not change.

Browsers shuffle their extensions, and are not known again.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter

from scalingo_proxy.wire.hello_message import DECISIVE, ClientHello, whole_hello
from scalingo_proxy.wire.repeated import Repeated

__all__ = ["forget_unused_hellos", "known_hello"]

#: By what a layout is found: suites, mostly, and the first extensions; and the length of all.
_OPENING = slice(76, 160)

#: Extensions that decide nothing may hold anything, from so many bytes on.
_LEAST_BLANK_BYTES = 32

#: Of a longer one nothing is kept.
_MOST_KEPT_BYTES = 1024

#: Cuts out of a hello all but its blanks, and where it cuts.
_Cut = Callable[[bytes], tuple[bytes, ...]]
_Layout = tuple[_Cut, tuple[slice, ...]]

_layouts: Repeated[tuple[bytes, int], _Layout] = Repeated(most=256)
_hellos: Repeated[tuple[_Cut, tuple[bytes, ...]], ClientHello] = Repeated(most=1024)
_recent_layout = _layouts.recent.get
_recent_hello = _hellos.recent.get


def known_hello(data: bytes) -> ClientHello | None:
    """As :func:`~scalingo_proxy.wire.hello_message.whole_hello`, which is asked where *data* is new.

    What is known takes 1.1 µs instead of 4.6; where nothing comes twice, 0.7 more.
    """
    layout = _recent_layout((data[_OPENING], len(data)))
    if layout is not None:
        cut, _ = layout
        if (hello := _recent_hello((cut, cut(data)))) is not None:
            _hellos.misses = 0
            return hello
    hello = whole_hello(data)
    if hello is not None and not _hellos.is_hopeless():
        _learn(data, hello)
    return hello


def _learn(data: bytes, hello: ClientHello) -> None:
    """Know *hello* when *data* comes again with something else in its blanks."""
    opening = data[_OPENING], len(data)
    layout = _layouts.recent.get(opening) or _layouts.find_older(opening)
    if layout is None:
        _hellos.misses += 1
        if _layouts.is_second(opening):
            _keep_layout(opening, _cuts(data))
        return
    cut, cuts = layout
    key = cut, cut(data)
    if _hellos.find_older(key) is not None or not _hellos.is_second(key):
        return
    if cuts == (own := _cuts(data)):
        _hellos.keep(key, hello)
    else:
        _keep_layout(opening, own)  # of another client, whose hellos begin the same


def _keep_layout(opening: tuple[bytes, int], cuts: tuple[slice, ...]) -> None:
    if sum(cut.stop - cut.start for cut in cuts) <= _MOST_KEPT_BYTES:
        _layouts.keep(opening, (itemgetter(*cuts), cuts))


def _cuts(data: bytes) -> tuple[slice, ...]:
    """What is between the blanks of a hello that was read as a whole."""
    at = 44 + data[43]
    cuts = [slice(0, 11), slice(43, 44)]
    begin = at
    at += 2 + int.from_bytes(data[at : at + 2], "big") + 4
    while at < len(data):
        kind, length = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
        at += 4 + length
        if kind not in DECISIVE and length >= _LEAST_BLANK_BYTES:
            cuts.append(slice(begin, at - length))
            begin = at
    cuts.append(slice(begin, at))
    return tuple(cuts)


def forget_unused_hellos() -> None:
    """Called now and then: what nobody has sent since the time before the last is forgotten."""
    _layouts.turn()
    _hellos.turn()
