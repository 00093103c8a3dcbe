"""ENDPOINT as operators write it, turned into what Twisted listens on.

An ENDPOINT is a bare port (``8080``), an address and a port
(``127.0.0.1:8080``, ``[::1]:8080``) or a Twisted server endpoint string
(``tcp:``, ``tcp6:``, ``unix:``, ``systemd:``), which stays exactly what
Twisted makes of it.  This module opens no port and looks up no name; what it
asks the system is whether one socket may serve IPv4 and IPv6.

A bare port listens on every address of both families.  Twisted leaves
``IPV6_V6ONLY`` as the system sets it, so on Linux a socket on ``::`` takes
IPv4 connections too, and such a client is told as ``::ffff:192.0.2.1``:
whoever shows or compares addresses brings that back to IPv4.  Where the
system has no IPv6, or keeps the families apart (``net.ipv6.bindv6only = 1``),
a bare port is IPv4 alone, and a second listener on ``tcp6:PORT`` adds IPv6.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Mapping

import attrs

from scalingo_proxy.resolvers.strict_tables import did_you_mean, shown

__all__ = ["ListenEndpoint", "parse_endpoint", "serves_both_families"]

#: Connections that may wait to be accepted, for the forms that are ours.
#: Twisted's own 50 overflows when clients come back together; the system
#: caps it (``net.core.somaxconn``).
BACKLOG = 1024

_EXPECTED = (
    'a port, HOST:PORT, or a Twisted endpoint such as "tcp:8080", "tcp6:8080" or "unix:/run/proxy.sock"'
)

#: The arguments of each kind of endpoint, in Twisted's positional order.
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "tcp": ("port", "interface", "backlog"),
    "tcp6": ("port", "backlog", "interface"),
    "unix": ("address", "mode", "backlog", "lockfile"),
    "systemd": ("domain", "index", "name"),
}

_REFUSED = {
    "ssl": 'TLS is no part of an endpoint; write tcp: with protocol = "tls", and certificate in [[app]]',
    "tls": 'TLS is no part of an endpoint; write tcp: with protocol = "tls", and certificate in [[app]]',
    "haproxy": "the PROXY header is no part of an endpoint; set proxy_protocol = true beside it",
}

# What fits the smallest sun_path among the systems Twisted runs on, without the final NUL.
_LONGEST_UNIX_PATH = 103


@attrs.frozen
class ListenEndpoint:
    """Where to listen: the description for Twisted, and what is known of it.

    :ivar text: as the operator wrote it.
    :ivar description: for :func:`twisted.internet.endpoints.serverFromString`.
    :ivar kind: ``"tcp"`` (IPv4 and IPv6 alike), ``"unix"`` or ``"systemd"``.
    :ivar interface: the address to listen on; ``""`` is every IPv4 address,
        ``"::"`` every IPv6 address and, if ``both_families``, every IPv4 one.
    :ivar port: the TCP port; 0 lets the system choose one.
    :ivar backlog: connections that may wait to be accepted.
    :ivar path: the socket's path when the kind is ``unix``.
    :ivar mode: its permissions.
    :ivar domain: what systemd hands down: ``INET``, ``INET6`` or ``UNIX``.
    :ivar both_families: a socket on ``::`` takes IPv4 connections as well.
    """

    text: str
    description: str
    kind: str = "tcp"
    interface: str = ""
    port: int = 0
    backlog: int = 50
    path: str = ""
    mode: int = 0o666
    domain: str = ""
    both_families: bool = False

    @property
    def is_local(self) -> bool:
        """Only this machine can reach it: a loopback address or a unix socket."""
        if self.kind == "systemd":
            return self.domain == "UNIX"
        return self.kind == "unix" or _is_loopback(self.interface)

    def clashes_with(self, other: ListenEndpoint) -> bool:
        """Both cannot listen at the same time."""
        if self.kind != other.kind:
            return False
        if self.kind != "tcp":
            return (self.path or self.description) == (other.path or other.description)
        return bool(self.port) and self.port == other.port and _overlap(self, other)


def parse_endpoint(text: str, *, both_families: Callable[[], bool] | None = None) -> ListenEndpoint:
    """Read an ENDPOINT.

    :param both_families: says whether a socket on ``::`` serves IPv4 too;
        asks the system when left out.
    :raises ValueError: with one sentence that says what to write instead.
    """
    ask = both_families or serves_both_families
    written = text.strip()
    if not written:
        raise ValueError(f"an endpoint is missing (expected {_EXPECTED})")
    if written.isdigit():
        return _bare_port(written, ask())
    kind = written.partition(":")[0]
    if kind in _REFUSED:
        raise ValueError(f"{shown(written)}: {_REFUSED[kind]}")
    if kind in _ARGUMENTS:
        found = _PARSERS[kind](written, _arguments(written, kind))
        return attrs.evolve(found, both_families=found.interface == "::" and ask())
    return _address_and_port(written, ask)


def serves_both_families() -> bool:
    """Ask the system whether a socket on ``::`` takes IPv4 connections as well."""
    if not socket.has_ipv6:
        return False
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            if probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
                return False
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


# -- the short forms -------------------------------------------------------------


def _bare_port(written: str, both: bool) -> ListenEndpoint:
    port = _port(written, written)
    interface = "::" if both else ""
    return _tcp_endpoint(written, interface, port, both)


def _address_and_port(written: str, ask: Callable[[], bool]) -> ListenEndpoint:
    if "://" in written:
        raise ValueError(f"{shown(written)} is a URL (expected {_EXPECTED})")
    host, colon, digits = written.rpartition(":")
    if not colon or not re.fullmatch("[0-9]+", digits) or "=" in host:
        hint = did_you_mean(written.partition(":")[0], _ARGUMENTS) if colon else ""
        raise ValueError(f"{shown(written)} is no endpoint (expected {_EXPECTED}){hint}")
    if not host or host == "*":
        raise ValueError(f"{shown(written)} has no address; write {shown(digits)} to listen on every address")
    bracketed = host.startswith("[") and host.endswith("]")
    interface = _interface(written, host[1:-1] if bracketed else host)
    if (":" in interface) != bracketed:
        raise ValueError(f"{shown(written)}: an IPv6 address, and only that, stands in brackets ([::1]:8080)")
    return _tcp_endpoint(written, interface, _port(written, digits), interface == "::" and ask())


def _tcp_endpoint(written: str, interface: str, port: int, both: bool) -> ListenEndpoint:
    kind = "tcp6" if ":" in interface else "tcp"
    description = f"{kind}:{port}"
    if interface:
        description += ":interface=" + interface.replace(":", r"\:")
    return ListenEndpoint(
        text=written,
        description=f"{description}:backlog={BACKLOG}",
        interface=interface,
        port=port,
        backlog=BACKLOG,
        both_families=both,
    )


# -- Twisted's strings -------------------------------------------------------------


def _arguments(written: str, kind: str) -> dict[str, str]:
    """The arguments of an endpoint string by name, checked against Twisted's signature."""
    names = _ARGUMENTS[kind]
    given: dict[str, str] = {}
    positions = iter(names)
    for name, value in _tokens(written)[1:]:
        key = name if name is not None else next(positions, None)
        if key is None or (name is None and key in given) or (name is None and value == "" and given):
            hint = r"; colons inside an argument are written \:" if "::" in written else ""
            raise ValueError(f"{shown(written)} has too many arguments for {kind}:{hint}")
        if key not in names:
            raise ValueError(f"{shown(written)}: {kind}: has no {shown(key)}{did_you_mean(key, names)}")
        if key in given:
            raise ValueError(f"{shown(written)} names {key} twice")
        given[key] = value
    return given


