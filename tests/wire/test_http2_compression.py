"""HPACK, less work for the usual: the same as the library's in both directions."""

from __future__ import annotations

import random

from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman as decode_by_library
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire import http2_huffman
from scalingo_proxy.wire.http1_response import forget_unused_responses, parse_response_head
from scalingo_proxy.wire.http2_compression import LeanDecoder, LeanEncoder
from scalingo_proxy.wire.http2_frames import ErrorCode, HTTP2Error
from scalingo_proxy.wire.http2_head import http2_response_block, http2_response_fields
from scalingo_proxy.wire.http2_huffman import decode_huffman

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
        encoder, decoder = Encoder(), LeanDecoder(65536)
        for _ in range(300):
            if source.random() < 0.1:
                encoder.header_table_size = source.choice((0, 100, 1000, 4096))
            fields = random_fields(source)
            decoded = decoder.decode(encoder.encode(fields, huffman=source.random() < 0.5))
            self.assertEqual(decoded, [tuple(field) for field in fields])
            self.assertEqual(decoder.table_bytes, encoder.header_table_size)

    def test_same_mistakes(self) -> None:
        """Whatever bytes come, both refuse it, or both read the same."""
        source = random.Random(2)
        seeds = [Encoder().encode(random_fields(source)) for _ in range(20)]
        for number in range(3000):
            block = bytearray(source.choice(seeds) or b"\x82")
            for _ in range(source.randrange(4)):
                block[source.randrange(len(block))] = source.randrange(256)
            library, ours = Decoder(300), LeanDecoder(300)
            wanted: object
            found: object
            try:
                decoded = library.decode(bytes(block), raw=True)
                wanted = [tuple(field) for field in decoded], library.header_table.maxsize
            except OversizedHeaderListError:
                wanted = ErrorCode.ENHANCE_YOUR_CALM
            except HPACKError:
                wanted = ErrorCode.COMPRESSION_ERROR
            try:
                found = ours.decode(bytes(block)), ours.table_bytes
            except HTTP2Error as error:
                found = error.code
            self.assertEqual(found, wanted, (number, bytes(block)))

    def test_tables_stay_alike(self) -> None:
        """After any number of blocks, the indices mean the same: entries come and go together."""
        source = random.Random(4)
        encoder, decoder = Encoder(), LeanDecoder(65536)
        for size in (4096, 120, 0, 64, 4096):
            encoder.header_table_size = size
            for _ in range(40):
                fields = [(b"x%d" % source.randrange(20), b"y" * source.randrange(100)) for _ in range(6)]
                self.assertEqual(decoder.decode(encoder.encode(fields)), fields)
                kept = [entry[0] for entry in reversed(decoder._table)]
                self.assertEqual(kept, list(encoder.header_table.dynamic_entries))
                self.assertLessEqual(decoder._used_bytes, size)

    def test_same_block_again(self) -> None:
        """What the same bytes mean depends on the table, however often they came before."""
        source = random.Random(6)
        library, ours = Decoder(), LeanDecoder(65536)
        blocks = [b"\xbe", b"\xbf\xbe", b"\x82\xbe", b"\x82\x04\x01/", b"\x40\x01x\x01y", b"\x41\x01z"]
        blocks += [b"\x3f\xe1\x1f\x82", b"\x20\x82", b"\xbe" * 600]
        for _ in range(3000):
            block = source.choice(blocks)
            try:
                wanted: object = [tuple(field) for field in library.decode(block, raw=True)]
            except HPACKError:
                wanted = None
            try:
                found: object = ours.decode(block)
            except HTTP2Error:
                found = None
            self.assertEqual(found, wanted, block)
            self.assertLessEqual(len(ours._known), 8)

    def test_long_integers(self) -> None:
        """Five bytes may follow the first, and no more."""
        longest = b"\x1f\x80\x80\x80\x80\x00" + b"\x01y"  # a name with the index 15
        self.assertEqual(LeanDecoder(9999).decode(longest), [(b"accept-charset", b"y")])
        too_long = longest.replace(b"\x80\x00", b"\x80\x80\x00")
        with self.assertRaises(HTTP2Error) as caught:
            LeanDecoder(9999).decode(too_long)
        self.assertEqual(caught.exception.code, ErrorCode.COMPRESSION_ERROR)

    def test_changes_of_size(self) -> None:
        """Two may begin a block (RFC 7541 §4.2); thousands, of which no field comes, do not go on and on."""
        self.assertEqual(LeanDecoder(9999).decode(b"\x20\x3f\x01\x82"), [(b":method", b"GET")])
        with self.assertRaises(HTTP2Error) as caught:
            LeanDecoder(9999).decode(b"\x20" * 3 + b"\x82")
        self.assertEqual(caught.exception.code, ErrorCode.COMPRESSION_ERROR)


