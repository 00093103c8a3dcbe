"""How many records of TLS came: known, or not known."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.tls_records import count_records


class CountTests(SynchronousTestCase):
    """Of bytes that begin where a record begins."""

    def test_whole(self) -> None:
        """Records are counted, empty ones too."""
        self.assertEqual(count_records(b"\x17\3\3\0\2ab"), 1)
        self.assertEqual(count_records(b"\x17\3\3\0\2ab\x17\3\3\0\0\x15\3\3\1\0" + bytes(256)), 3)

    def test_unfinished(self) -> None:
        """When the last one is not all there, nothing is said."""
        for data in (b"", b"\x17", b"\x17\3\3\0", b"\x17\3\3\0\2a", b"\x17\3\3\0\2ab\x17\3\3"):
            self.assertEqual(count_records(data), 0)