def _tokens(written: str) -> list[tuple[str | None, str]]:
    r"""Split at colons, names off at the first ``=``; ``\`` takes the next character as it is."""
    tokens: list[tuple[str | None, str]] = []
    name: str | None = None
    current = ""
    characters = iter(written)
    for character in characters:
        if character == "\\":
            current += next(characters, "")
        elif character == ":":
            tokens.append((name, current))
            name, current = None, ""
        elif character == "=" and name is None:
            name, current = current, ""
        else:
            current += character
    return [*tokens, (name, current)]


def _tcp(written: str, given: Mapping[str, str]) -> ListenEndpoint:
    if "port" not in given:
        raise ValueError(f"{shown(written)} has no port")
    interface = given.get("interface", "")
    return ListenEndpoint(
        text=written,
        description=written,
        interface=_interface(written, interface) if interface else "",
        port=_port(written, given["port"]),
        backlog=_backlog(written, given),
    )


def _tcp6(written: str, given: Mapping[str, str]) -> ListenEndpoint:
    endpoint = _tcp(written, {"interface": "::", **given})
    if ":" not in endpoint.interface:
        raise ValueError(f"{shown(written)}: the interface of tcp6: is an IPv6 address")
    return endpoint


def _unix(written: str, given: Mapping[str, str]) -> ListenEndpoint:
    path = given.get("address", "")
    if not path:
        raise ValueError(f"{shown(written)} has no path")
    if len(path.encode()) > _LONGEST_UNIX_PATH:
        raise ValueError(
            f"{shown(written)}: the path of a unix socket has at most {_LONGEST_UNIX_PATH} bytes"
        )
    mode = given.get("mode", "666")
    if not re.fullmatch("[0-7]{1,4}", mode):
        raise ValueError(f"{shown(written)}: mode is written in octal, such as 660")
    if given.get("lockfile", "1") not in ("0", "1"):
        raise ValueError(f"{shown(written)}: lockfile is 0 or 1")
    return ListenEndpoint(
        text=written,
        description=written,
        kind="unix",
        path=path,
        mode=int(mode, 8),
        backlog=_backlog(written, given),
    )


