"""Request heads of an HTTP/1 connection: read one after another, each the beginning of an exchange.

Bodies, responses and the end of the connection are the business of the classes it
derives from; backends are not known to any of them.
"""

from __future__ import annotations

from typing import Any

from scalingo_proxy.errors import BadRequest, ProxyError
from scalingo_proxy.model import Record
from scalingo_proxy.protocols.exchange import Exchange
from scalingo_proxy.protocols.http_ending import Doing
from scalingo_proxy.protocols.http_uploads import READ_AHEAD_BYTES, HTTPUploads
from scalingo_proxy.protocols.relay import RelayEnd
from scalingo_proxy.wire.error_answer import ErrorAnswer
from scalingo_proxy.wire.grammar import FramingError
from scalingo_proxy.wire.http1_body import NO_BODY
from scalingo_proxy.wire.http1_exchange import Event, Side
from scalingo_proxy.wire.http1_head import RequestHead, ResponseHead, head_end
from scalingo_proxy.wire.http1_request import check_unfinished_request_head, parse_request_head

__all__ = ["HTTPRequests"]

#: Pipelined requests that are answered with errors of ours before others have their turn.
_REQUESTS_AT_ONCE = 20

# Named once: an Enum's member costs 0.13 µs each time it is asked for (Python 3.11).
_EXCHANGE = Doing.EXCHANGE
_IDLE, _DONE = Side.IDLE, Side.DONE


class HTTPRequests(HTTPUploads):
    """The reading of request heads."""

    _searched = 0
    _advancing = False
    #: Whether an empty line was passed over that stood before the request to come.
    _skipped_line: bool

    def _broke(self) -> None:
        """A bug of ours surfaced: answer if that is possible, and close."""
        raise NotImplementedError

    def switch(self, head: ResponseHead) -> Any:
        """Send the 101 and give the transport that is the client's end of the tunnel."""
        raise NotImplementedError

    def join(self, end: RelayEnd) -> None:
        """Hand everything to *end* from now on, what was read ahead of the switch first."""
        raise NotImplementedError

    def exchange_over(self) -> None:
        """The exchange has ended and was accounted for."""
        raise NotImplementedError

    def _advance(self) -> None:
        """Begin requests while there are any to begin.

        A loop and not a recursion: hundreds of pipelined requests may be
        answered with an error each, at once.  None is begun while the client
        does not take the answers to those before it.
        """
        if self._advancing or self._is_put_off:
            return
        self._advancing = True
        left = _REQUESTS_AT_ONCE
        try:
            while self._ahead and (
                self._doing is Doing.HEAD or (self._doing is Doing.WAITING and not self._writing_paused)
            ):
                if not self._begin_request():
                    break
                left -= 1
                if left <= 0 and self._doing is Doing.WAITING and self._ahead:
                    self._put_off()
                    break
        finally:
            self._advancing = False

    def take_turn(self) -> None:
        """Go on with the requests, or the body, that one turn had no time for."""
        self._is_put_off = False
        try:
            if self._doing is Doing.EXCHANGE:
                if self._upload_open:
                    self.open_upload()
                return
            self._advance()
            if len(self._ahead) > READ_AHEAD_BYTES and self._doing is not Doing.HEAD:
                self._pause_reading()  # each answer has resumed it
            elif self._doing is Doing.WAITING or self._doing is Doing.HEAD:
                self._resume_reading()
        except Exception:
            self._broke()

    def _begin_request(self) -> bool:
        """Take one head from what was received; False: need more."""
        ahead, env, limits = self._ahead, self._env, self._env.limits
        if self._doing is Doing.WAITING:
            if not self._skip_empty_line():
                return False
            self._doing = Doing.HEAD
            self._wait(env.timeouts.request_head)
        try:
            end = head_end(ahead, self._searched)
            if end < 0:
                check_unfinished_request_head(ahead, self._searched, limits)
                self._searched = len(ahead)
                return False
        except FramingError as error:
            self._refuse(BadRequest(str(error)))
            return False
        except ProxyError as error:
            self._refuse(error)
            return False
        block = bytes(ahead[:end])
        del ahead[:end]
        self._searched = 0
        return self._begin_with(block)

    def _skip_empty_line(self) -> bool:
        """Pass over one empty line before a request (RFC 9112 §2.2); False: need more."""
        ahead = self._ahead
        if ahead[0] == 13 and not self._skipped_line:  # CR
            if len(ahead) < 2:
                return False
            if ahead[1] == 10:
                self._skipped_line = True
                del ahead[:2]
        return bool(ahead)

    def _begin_with(self, block: bytes) -> bool:
        """Begin the request that *block* is the head of; False: it was refused."""
        try:
            head = parse_request_head(block, self._env.limits)
        except ProxyError as error:
            self._refuse(error)
            return False
        self._begin(head)
        return True

    def _begin(self, head: RequestHead) -> None:
        """Begin the exchange that *head* asks for."""
        env, identity, factory, cycle = self._env, self._identity, self._factory, self._cycle
        assert identity is not None
        self._doing = _EXCHANGE
        self._head = head
        if self._skipped_line:
            self._skipped_line = False
        if not self.has_asked:
            env.clients.first_asked(self)
        if head.framing is NO_BODY and cycle.request is _IDLE:
            cycle.request = _DONE  # where WHOLE leads
        else:
            self._expect_body(head)
        # Named, so that CPython looks for no method of these names.
        seconds, wall_clock, new_id = env.seconds, env.wall_clock, env.request_ids
        record = Record(
            seconds(),
            wall_clock(),
            identity.client_address(head) if identity.trusted else identity.peer,
            factory.listener,
            head.method_text,
            head.host,
            head.target_text,
            "http/1.1" if head.version else "http/1.0",
            head.told_id or new_id(),
        )
        if factory.notes_agents:
            factory.note_fields(record, head)
        self._exchange = exchange = Exchange(env, self, head, identity, record)
        try:
            exchange.start()
        except Exception:
            exchange.broke()  # one request's bug ends that request and no other

    def _expect_body(self, head: RequestHead) -> None:
        """Whatever follows *head* is its body, if there is one."""
        if head.framing.has_body:
            self._cycle.on_request(Event.HEAD)
            self._body = head.framing.reader()
            self._body_bytes = 0
        else:
            self._cycle.on_request(Event.WHOLE)

    def _refuse(self, error: ProxyError) -> None:
        """Answer what could not be read as a request, and read no more."""
        record = self._unread_record()
        record.request_id = self._env.request_ids()
        self._cycle.keep_alive = False
        answer = ErrorAnswer(error, record.request_id, as_json=False)
        record.bytes_out = len(answer.body)
        self.transport.write(answer.http1(1, keep_alive=False, with_body=True))
        self._env.refused(record, error)
        if not self._lost:
            self._linger()
