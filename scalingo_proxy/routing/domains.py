"""Domain names as apps claim them, brought into the one form that is looked up.

This is work for load time: a name that arrives with a request is compared as
it stands and never passes here.  DNS itself is unknown here; nothing resolves.
"""

from __future__ import annotations

import ipaddress
import re

import idna

__all__ = ["normalise_domain"]

# Underscores are no host name characters (RFC 1123 §2.1), yet clients ask for
# such names and apps have them; hyphens at an edge of a label stay refused.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NUMBER = r"(?![0-9]+\Z)"

#: What most names look like already, so that they cost one match.
_NORMAL = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)*{_NUMBER}{_LABEL}")
_ONE_LABEL = re.compile(_LABEL)

_LONGEST_NAME = 253
_LONGEST_LABEL = 63
# Four code points for each byte of the longest name: more cannot become one.
_LONGEST_TEXT = 4 * _LONGEST_NAME


def normalise_domain(text: str) -> str:
    """Bring a domain into its A-label form: lower case, no trailing dot.

    ``*.`` in front stands for exactly one label.  An IPv4 or IPv6 address is
    taken too, because clients may name a host by its address; IPv6 comes out
    compressed and in brackets, as it stands in ``Host``.

    Unicode is mapped by UTS 46 (non-transitional) and encoded by IDNA 2008; a
    name that IDNA 2008 refuses can be given in its ``xn--`` form.

    :raises ValueError: with a sentence that says what is wrong.
    """
    if len(text) <= _LONGEST_NAME and _NORMAL.fullmatch(text):
        return text
    name = _mapped(text).removesuffix(".")
    wildcard, name = ("*.", name[2:]) if name.startswith("*.") else ("", name)
    if not name:
        raise ValueError(f"{text!r} is not a domain: it is empty")
    if not wildcard and (address := _address(text, name)):
        return address
    normal = wildcard + ".".join(_label(text, label) for label in name.split("."))
    if len(normal) > _LONGEST_NAME:
        raise ValueError(f"{_short(text)} is too long: a domain has at most {_LONGEST_NAME} characters")
    if not _NORMAL.fullmatch(normal):
        raise ValueError(f"{text!r} is not a domain: its last label is a number, and it is no IPv4 address")
    return normal


def _mapped(text: str) -> str:
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"{_short(text)} is too long: a domain has at most {_LONGEST_NAME} characters")
    if text.isascii():
        return text.lower()
    try:
        return idna.uts46_remap(text, std3_rules=False, transitional=False)
    except (idna.IDNAError, ValueError) as error:
        raise ValueError(f"{text!r} is not a domain: {_reason(error)}") from None


def _address(text: str, name: str) -> str:
    """The address in its usual form, or nothing when *name* is none."""
    bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if ":" in bare:
        try:
            return f"[{ipaddress.IPv6Address(bare if '%' not in bare else '')}]"
        except ValueError:
            raise ValueError(
                f"{text!r} is not a domain: write the name alone, without scheme or port"
            ) from None
    try:
        return str(ipaddress.IPv4Address(name))
    except ValueError:
        return ""


def _label(text: str, label: str) -> str:
    if not label.isascii():
        try:
            label = idna.alabel(label).decode("ascii")
        except (idna.IDNAError, ValueError) as error:
            raise ValueError(f"{text!r} is not a domain: {_reason(error)}") from None
    if _ONE_LABEL.fullmatch(label):
        return label
    if not label:
        raise ValueError(f"{text!r} is not a domain: a label between two dots is empty")
    if "*" in label:
        raise ValueError(f"{text!r} is not a domain: '*' may only stand alone as the first label")
    if len(label) > _LONGEST_LABEL:
        raise ValueError(f"{_short(text)} is not a domain: a label has at most {_LONGEST_LABEL} characters")
    if label.startswith("-") or label.endswith("-"):
        raise ValueError(f"{text!r} is not a domain: a label may not begin or end with '-'")
    raise ValueError(f"{text!r} is not a domain: only letters, digits, '-', '_' and '.' may stand in it")


def _reason(error: Exception) -> str:
    return f"IDNA refuses it ({str(error).rstrip('.')})"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
