"""Who may talk to the admin API: checks made before a request is looked at.

A browser on the operator's machine is the attacker to think of: any page may
send requests to 127.0.0.1, under its own name (DNS rebinding) or across sites.
Pure functions over header values; each raises a Refusal.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection, Sequence
from pathlib import Path

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from scalingo_proxy.services.admin_answers import Refusal

__all__ = ["check_host", "check_same_site", "check_token", "token_in"]

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def check_host(hosts: Sequence[str], local: IAddress, allowed: Collection[str]) -> None:
    """Refuse a name under which a loopback listener cannot honestly be reached.

    A rebinding attacker needs a name of its own in ``Host``, so addresses of
    this machine, ``localhost`` and below, and the *allowed* names pass.  Other
    listeners are guarded by the token, and unix sockets by the file system.

    :param hosts: every ``Host`` of the request.
    :param local: our end of the connection.
    """
    if len(hosts) != 1:
        raise Refusal(400, "bad-request", "send exactly one Host header")
    if not _is_loopback_address(local):
        return
    name = _without_port(hosts[0]).lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name in allowed or _is_loopback(name):
        return
    raise Refusal(
        403,
        "host-not-allowed",
        "this listener answers only to localhost, 127.0.0.1, [::1] and its configured host",
    )


def check_same_site(method: str, host: str, origin: str | None, fetch_site: str | None) -> None:
    """Refuse a change asked for by a page of another origin.

    :param origin: the ``Origin`` header; programs send none.
    :param fetch_site: the ``Sec-Fetch-Site`` header, which pages cannot forge.
    """
    if method in _SAFE_METHODS:
        return
    if fetch_site is not None and fetch_site not in ("same-origin", "none"):
        raise Refusal(403, "cross-site", "changes are not accepted from pages of another site")
    if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        raise Refusal(403, "cross-site", "changes are not accepted from pages of another site")


def check_token(authorization: Sequence[str], token: str) -> None:
    """Require ``Authorization: Bearer TOKEN``; compares in constant time.

    Both are latin-1 text, as header values are.
    """
    scheme, _, given = (authorization[0] if len(authorization) == 1 else "").partition(" ")
    right = hmac.compare_digest(given.strip().encode("latin-1"), token.encode("latin-1"))
    if scheme.lower() != "bearer" or not right:
        raise Refusal(
            401,
            "unauthorized",
            "send the token of token_file as Authorization: Bearer TOKEN",
            headers=[("WWW-Authenticate", 'Bearer realm="scalingo-proxy"')],
        )


def token_in(path: str) -> str:
    """The token that a file holds in its first line.

    :raises ValueError: with a sentence that does not tell the content.
    """
    try:
        lines = Path(path).read_text("ascii").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not ASCII text") from None
    token = lines[0].strip() if lines else ""
    if not token or " " in token or not token.isprintable():
        raise ValueError(f"{path} must hold a token in its first line, printable and without blanks")
    return token


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_loopback(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _is_loopback_address(address: IAddress) -> bool:
    if isinstance(address, (IPv4Address, IPv6Address)):
        host = address.host.removeprefix("::ffff:")
        return _is_loopback(host)
    return False
