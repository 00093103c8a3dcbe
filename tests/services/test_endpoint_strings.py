"""Tests of scalingo_proxy.services.endpoint_strings."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services.endpoint_strings import (
    BACKLOG,
    ListenEndpoint,
    parse_endpoint,
    serves_both_families,
)


def parse(text: str, both: bool = True) -> ListenEndpoint:
    return parse_endpoint(text, both_families=lambda: both)


def refusal(text: str) -> str:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"{text!r} was accepted")


def listened(endpoint: ListenEndpoint) -> tuple[int, int, str]:
    """Port, backlog and interface that Twisted makes of the description."""
    reactor = MemoryReactorClock()
    serverFromString(reactor, endpoint.description).listen(Factory())
    ((port, _factory, backlog, interface),) = reactor.tcpServers
    return port, backlog, interface


class ShortFormTests(SynchronousTestCase):
    """The forms that are ours."""

    def test_bare_port(self) -> None:
        """A bare port listens on every address of both families."""
        endpoint = parse("8080")
        self.assertEqual(listened(endpoint), (8080, BACKLOG, "::"))
        self.assertTrue(endpoint.both_families)

    def test_bare_port_without_ipv6(self) -> None:
        """Where one socket cannot serve both, a bare port is IPv4."""
        endpoint = parse("8080", both=False)
        self.assertEqual(listened(endpoint), (8080, BACKLOG, ""))
        self.assertFalse(endpoint.both_families)

    def test_addresses(self) -> None:
        """An address and a port listen there alone, IPv6 in brackets."""
        for text, interface in (
            ("127.0.0.1:8080", "127.0.0.1"),
            ("0.0.0.0:8080", "0.0.0.0"),
            ("localhost:8080", "127.0.0.1"),
            ("[::1]:8080", "::1"),
            ("[0:0::1]:8080", "::1"),
            ("[::]:8080", "::"),
            ("[fe80::1%lo]:8080", "fe80::1%lo"),
        ):
            endpoint = parse(text)
            self.assertEqual(listened(endpoint), (8080, BACKLOG, interface), text)
            self.assertEqual((endpoint.port, endpoint.interface, endpoint.text), (8080, interface, text))

    def test_free_port(self) -> None:
        """Port 0 asks the system for a free one."""
        self.assertEqual(parse("0").port, 0)
        self.assertEqual(parse("127.0.0.1:0").port, 0)

    def test_blanks_around(self) -> None:
        """Blanks around an endpoint mean nothing."""
        self.assertEqual(parse(" 8080\n").description, parse("8080").description)


class TwistedStringTests(SynchronousTestCase):
    """Strings that stay what Twisted makes of them."""

    def test_description_untouched(self) -> None:
        """The description is the text, to the letter."""
        for text in (
            "tcp:8080",
            "tcp:port=8080:interface=127.0.0.1:backlog=10",
            r"tcp6:8080:interface=\:\:1",
            "unix:/run/x.sock:mode=660",
            "systemd:domain=INET6:name=http",
            "systemd:INET:index=0",
        ):
            self.assertEqual(parse(text).description, text)

    def test_facts_agree_with_twisted(self) -> None:
        """Port, backlog and interface are those Twisted will use, named or in order."""
        for text in (
            "tcp:8080",
            "tcp:8080:127.0.0.1:7",
            r"tcp:8080:interface=\:\:1",
            "tcp:interface=10.0.0.1:port=81",
            "tcp6:8080",
            "tcp6:8080:9",
            r"tcp6:port=8080:interface=\:\:1:backlog=3",
        ):
            endpoint = parse(text)
            self.assertEqual(listened(endpoint), (endpoint.port, endpoint.backlog, endpoint.interface), text)

    def test_unix(self) -> None:
        """A unix socket has a path, which may have an escaped colon, and a mode."""
        endpoint = parse(r"unix:/run/a\:b.sock:mode=660:lockfile=0")
        self.assertEqual((endpoint.kind, endpoint.path, endpoint.mode), ("unix", "/run/a:b.sock", 0o660))
        self.assertEqual(parse("unix:address=/run/x").mode, 0o666)

    def test_both_families(self) -> None:
        """tcp6: on every address serves IPv4 as well if the system lets it; tcp: never serves IPv6."""
        self.assertTrue(parse("tcp6:8080").both_families)
        self.assertFalse(parse("tcp6:8080", both=False).both_families)
        self.assertFalse(parse("tcp:8080").both_families)
        self.assertFalse(parse("[::1]:8080").both_families)


class RefusalTests(SynchronousTestCase):
    """Text that is no endpoint gets one sentence."""

    def test_tls(self) -> None:
        """TLS endpoints are refused with the settings to use."""
        for text in ("ssl:443:privateKey=k.pem", "tls:certs:tcp\\:443", "ssl:443"):
            self.assertIn('protocol = "tls"', refusal(text))
            self.assertIn("certificate in [[app]]", refusal(text))

    def test_haproxy(self) -> None:
        """The PROXY wrapper is refused with the setting to use."""
        self.assertIn("proxy_protocol = true", refusal("haproxy:tcp:8080"))

    def test_nothing(self) -> None:
        """An empty text says what could stand there."""
        self.assertIn("an endpoint is missing (expected a port", refusal("  "))

    def test_reasons(self) -> None:
        """Each kind of mistake is told as what it is."""
        for text, reason in (
            ("65536", "no valid port"),
            ("-1", "is no endpoint"),
            ("80a", "is no endpoint"),
            ("²", "no valid port"),
            ("127.0.0.1", "is no endpoint"),
            ("127.0.0.1:", "is no endpoint"),
            ("127.0.0.1:99999", "no valid port"),
            ("127.0.0.256:80", "is no IP address"),
            ("example.com:80", "is no IP address"),
            ("http://127.0.0.1:80", "is a URL"),
            (":80", 'write "80"'),
            ("*:80", 'write "80"'),
            ("::1:80", "in brackets"),
            ("[::1:80", "is no IP address"),
            ("[127.0.0.1]:80", "in brackets"),
            ("tpc:80:interface=127.0.0.1", 'did you mean "tcp"?'),
            ("tcp:", "no valid port"),
            ("tcp", "no port"),
            ("tcp:http", "no valid port"),
            ("tcp:80:interfaec=127.0.0.1", 'did you mean "interface"?'),
            ("tcp:80:reusePort=1", 'has no "reusePort"'),
            ("tcp:80:port=81", "names port twice"),
            ("tcp:80:interface=::1", r"written \:"),
            ("tcp:80:backlog=0", "backlog"),
            ("tcp:80:a:1", "no IP address"),
            ("tcp:80:127.0.0.1:1:b", "too many arguments"),
            ("tcp6:80:interface=127.0.0.1", "is an IPv6 address"),
            ("unix:", "no path"),
            ("unix:/run/x:mode=888", "octal"),
            ("unix:/run/x:lockfile=2", "0 or 1"),
            ("unix:/" + "x" * 200, "at most"),
            ("systemd:domain=IPX:name=a", "INET, INET6 or UNIX"),
            ("systemd:domain=INET", "either name= or index="),
            ("systemd:domain=INET:index=x", "whole number"),
        ):
            self.assertIn(reason, refusal(text), text)

    @settings(deadline=None)
    @given(st.text("0123456789:[]=\\tcp6unixsydm.*/ ²\0", max_size=24) | st.text(max_size=24))
    def test_any_text(self, text: str) -> None:
        """Whatever is written, there is an endpoint that Twisted can parse, or one sentence."""
        try:
            endpoint = parse(text)
        except ValueError as error:
            self.assertNotIn("\n", str(error))
        else:
            if endpoint.kind != "systemd":  # that one looks for inherited sockets at once
                serverFromString(MemoryReactorClock(), endpoint.description)


class LocalTests(SynchronousTestCase):
    """What only this machine can reach."""

    def test_local(self) -> None:
        """Loopback addresses of both families and unix sockets are local."""
        for text in ("127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "localhost:1", "unix:/x", "tcp:1:127.0.0.1"):
            self.assertTrue(parse(text).is_local, text)
        for text in ("systemd:domain=UNIX:name=a", "systemd:UNIX:name=a", "[::ffff:127.0.0.1]:1"):
            self.assertTrue(parse(text).is_local, text)

    def test_reachable(self) -> None:
        """Everything else can be reached from elsewhere, or nobody knows."""
        for text in ("8080", "tcp:1", "tcp6:1", "0.0.0.0:1", "[::]:1", "10.0.0.1:1"):
            self.assertFalse(parse(text).is_local, text)
        for text in ("systemd:domain=INET:name=UNIX", "systemd:INET:name=domain=UNIX"):
            self.assertFalse(parse(text).is_local, text)


class ClashTests(SynchronousTestCase):
    """Which endpoints cannot both be opened."""

    def clashing(self, one: str, other: str, both: bool = True) -> bool:
        result = parse(one, both).clashes_with(parse(other, both))
        self.assertEqual(parse(other, both).clashes_with(parse(one, both)), result)
        return result

    def test_same(self) -> None:
        """The same place in two ways of writing is one place."""
        for one, other in (
            ("8080", "8080"),
            ("tcp:8080", "0.0.0.0:8080"),
            ("tcp:8080", "127.0.0.1:8080"),
            ("8080", "tcp:8080"),
            ("8080", "[::1]:8080"),
            ("tcp6:8080", "tcp:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("unix:/run/x", "unix:/run/x:mode=600"),
            ("systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
        ):
            self.assertTrue(self.clashing(one, other), (one, other))

    def test_different(self) -> None:
        """Different ports, addresses, families or kinds do not meet."""
        for one, other in (
            ("8080", "8081"),
            ("0", "0"),
            ("127.0.0.1:8080", "[::1]:8080"),
            ("127.0.0.1:8080", "127.0.0.2:8080"),
            ("tcp:8080", "[::1]:8080"),
            ("unix:/run/x", "unix:/run/y"),
            ("unix:/run/x", "8080"),
        ):
            self.assertFalse(self.clashing(one, other), (one, other))

    def test_families_apart(self) -> None:
        """Where the system keeps the families apart, each has the port for itself."""
        self.assertFalse(self.clashing("tcp:8080", "tcp6:8080", both=False))


class SystemTests(SynchronousTestCase):
    """The question to the system."""

    def test_answers(self) -> None:
        """It is answered with yes or no on any machine."""
        self.assertIn(serves_both_families(), (True, False))
