"""Request ids: random UUIDs (RFC 9562 §5.4), made in batches, randomness and words."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

__all__ = ["request_ids"]

#: How many are made at once: a system call, and 60 µs.
_BATCH = 256

# What the octets 6 and 8 become, whatever was drawn: version 4, and the variant of the RFC.
_VERSION = bytes(0x40 | octet & 0x0F for octet in range(256))
_VARIANT = bytes(0x80 | octet & 0x3F for octet in range(256))

_LENGTH = 36
# Where digits stand, and not dashes.
_PLACES = tuple(place for place in range(_LENGTH) if place not in (8, 13, 18, 23))


def request_ids(random_bytes: Callable[[int], bytes] = os.urandom) -> Callable[[], str]:
    """What gives one new request id at each call.

    :param random_bytes: where randomness comes from; tests hand in a seeded one.
    """
    batches = iter(lambda: _batch(random_bytes(16 * _BATCH)), [])
    # An iterator that is not written in Python gives them one by one (0.2 µs less).
    return itertools.chain.from_iterable(batches).__next__


def _batch(octets: bytes) -> list[str]:
    """An id of every 16 *octets*."""
    block = bytearray(octets)
    block[6::16] = block[6::16].translate(_VERSION)
    block[8::16] = block[8::16].translate(_VARIANT)
    digits = block.hex().encode("ascii")
    # All first digits go to their places at once, then all second ones, and one call parts the whole:
    # 0.2 µs an id; one id after the other costs 1.1.
    text = bytearray((b"-" * _LENGTH + b"\n") * (len(octets) // 16))
    for number, place in enumerate(_PLACES):
        text[place :: _LENGTH + 1] = digits[number::32]
    return text.decode("ascii").splitlines()