def _systemd(written: str, given: Mapping[str, str]) -> ListenEndpoint:
    """Whether systemd hands the socket down is seen when it is opened, not here."""
    domain = given.get("domain", "")
    if domain not in ("INET", "INET6", "UNIX"):
        raise ValueError(f"{shown(written)}: domain must be INET, INET6 or UNIX")
    if ("index" in given) == ("name" in given):
        raise ValueError(f"{shown(written)} must name the socket by either name= or index=")
    if "index" in given and not re.fullmatch("[0-9]{1,4}", given["index"]):
        raise ValueError(f"{shown(written)}: index is a whole number")
    return ListenEndpoint(text=written, description=written, kind="systemd", domain=domain)


_PARSERS: Mapping[str, Callable[[str, Mapping[str, str]], ListenEndpoint]] = {
    "tcp": _tcp,
    "tcp6": _tcp6,
    "unix": _unix,
    "systemd": _systemd,
}


# -- parts --------------------------------------------------------------------------


def _port(written: str, digits: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", digits) or int(digits) > 65535:
        raise ValueError(f"{shown(written)} has no valid port (1 to 65535, or 0 for a free one)")
    return int(digits)


def _backlog(written: str, given: Mapping[str, str]) -> int:
    digits = given.get("backlog", "50")
    if not re.fullmatch("[0-9]{1,6}", digits) or int(digits) == 0:
        raise ValueError(f"{shown(written)}: backlog is a whole number greater than 0")
    return int(digits)


def _interface(written: str, host: str) -> str:
    """An address in its usual form.

    A name would mean what a resolver says at that moment, so none is taken
    but ``localhost``, which is 127.0.0.1.
    """
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise ValueError(
            f"{shown(written)}: {shown(host)} is no IP address, and a listener takes no other names"
        ) from None


def _is_loopback(interface: str) -> bool:
    if not interface:
        return False
    address = ipaddress.ip_address(interface)
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _overlap(one: ListenEndpoint, other: ListenEndpoint) -> bool:
    """Whether there is an address that both would listen on, their ports being equal."""
    families = _families(one) & _families(other)
    if not families:
        return False
    return one.interface == other.interface or _is_every(one.interface) or _is_every(other.interface)


def _families(endpoint: ListenEndpoint) -> frozenset[int]:
    if endpoint.both_families:
        return frozenset((4, 6))
    return frozenset((6,)) if ":" in endpoint.interface else frozenset((4,))


def _is_every(interface: str) -> bool:
    return interface in ("", "0.0.0.0", "::")
