"""The characters and lines that HTTP/1 allows, as compiled expressions.

Shared by heads, trailers and chunk lines.  Every repetition that could
overlap its neighbour is possessive, so matching is linear in the input
whatever a peer sends.
"""

from __future__ import annotations

import re

from scalingo_proxy.errors import ScalingoProxyError

__all__ = ["AS_BACKENDS_READ", "Fields", "FramingError", "TOKEN", "USUAL_NAMES", "parse_fields", "split_list"]

#: Fields in the order and case they came in.
Fields = list[tuple[bytes, bytes]]

#: ``tchar`` of RFC 9110 §5.6.2, as the inside of a character class.
TOKEN = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"

#: What a field section never holds: control characters (RFC 9110 §5.5; we refuse where
#: it permits, because NUL splits messages elsewhere).  HTAB is one that it may hold; CR is
#: looked at elsewhere, and of LF there is one for each field: all are counted at once, 0.6 µs less.
_CONTROLS_AND_LF = bytes({*range(32), 127} - set(b"\t\r"))

#: For ``name.translate``: a field name as CGI-style backends read it, in lower
#: case and with a dash for every character that no variable can hold.
#: ``X_Forwarded_For`` is ``X-Forwarded-For`` to them (RFC 3875 §4.1.18).
AS_BACKENDS_READ = bytes(
    ord(chr(code).lower()) if chr(code).isalnum() and code < 128 else ord("-") for code in range(256)
)

_FIELD = re.compile(rb"^([" + TOKEN + rb"]++):[ \t]*+([^\r]*+)\r\n", re.MULTILINE)

#: Names that need no second look, because they are in most messages.
USUAL_NAMES = frozenset(
    name
    for line in (
        b"Host User-Agent Accept Accept-Language Accept-Encoding Accept-Charset Cookie Referer Origin",
        b"Connection Upgrade-Insecure-Requests Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site",
        b"Sec-Fetch-User Priority DNT Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Cache-Control Pragma",
        b"TE If-None-Match If-Modified-Since Content-Type Content-Length Transfer-Encoding Authorization",
        b"X-Requested-With Range X-CSRF-Token Server Date ETag Last-Modified Vary Set-Cookie Location",
        b"Expires Age Via Accept-Ranges Keep-Alive Content-Encoding Content-Language",
        b"Content-Security-Policy Strict-Transport-Security Referrer-Policy X-Frame-Options",
        b"X-Content-Type-Options X-XSS-Protection X-Powered-By X-Runtime X-Request-ID Link",
    )
    for usual in line.split()
    for name in (usual, usual.lower())
)

#: What can never stand in a head, however it goes on: seen before the head
#: is complete, it is refused at once instead of at a deadline.
NEVER_IN_A_HEAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")


class FramingError(ScalingoProxyError):
    """Bytes that no message of RFC 9112 can hold; the text says which."""


def parse_fields(section: bytes) -> Fields:
    """Split a field section, each line ended by CRLF, into names and values.

    Values lose the blanks around them (RFC 9112 §5); obsolete folding, blanks
    before the colon, empty names, bare CR or LF and control characters are
    refused (RFC 9112 §5.1, §5.2).

    :raises FramingError: when any line is not a field line.
    """
    fields: Fields = _FIELD.findall(section)
    # As many lines as fields, the last one ended: then each line is one field, and no value
    # holds a line end.  An expression that looks at every character takes twice as long.
    if (section and not section.endswith(b"\r\n")) or len(section) - len(
        section.translate(None, _CONTROLS_AND_LF)
    ) != len(fields):
        raise FramingError("a header line is malformed")
    if 9 in section or section.rfind(b" \r\n") >= 0:  # HTAB; from behind it takes half the time
        fields = [(name, value.rstrip(b" \t")) for name, value in fields]
    return fields


def split_list(value: bytes) -> list[bytes]:
    """The members of a comma-separated value, lower case, empty ones left out."""
    return [member for part in value.lower().split(b",") if (member := part.strip(b" \t"))]