class HuffmanTests(SynchronousTestCase):
    """The code of strings, against the library's table of four bits."""

    def test_same_as_the_library(self) -> None:
        """Whatever was encoded, and any other bytes."""
        source = random.Random(5)
        encode = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode
        for number in range(4000):
            text = source.randbytes(source.randrange(12))
            text = encode(text) if number % 2 else text
            try:
                wanted: bytes | None = decode_by_library(text)
            except HPACKError:
                wanted = None
            try:
                found: bytes | None = decode_huffman(text)
            except ValueError:
                found = None
            self.assertEqual(found, wanted, text)

    def test_bounded(self) -> None:
        """Meanings that find no room are found out each time."""
        self.patch(http2_huffman, "_MOST_REMEMBERED", 0)
        encode = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode
        remembered = http2_huffman._State.remembered
        every = bytes(range(256)) * 2
        self.assertEqual(decode_huffman(encode(every)), every)
        self.assertEqual(http2_huffman._State.remembered, remembered)


class EncoderTests(SynchronousTestCase):
    """What it encodes, the library reads."""

    def test_read_by_the_library(self) -> None:
        """Block after block, also when the client has changed the size of its table."""
        source = random.Random(3)
        encoder, decoder = LeanEncoder(), Decoder()
        for _ in range(300):
            if source.random() < 0.2:
                for _ in range(source.randrange(1, 4)):
                    decoder.max_allowed_table_size = source.choice((0, 100, 4096))
                    encoder.resize(decoder.max_allowed_table_size)
            fields = [tuple(field) for field in random_fields(source)]
            decoded = decoder.decode(encoder.encode(fields), raw=True)
            self.assertEqual([tuple(field) for field in decoded], fields)
            self.assertEqual(decoder.header_table_size, decoder.max_allowed_table_size)

    def test_sizes(self) -> None:
        """The least size and the last are told, once, and none beyond what we want."""
        encoder = LeanEncoder()
        for size in (2**32 - 1, 4096):
            encoder.resize(size)
        self.assertEqual(encoder.encode([]), b"")
        for size in (100, 50, 2**32 - 1):
            encoder.resize(size)
        self.assertEqual(encoder.encode([]), b"\x3f\x13\x3f\xe1\x1f")
        self.assertEqual(encoder.encode([]), b"")

    def test_static_fields_take_a_byte(self) -> None:
        """What stands in the static table is one byte."""
        self.assertEqual(LeanEncoder().encode([(b":status", b"200")]), b"\x88")

    def test_forms(self) -> None:
        """A head that fills in a form is encoded as its fields would be."""
        forget_unused_responses()  # and that too many heads before fitted none
        source, known = random.Random(7), 0
        for number in range(400):
            lines = [
                b"Server: nginx",
                b"Content-Type: text/" + source.choice((b"html", b"x" * 80)),
                b"Date: " + source.choice((b"Fri, 27 Nov 2026 13:15:19 GMT", b"y" * 200)),
                b"Content-Length: %d" % source.choice((0, 5, 1234567)),
                b"Set-Cookie: a=%d" % source.randrange(10),
                b"set-cookie: b=" + b"z" * source.choice((1, 126, 127, 128, 300)),
                b"X-Own: " + source.choice((b"", b"1")),
            ]
            source.shuffle(lines)
            lines = lines if number % 2 else sorted(lines[:3])
            status = source.choice((b"200 OK", b"404 Not Found", b"599"))
            block = b"HTTP/1.1 %b\r\n%b\r\n\r\n" % (status, b"\r\n".join(lines))
            for _ in range(3):
                head = parse_response_head(block, b"GET")
                known += head.filled is not None
                encoder, other = LeanEncoder(), LeanEncoder()
                if source.random() < 0.1:
                    encoder.resize(100)
                    other.resize(100)
                told = http2_response_block(head, encoder)
                self.assertEqual(told, other.encode(http2_response_fields(head.status, head.fields)))
        self.assertGreater(known, 400)
        forget_unused_responses()
        forget_unused_responses()

    def test_changed_heads(self) -> None:
        """A field that was added to a known head is not lost."""
        forget_unused_responses()
        block = b"HTTP/1.1 200 OK\r\nDate: now\r\nX-Added-Later: no\r\n\r\n"
        for _ in range(4):
            head = parse_response_head(block, b"GET")
        self.assertIsNotNone(head.filled)
        block = http2_response_block(head.with_field(b"X", b"y"), LeanEncoder())
        decoded = Decoder().decode(block, raw=True)
        self.assertEqual(tuple(decoded[-1]), (b"x", b"y"))
