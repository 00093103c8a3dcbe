"""The records of TLS from outside: where one ends and the next begins (RFC 8446 §5.1)."""

from __future__ import annotations

import struct

__all__ = ["RECORD_BYTES", "count_records"]

#: A record carries no more (RFC 8446 §5.1).
RECORD_BYTES = 16384

_HEADER_BYTES = 5
_length_at = struct.Struct(">3xH").unpack_from


def count_records(data: bytes) -> int:
    """How many records *data* is made of; 0, if the last one is not all there."""
    count = at = 0
    end = len(data)
    try:
        while at < end:
            at += _HEADER_BYTES + _length_at(data, at)[0]
            count += 1
    except struct.error:
        return 0
    return count if at == end else 0
