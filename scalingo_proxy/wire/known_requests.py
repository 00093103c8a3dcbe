"""Heads of requests that came before: whole, by their section, or but for what changes each time.

A program that keeps its connection sends the same section again and again, often behind
the same line; a browser sends a few, with other values in a few fields.  Of the first kind
the whole outcome is known, of the second a form to fill in.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from scalingo_proxy.model import Limits
from scalingo_proxy.wire.head_forms import Form, Key, changing, leave_blank
from scalingo_proxy.wire.host import parse_authority
from scalingo_proxy.wire.http1_body import Framing, FramingKind
from scalingo_proxy.wire.http1_forwarding import acceptable_request_id, own_lines
from scalingo_proxy.wire.http1_head import MOST_KNOWN_FIELDS, RequestHead, join_lines, plain_length
from scalingo_proxy.wire.repeated import Repeated

__all__ = [
    "LONGEST_SECTION",
    "LONGEST_WHOLE",
    "find_request",
    "forget_unused_requests",
    "is_told_by_section",
    "learn_request",
    "learn_whole",
    "recent_request",
    "recent_section",
    "without_line",
]

_LENGTH = FramingKind.LENGTH

#: Longer heads are not kept whole, and not looked for.
LONGEST_WHOLE = 2048
_MOST_WHOLE = 1024
#: What came last is noted in one of so many places, a power of two, and recognised if it comes again.
_PLACES = 4096

#: Longer sections are not kept, and longer ones still not looked at.
LONGEST_SECTION = 2048
_LONGEST_FORM = 6144

#: What is another value in each request, or for each client, and yet decides nothing but the host
#: and the length.  Each that is there costs 0.3 µs: what has few values, such as Accept-Language,
#: stays on the form.
_CHANGING = changing(
    "Host User-Agent Accept Cookie Referer Origin If-None-Match If-Modified-Since Range Authorization "
    "Content-Length X-CSRF-Token Traceparent "
    # Of proxies in front of us.
    "X-Forwarded-For X-Real-IP X-Request-ID X-Request-Start "
    "X-Amzn-Trace-Id CF-Ray CF-Connecting-IP CF-IPCountry"
)

#: With these more is decided than the section tells.
_DECIDE_MORE = frozenset((b"expect", b"upgrade"))


def without_line(head: RequestHead) -> RequestHead:
    """What a header section means behind any request line that it may be told from: ``again`` adds one.

    Nothing that heads made of it share can be changed.
    """
    section = head.again(b"", b"")
    section.special = MappingProxyType(dict(head.special))
    section.lines = head.lines or join_lines(head.fields) + own_lines(head)
    return section


class KnownForm:
    """What a header section means, whatever is filled in; only host and length are looked at each time.

    :ivar is_exact: whether that is so: the form is exact, and each special value
        is either always the same or filled in.
    """

    __slots__ = ("_framing", "_keep_alive", "_length_at", "_special", "_special_at", "form", "is_exact")

    def __init__(self, head: RequestHead, key: Key) -> None:
        self.form = Form(b"", head.fields[:MOST_KNOWN_FIELDS], key, own_lines(head))
        self._keep_alive = head.keep_alive
        self._framing = head.framing
        names = [name.lower() for name in self.form.names]
        self._length_at = names.index(b"content-length") if b"content-length" in names else -1
        self._special_at = [(name, place) for place, name in enumerate(names) if name in head.special]
        self._special = {name: () if name in names else values for name, values in head.special.items()}
        # One blank for each value of such a name; two of them are too rare to be told apart here.
        self.is_exact = (
            is_told_by_section(head)
            and self.form.is_exact
            and all(names.count(name) == len(head.special[name]) == 1 for name, _ in self._special_at)
        )

    def head(self, method: bytes, target: bytes, values: Sequence[bytes]) -> RequestHead | None:
        """The head of a request with *values* in its section; None: that is for others to judge.

        :raises BadRequest: for its host.
        """
        if not self.is_exact:
            return None
        framing = self._framing
        if self._length_at >= 0:
            length = plain_length(values[self._length_at])
            if length is None:
                return None
            framing = Framing(_LENGTH, length)
        head = RequestHead(method, target, 1)
        head.fill_in(self.form, values)
        special = self._special.copy()
        for name, place in self._special_at:
            special[name] = (values[place],)
        head.special = special
        if b"x-request-id" in special:
            head.told_id = (acceptable_request_id(special[b"x-request-id"]) or b"").decode("ascii")
        head.host = parse_authority(special[b"host"][0])
        head.framing = framing
        head.keep_alive = self._keep_alive
        return head


#: Whole heads are forgotten all at once, since those that are of use are soon known again.  When
#: there is no room, nothing is done about it until then: who fills it gains nothing by that.
_wholes: dict[bytes, RequestHead] = {}
_came: list[int] = [0] * _PLACES

#: The head of what came whole some times in the last minute, and keeps to ``limits``.
recent_request = _wholes.get

_sections: Repeated[bytes, RequestHead] = Repeated(most=512)
_forms: Repeated[Key, KnownForm] = Repeated(most=256)

#: What is known of a section, if it came in the last minute.
recent_section = _sections.recent.get


def find_request(method: bytes, target: bytes, section: bytes) -> tuple[RequestHead | None, Key]:
    """The head of a request for a path in HTTP/1.1, if its *section* is not new but for what changes.

    :return: the head, and the key that :func:`learn_request` wants.
    :raises BadRequest: for its host.
    """
    if len(section) <= LONGEST_SECTION and (known := _sections.find_older(section)) is not None:
        return known.again(method, target), ()
    if len(section) > _LONGEST_FORM or _forms.is_hopeless():
        return None, ()
    key, values = leave_blank(_CHANGING, b"\n" + section)
    form = _forms.recent.get(key) or _forms.find_older(key)
    if form is None:
        return None, key
    head = form.head(method, target, values)
    if head is None:
        _forms.misses += 1
        return None, ()
    _forms.misses = 0
    if len(section) <= LONGEST_SECTION and _sections.is_second(section):
        _sections.keep(section, without_line(head))
    return head, ()


def is_told_by_section(head: RequestHead) -> bool:
    """Whether the section would mean the same behind the line of any other request for a path in HTTP/1.1.

    With an expectation or an upgrade, the method and the body have a say.
    """
    return _DECIDE_MORE.isdisjoint(head.special) and len(head.fields) <= MOST_KNOWN_FIELDS


def learn_request(section: bytes, key: Key, head: RequestHead) -> None:
    """Know the *section* of *head* when it comes again, if it would mean the same then."""
    if key and _forms.is_second(key):
        _forms.keep(key, KnownForm(head, key))  # one that is not exact, too: it need not be made again
    if len(section) <= LONGEST_SECTION and _sections.is_second(section) and is_told_by_section(head):
        _sections.keep(section, without_line(head))


def learn_whole(block: bytes, head: RequestHead, limits: Limits) -> None:
    """Know *head*, whose section is known, by all of *block*, if that came before, too.

    Nobody can change it any more.
    """
    if len(block) > LONGEST_WHOLE:
        return
    mark = hash(block)
    place = mark & (_PLACES - 1)
    if _came[place] != mark:
        _came[place] = mark
    elif len(_wholes) < _MOST_WHOLE:
        head.words = b"%b %b HTTP/1.1\r\n%b" % (head.method, head.target, head.lines)
        head.limits = limits
        _wholes[block] = head


def forget_unused_requests() -> None:
    """Forget what nobody has sent since the last time but one that this was said."""
    _wholes.clear()
    _came[:] = [0] * _PLACES
    _sections.turn()
    _forms.turn()
