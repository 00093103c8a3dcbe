"""HPACK, less work for the usual: the same as the library's in both directions."""

from __future__ import annotations

import random

from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hpack.exceptions import HPACKError
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.http2_compression import LeanDecoder, LeanEncoder

NAMES = (b":path", b":status", b"cookie", b"set-cookie", b"x-own", b"date", b"content-length", b"a" * 130)
VALUES = (b"/", b"200", b"", b"304", b"x" * 64, b"y" * 65, b"z" * 300, bytes(range(128, 256)))


def random_fields(source: random.Random) -> list[HeaderTuple]:
    kinds = (HeaderTuple, HeaderTuple, NeverIndexedHeaderTuple)
    return [
        source.choice(kinds)(source.choice(NAMES), source.choice(VALUES)) for _ in range(source.randrange(12))
    ]


class DecoderTests(SynchronousTestCase):
    """What the library encodes, and what nobody should."""

    def test_same_as_the_library(self) -> None:
        """Block after block, with tables that change their size in between."""
        source = random.Random(1)
        encoder, decoder = Encoder(), LeanDecoder()
        decoder.max_allowed_table_size = 4096
        for _ in range(300):
            if source.random() < 0.1:
                encoder.header_table_size = source.choice((0, 100, 1000, 4096))
            fields = random_fields(source)
            decoded = decoder.decode(encoder.encode(fields), raw=True)
            self.assertEqual([tuple(field) for field in decoded], [tuple(field) for field in fields])

    def test_same_mistakes(self) -> None:
        """Whatever bytes come, both refuse it, or both read the same."""
        source = random.Random(2)
        seeds = [Encoder().encode(random_fields(source)) for _ in range(20)]
        for number in range(3000):
            block = bytearray(source.choice(seeds) or b"\x82")
            for _ in range(source.randrange(4)):
                block[source.randrange(len(block))] = source.randrange(256)
            outcomes = []
            for decoder in (Decoder(300), LeanDecoder(300)):
                try:
                    decoded = decoder.decode(bytes(block), raw=True)
                    outcomes.append(([tuple(field) for field in decoded], decoder.header_table.maxsize))
                except HPACKError as error:
                    outcomes.append((type(error), 0))
            self.assertEqual(outcomes[0], outcomes[1], (number, bytes(block)))


class EncoderTests(SynchronousTestCase):
    """What it encodes, the library reads."""

    def test_read_by_the_library(self) -> None:
        """Block after block, also when the client has changed the size of its table."""
        source = random.Random(3)
        encoder, decoder = LeanEncoder(), Decoder()
        for _ in range(300):
            if source.random() < 0.1:
                encoder.header_table_size = decoder.max_allowed_table_size = source.choice((0, 100, 4096))
            fields = random_fields(source)
            decoded = decoder.decode(encoder.encode(fields), raw=True)
            self.assertEqual([tuple(field) for field in decoded], [tuple(field) for field in fields])
            self.assertEqual(
                [type(field) for field in decoded if len(field[1]) > 64],
                [type(field) for field in fields if len(field[1]) > 64],
            )

    def test_static_fields_take_a_byte(self) -> None:
        """What stands in the static table is one byte."""
        self.assertEqual(LeanEncoder().encode([(b":status", b"200")]), b"\x88")
