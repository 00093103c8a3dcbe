"""Answers of the router's own."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import BadRequest, UnknownHost, errors_by_code
from scalingo_proxy.wire.error_answer import ErrorAnswer, wants_json
from tests.wire.http1_streams import CLOSES, READY, ResponseStream

ID = "00000000-0000-4000-8000-000000000000"


class ErrorAnswerTests(SynchronousTestCase):
    """One answer for every code."""

    def test_every_code(self) -> None:
        """Each error has an answer that is a valid response, with code and id in head and body."""
        for code, error in errors_by_code().items():
            for as_json in (False, True):
                stream = ResponseStream()
                stream.receive(ErrorAnswer(error(), ID, as_json).http1(1, keep_alive=True, with_body=True))
                self.assertEqual((len(stream.messages), stream.stands), (1, READY), stream.detail)
                message = stream.messages[0]
                self.assertEqual(message.head.status, error.status)
                text = b"X-Scalingo-Error: " + code.encode() + b"; "
                self.assertIn(text, message.block)
                self.assertIn(b"X-Request-ID: " + ID.encode() + b"\r\n", message.block)
                self.assertIn(code.encode(), message.body)
                self.assertIn(ID.encode(), message.body)

    def test_json(self) -> None:
        """A program reads code, message and id."""
        answer = ErrorAnswer(BadRequest("there is no Host header"), ID, as_json=True)
        self.assertEqual(
            json.loads(answer.body),
            {"error": {"code": "bad-request", "message": "there is no Host header", "request_id": ID}},
        )

    def test_head(self) -> None:
        """The answer to HEAD tells the length of the body that it leaves out."""
        words = ErrorAnswer(UnknownHost(), ID, as_json=False).http1(1, keep_alive=True, with_body=False)
        stream = ResponseStream([b"HEAD"])
        stream.receive(words)
        self.assertEqual(stream.stands, READY)
        self.assertTrue(words.endswith(b"\r\n\r\n"))

    def test_connection(self) -> None:
        """Whether the connection goes on is said in the words of the client's version."""
        answer = ErrorAnswer(UnknownHost(), ID, as_json=False)
        for version, keep_alive, line in [
            (1, True, None),
            (1, False, b"Connection: close\r\n"),
            (0, True, b"Connection: keep-alive\r\n"),
            (0, False, b"Connection: close\r\n"),
        ]:
            words = answer.http1(version, keep_alive, with_body=True)
            self.assertEqual(words.count(b"Connection:"), line is not None)
            self.assertIn(line or b"", words)
            stream = ResponseStream()
            stream.receive(words)
            self.assertEqual(stream.stands, READY if keep_alive else CLOSES)


class WantsJsonTests(SynchronousTestCase):
    """Who reads the answer."""

    def test_accept(self) -> None:
        """JSON when asked for and a page is not."""
        self.assertTrue(wants_json([(b"accept", b"application/json")]))
        self.assertTrue(wants_json([(b"Accept", b"application/problem+JSON, */*;q=0.1")]))
        self.assertFalse(wants_json([(b"Accept", b"text/html, application/json")]))
        self.assertFalse(wants_json([(b"Accept", b"*/*")]))
        self.assertFalse(wants_json([]))
