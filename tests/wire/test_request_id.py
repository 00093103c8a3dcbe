"""Request ids of our own."""

from __future__ import annotations

import random
import uuid

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.http1_forwarding import acceptable_request_id
from scalingo_proxy.wire.request_id import request_ids


class RequestIdsTests(SynchronousTestCase):
    """Random UUIDs."""

    def test_form(self) -> None:
        """Each is a UUID of version 4 in its usual form, and one that we would keep."""
        make = request_ids()
        for _ in range(600):
            text = make()
            parsed = uuid.UUID(text)
            self.assertEqual((str(parsed), parsed.version, parsed.variant), (text, 4, uuid.RFC_4122))
            self.assertEqual(acceptable_request_id([text.encode()]), text.encode())

    def test_octets(self) -> None:
        """All that was drawn is in them, but for the six bits that say what they are."""
        drawn = random.Random(3).randbytes(4096)
        make = request_ids(lambda count: drawn[:count])
        expected = [str(uuid.UUID(bytes=drawn[at : at + 16], version=4)) for at in range(0, 4096, 16)]
        self.assertEqual(sorted(make() for _ in range(256)), sorted(expected))

    def test_no_repetition(self) -> None:
        """Across batches none comes twice."""
        make = request_ids()
        self.assertEqual(len({make() for _ in range(2000)}), 2000)

    def test_seeded(self) -> None:
        """The same randomness gives the same ids, and is asked for in batches."""
        asked: list[int] = []

        def random_bytes(count: int) -> bytes:
            asked.append(count)
            return random.Random(7).randbytes(count)

        first, second = request_ids(random_bytes), request_ids(random_bytes)
        self.assertEqual([first() for _ in range(10)], [second() for _ in range(10)])
        self.assertEqual(len(asked), 2)
