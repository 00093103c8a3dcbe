"""Every case of ``tests/corpus/http1``: whole, byte by byte and cut at random places."""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.http1_forwarding import (
    ClientIdentity,
    acceptable_request_id,
    informational_head,
    relayed_trailers,
    request_head_for_backend,
    response_head_for_client,
)
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead
from tests.corpus import Case, Outcome, decode, encode, load_cases
from tests.wire.http1_streams import Message, RequestStream, ResponseStream, cuts

REQUEST_ID = b"00000000-0000-4000-8000-000000000000"
WALL_TIME = 1_700_000_000.0

#: What ``<ours>`` stands for in a case.
OURS = (
    b"X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n"
    b"X-Forwarded-Proto: http\r\nX-Forwarded-Port: 80\r\n"
    b"X-Request-ID: " + REQUEST_ID + b"\r\nX-Request-Start: t=1700000000.000\r\n"
)


def is_trusted(address: str) -> bool:
    return address.startswith("10.") or not address


IDENTITIES = {
    "": ClientIdentity("192.0.2.1", "http", 80, is_trusted),
    "trusted": ClientIdentity("10.0.0.9", "http", 80, is_trusted),
    "unix": ClientIdentity("", "http", 80, None),
    "trusted-unix": ClientIdentity("", "http", 80, is_trusted),
}


def rewritten(head: RequestHead | ResponseHead, peer: str) -> bytes:
    """The head in the words of the other side."""
    if isinstance(head, RequestHead):
        request_id = acceptable_request_id(head.special.get(b"x-request-id", [])) or REQUEST_ID
        return request_head_for_backend(head, IDENTITIES[peer], request_id, WALL_TIME)
    if head.status < 200:
        return informational_head(head)
    return response_head_for_client(head, 1, True)


def outcome(message: Message) -> Outcome:
    head = message.head
    if isinstance(head, RequestHead):
        line = f"{head.method.decode()} {head.target.decode()} {head.host}"
    else:
        line = str(head.status)
    return Outcome(line, message.body, relayed_trailers(message.trailers))


class CorpusTestCase(SynchronousTestCase):
    """Runs one case in every cut."""

    def check(self, case: Case) -> None:
        for number, pieces in enumerate(cuts(case.input, random.Random(case.name))):
            stream = RequestStream() if case.name.startswith("requests/") else ResponseStream(case.methods)
            for piece in pieces:
                stream.receive(piece)
                if stream.detail:
                    break  # refused: two million more bytes make no difference
            if case.closed:
                stream.close()
            why = f"{case.name}, cut {number}: {case.why} ({stream.detail})"
            self.assertEqual([outcome(message) for message in stream.messages], case.accepts, why)
            self.assertEqual(stream.stands, case.then, why)
            if case.rewritten is not None:
                heads = b"".join(rewritten(message.head, case.peer) for message in stream.messages)
                self.assertEqual(heads, case.rewritten.replace(b"<ours>", OURS), why)


class RequestCorpusTests(CorpusTestCase):
    """What a client may send, and what it may not."""


class ResponseCorpusTests(CorpusTestCase):
    """What a backend may send, and what it may not."""


def _test_of(case: Case) -> Callable[[CorpusTestCase], None]:
    def test(self: CorpusTestCase) -> None:
        self.check(case)

    test.__doc__ = case.why
    return test


def _add_tests(owner: type[CorpusTestCase], kind: str) -> None:
    for case in load_cases(kind):
        name = "test_" + case.name.removeprefix(kind + "/").translate(str.maketrans("/-.", "___"))
        setattr(owner, name, _test_of(case))


_add_tests(RequestCorpusTests, "requests")
_add_tests(ResponseCorpusTests, "responses")


class CorpusTests(SynchronousTestCase):
    """The files themselves."""

    def test_size(self) -> None:
        """No case was lost on the way."""
        self.assertGreater(len(load_cases("requests")), 500)
        self.assertGreater(len(load_cases("responses")), 100)

    def test_notation(self) -> None:
        """Any bytes can be written down, and are read back as they were."""
        data = bytes(range(256)) + b"\r\n \r\n\\n\\(a*3)  "
        self.assertEqual(decode(encode(data)), data)

    def test_repetition(self) -> None:
        """A repeated piece may hold escapes."""
        self.assertEqual(decode(r"a\(\x41\r\n*3)b"), b"aA\r\nA\r\nA\r\nb")

    def test_unknown_escape(self) -> None:
        """A backslash that begins no escape is a mistake in the file."""
        self.assertRaises(ValueError, decode, r"a\q")
