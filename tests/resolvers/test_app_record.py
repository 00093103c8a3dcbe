"""Tests of scalingo_proxy.resolvers.app_record."""

from __future__ import annotations

import json
import string
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import ConfigurationError
from scalingo_proxy.model import App, AppState, Backend
from scalingo_proxy.resolvers.app_record import app_from_record, merge_patch, record_from_app


def mistakes(record: Any, name: str | None = None) -> dict[str, str]:
    """Every mistake in *record*: key path to message."""
    try:
        app_from_record(record, name=name)
    except ConfigurationError as error:
        return {mistake.path: mistake.message for mistake in error.mistakes}
    return {}


def hello(**more: Any) -> dict[str, Any]:
    return {"name": "hello", "domains": ["hello.example"], "backends": ["127.0.0.1:3000"], **more}


class ReadingTests(SynchronousTestCase):
    """What a record without mistakes becomes."""

    def test_smallest(self) -> None:
        """A name is all an app needs; everything else has its default."""
        self.assertEqual(app_from_record({"name": "hello"}), App("hello"))

    def test_name_from_outside(self) -> None:
        """The record may leave out a name that is known already."""
        self.assertEqual(app_from_record({}, name="hello").name, "hello")

    def test_name_agrees(self) -> None:
        """The record may repeat the name that is known already."""
        self.assertEqual(app_from_record({"name": "hello"}, name="hello").name, "hello")

    def test_domains_normalised(self) -> None:
        """Domains and the canonical one come out in the form they are looked up by."""
        app = app_from_record(hello(domains=["Café.Example.", "*.B.example"], canonical="CAFÉ.example"))
        self.assertEqual(app.domains, ("xn--caf-dma.example", "*.b.example"))
        self.assertEqual(app.canonical, "xn--caf-dma.example")

    def test_backends(self) -> None:
        """A backend is text, or a table when it has a weight; IPv6 is in brackets."""
        app = app_from_record(hello(backends=["[::1]:3001", {"address": "Web_1.Local:80", "weight": 3}]))
        self.assertEqual(app.backends, (Backend("::1", 3001), Backend("web_1.local", 80, 3)))

    def test_state(self) -> None:
        """The state is one of the four words."""
        self.assertIs(app_from_record(hello(state="paused")).state, AppState.PAUSED)

    def test_overrides(self) -> None:
        """Only what the app sets for itself is held; seconds become floats."""
        app = app_from_record(hello(timeouts={"connect": 2}, limits={"body_bytes": 10}))
        self.assertEqual(app.timeouts, {"connect": 2.0})
        self.assertIsInstance(app.timeouts["connect"], float)
        self.assertEqual(app.limits, {"body_bytes": 10})

    def test_access_normalised(self) -> None:
        """Networks come out in their usual form."""
        app = app_from_record(hello(access={"deny": ["2001:DB8::/32", "192.0.2.1"]}))
        self.assertEqual(app.access, {"deny": ("2001:db8::/32", "192.0.2.1/32")})

    def test_certificate(self) -> None:
        """A certificate is the name of a known one, or two files."""
        files = {"cert": "hello.pem", "key": "hello.key"}
        self.assertEqual(app_from_record(hello(certificate=files)).certificate, files)
        self.assertEqual(app_from_record(hello(certificate="star")).certificate, "star")


class MistakeTests(SynchronousTestCase):
    """Each mistake is told at its place, all of them at once."""

    def test_all_at_once(self) -> None:
        """Mistakes in different places are all reported."""
        found = mistakes(
            {
                "name": "no name",
                "domans": [],
                "backends": ["10.0.0.1", "10.0.0.1:80", {"address": "x:0", "weight": True}],
                "health": {"treshold": 3, "path": "up"},
            }
        )
        self.assertEqual(
            sorted(found),
            [
                "backends[0]",
                "backends[2].address",
                "backends[2].weight",
                "domans",
                "health.path",
                "health.treshold",
                "name",
            ],
        )

    def test_unknown_key(self) -> None:
        """An unknown key is told with the one that was probably meant."""
        self.assertEqual(
            mistakes(hello(timeouts={"conect": 2})),
            {"timeouts.conect": 'unknown key "conect"; did you mean "connect"?'},
        )

    def test_many_unknown_keys(self) -> None:
        """Twenty are told, and how many more there are; of a long one the beginning."""
        found = mistakes(hello(timeouts={f"unknown{number}": 1 for number in range(20_000)}))
        self.assertEqual(len(found), 21)
        self.assertEqual(found["timeouts"], "has 19980 further unknown keys")
        secret = "-----BEGIN PRIVATE KEY-----" + "k" * 900_000
        (told,) = mistakes(hello(**{secret: 1})).items()
        self.assertEqual(told, (secret[:57] + "...", f'unknown key "{secret[:57]}..."'))

    def test_long_lists_of_nonsense(self) -> None:
        """Twenty mistakes of a list are told, and how much of it was not looked at."""
        found = mistakes(hello(domains=["-"] * 50_000))
        self.assertEqual(len(found), 21)
        self.assertEqual(found["domains"], "has 49980 further domains, which were not looked at")
        found = mistakes(hello(domains=["-"] * 20))
        self.assertEqual(len(found), 20)

    def test_probe(self) -> None:
        """What a probe asks for and expects has to make sense."""
        for key, good, bad in (
            ("host", ("", "hello.test", "hello.test:8080", "[::1]:80"), ("a b", "a/b", "a\r\nX: y")),
            ("status", ("200-399", "200,204,301", "2xx"), ("", "ok", "399-200", 200)),
            ("kind", ("", "tcp", "http", "tls"), ("https", None)),
            ("slow_start", (0, 30, 0.5), (-1, "30")),
        ):
            for value in good:
                app = app_from_record(hello(health={key: value}))
                self.assertEqual(app.health[key], value, key)
            for value in bad:
                self.assertEqual(list(mistakes(hello(health={key: value}))), [f"health.{key}"], value)

    def test_unlike_any(self) -> None:
        """No suggestion is made when no key is close."""
        self.assertEqual(mistakes(hello(zzz=1)), {"zzz": 'unknown key "zzz"'})

    def test_not_a_table(self) -> None:
        """A record that is no table at all is one mistake without a path."""
        self.assertEqual(mistakes(["hello"]), {"": "must be a table, not a list"})

    def test_name_missing(self) -> None:
        """Without a name from anywhere, it is missing."""
        self.assertEqual(mistakes({}), {"name": "is missing"})

    def test_name_disagrees(self) -> None:
        """The record's own name must be the one it is known by."""
        self.assertEqual(mistakes({"name": "a"}, name="b"), {"name": '"a" does not agree with "b"'})

    def test_name_from_outside_checked(self) -> None:
        """A name from outside must be a name as well."""
        self.assertIn("is not a name", mistakes({}, name="_none")["name"])

    def test_no_port(self) -> None:
        """A backend without a port is told in the words of the documentation."""
        self.assertEqual(
            mistakes(hello(backends=["10.0.0.1"])),
            {"backends[0]": '"10.0.0.1" has no port (expected host:port)'},
        )

    def test_bad_backends(self) -> None:
        """What can be no address is refused, each with its reason."""
        for text, reason in (
            ("ftp://10.0.0.1:80", "neither host:port nor begins with http:// or https://"),
            ("HTTPS://10.0.0.1:80", "neither host:port nor begins with http:// or https://"),
            ("http://10.0.0.1", "has no port"),
            ("https://10.0.0.1:80/", "says more than where to connect"),
            ("https://me@10.0.0.1:80", "says more than where to connect"),
            ("https://", "has no host"),
            ("https://[::1", "has no port"),
            ("https://::1:443", "in brackets"),
            ("https://10.0.0.256", "no valid IPv4 address"),
            ("::1:80", "in brackets"),
            ("[::g]:80", "no valid IPv6 address"),
            ("10.0.0.256:80", "no valid IPv4 address"),
            ("10.1:80", "no valid IPv4 address"),
            ("a b:80", "no valid host name"),
            ("-a.example:80", "no valid host name"),
            ("a..b:80", "no valid host name"),
            (":80", "has no host"),
            ("a:65536", "no valid port"),
            ("a:0", "no valid port"),
        ):
            self.assertIn(reason, mistakes(hello(backends=[text]))["backends[0]"], text)

    def test_backend_twice(self) -> None:
        """The same address cannot be listed twice, however it is written."""
        found = mistakes(hello(backends=["[::1]:80", "a:80", {"address": "[0::1]:80", "weight": 2}]))
        self.assertEqual(found, {"backends[2]": '"[::1]:80" is listed twice'})

    def test_domain_twice(self) -> None:
        """The same domain cannot be listed twice, however it is written."""
        found = mistakes(hello(domains=["a.example", "A.Example."]))
        self.assertEqual(found, {"domains[1]": '"a.example" is listed twice'})

    def test_bad_domain(self) -> None:
        """A domain that is none is quoted as it was written."""
        self.assertIn('"a b.example"', mistakes(hello(domains=["a b.example"]))["domains[0]"])

    def test_not_a_list(self) -> None:
        """A lone text where a list belongs is refused."""
        self.assertEqual(
            mistakes(hello(domains="a.example")),
            {"domains": 'must be a list of domains in brackets, not "a.example"'},
        )

    def test_canonical_elsewhere(self) -> None:
        """The canonical domain must be one of the app's own, and no wildcard."""
        self.assertEqual(
            mistakes(hello(canonical="www.example")),
            {"canonical": '"www.example" is not one of the app\'s domains'},
        )
        self.assertIn(
            "wildcard", mistakes(hello(domains=["*.a.example"], canonical="*.a.example"))["canonical"]
        )

    def test_canonical_waits_for_domains(self) -> None:
        """When the domains are wrong themselves, that is the only mistake told."""
        self.assertEqual(list(mistakes(hello(domains=["a b"], canonical="a.example"))), ["domains[0]"])

    def test_flags_are_no_numbers(self) -> None:
        """True is neither 1 nor a text, and 1 is not true."""
        found = mistakes(
            hello(force_https=1, timeouts={"connect": True}, limits={"body_bytes": True}, tls=True)
        )
        self.assertEqual(sorted(found), ["force_https", "limits.body_bytes", "timeouts.connect", "tls"])

    def test_numbers_in_range(self) -> None:
        """Not-a-number, infinity, negative and excessive numbers are refused."""
        for value in (float("nan"), float("inf"), -1, 0, 1e10, "5", None, 10**400):
            self.assertEqual(list(mistakes(hello(timeouts={"idle": value}))), ["timeouts.idle"], value)

    def test_zero_where_it_means_something(self) -> None:
        """No waiting in the queue and no waiting for a drain can be asked for."""
        self.assertEqual(
            mistakes(hello(timeouts={"queue": 0, "drain": 0}, limits={"queue_per_backend": 0})), {}
        )

    def test_words(self) -> None:
        """A word that is not among the choices is told with all of them."""
        found = mistakes(hello(state="puased", balancer="round-robin", tls="end", send_proxy="v3"))
        self.assertEqual(sorted(found), ["balancer", "send_proxy", "state", "tls"])
        self.assertIn('did you mean "paused"?', found["state"])
        self.assertIn('did you mean "round_robin"?', found["balancer"])

    def test_networks(self) -> None:
        """A network must be one, written so that it means what it says."""
        found = mistakes(
            hello(access={"deny": ["10.0.0.1/8", "::ffff:10.0.0.0/104", "ten"], "allow": "10.0.0.1"})
        )
        self.assertIn('did you mean "10.0.0.0/8"?', found["access.deny[0]"])
        self.assertIn("write it as IPv4", found["access.deny[1]"])
        self.assertIn("is not a network", found["access.deny[2]"])
        self.assertIn("must be a list", found["access.allow"])

    def test_required_inside(self) -> None:
        """A nested table says what it needs."""
        found = mistakes(hello(rate_limit={"per": 1}, certificate={"cert": "a"}, backends=[{"weight": 2}]))
        self.assertEqual(sorted(found), ["backends[0].address", "certificate.key", "rate_limit.requests"])

    def test_quarantine_order(self) -> None:
        """The first quarantine cannot be longer than the longest."""
        self.assertEqual(
            mistakes(hello(quarantine={"first": 9, "max": 3})),
            {"quarantine.max": "must not be less than first"},
        )

    def test_long_values_are_shortened(self) -> None:
        """A sentence stays a sentence whatever was written."""
        self.assertLess(len(mistakes(hello(state="x" * 5000))["state"]), 250)


class WritingTests(SynchronousTestCase):
    """What an app is written as."""

    def test_only_what_differs(self) -> None:
        """Name, domains, backends and state are always told, defaults never."""
        self.assertEqual(
            record_from_app(App("hello")),
            {"name": "hello", "domains": [], "backends": [], "state": "running"},
        )

    def test_weights(self) -> None:
        """A backend of weight 1 is text, any other a table."""
        record = record_from_app(App("a", backends=(Backend("::1", 1), Backend("b", 2, 5))))
        self.assertEqual(record["backends"], ["[::1]:1", {"address": "b:2", "weight": 5}])

    def test_plain_and_own(self) -> None:
        """The record can be written as JSON, and changing it leaves the app alone."""
        app = app_from_record(hello(access={"deny": ["10.0.0.0/8"]}))
        record = record_from_app(app)
        record["access"]["deny"].append("0.0.0.0/0")
        self.assertEqual(json.loads(json.dumps(record)), record)
        self.assertEqual(app.access, {"deny": ("10.0.0.0/8",)})


class MergePatchTests(SynchronousTestCase):
    """JSON merge patch."""

    #: RFC 7396, appendix A: original, patch, result.
    EXAMPLES = (
        ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
        ('{"a":"b"}', '{"a":null}', "{}"),
        ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
        ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
        ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
        ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
        ('["a","b"]', '["c","d"]', '["c","d"]'),
        ('{"a":"b"}', '["c"]', '["c"]'),
        ('{"a":"foo"}', "null", "null"),
        ('{"a":"foo"}', '"bar"', '"bar"'),
        ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
        ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
        ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
    )

    def test_examples_of_the_rfc(self) -> None:
        """Every example of RFC 7396 gives its result, and the original stays."""
        for original, patch, result in self.EXAMPLES:
            record = json.loads(original)
            self.assertEqual(merge_patch(record, json.loads(patch)), json.loads(result), patch)
            self.assertEqual(record, json.loads(original))


# -- round trip -----------------------------------------------------------------

_labels = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8).map(lambda text: f"d{text}")
_domains = st.lists(_labels, min_size=1, max_size=4).map(".".join)
_wildcards = _domains.map(lambda domain: f"*.{domain}")
_hosts = st.ip_addresses().map(str) | _domains
_backends = st.builds(
    Backend,
    host=_hosts.filter(lambda host: "." in host or ":" in host or host[0] == "d"),
    port=st.integers(1, 65535),
    weight=st.integers(1, 100),
)
_seconds = st.floats(0.001, 1e6)
_networks = st.lists(st.sampled_from(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"]), max_size=3).map(tuple)


#: The name of a file; what is a URL is judged more strictly.
_page = st.text(max_size=5).filter(lambda name: "\0" not in name and "://" not in name)


def _some(**fields: Any) -> Any:
    return st.fixed_dictionaries({}, optional=fields)


_apps = st.builds(
    App,
    name=st.text(string.ascii_letters + string.digits + "-_.", min_size=1, max_size=20).map(
        lambda text: f"a{text}"
    ),
    domains=st.lists(_domains | _wildcards, unique=True, max_size=5),
    backends=st.lists(_backends, unique_by=lambda backend: backend.address, max_size=5),
    tls=st.sampled_from(["terminate", "passthrough"]),
    force_https=st.booleans(),
    balancer=st.sampled_from(["round_robin", "least_requests", "random_two"]),
    state=st.sampled_from(AppState),
    certificate=st.just("") | st.just("star") | st.just({"cert": "a.pem", "key": "a.key"}),
    send_proxy=st.sampled_from(["", "v1", "v2"]),
    error_pages=_some(stopped=_page, timeout=_page),
    rate_limit=st.just({})
    | st.fixed_dictionaries({"requests": st.integers(1, 9)}, optional={"per": _seconds}),
    access=_some(deny=_networks.filter(bool), allow=_networks.filter(bool)),
    health=_some(path=st.sampled_from(["", "/up"]), interval=_seconds, fall=st.integers(1, 9)),
    timeouts=_some(connect=_seconds, queue=_seconds, idle=_seconds),
    limits=_some(body_bytes=st.integers(1, 2**40), queue_per_backend=st.integers(0, 99)),
    quarantine=_some(first=st.floats(0.1, 1), max=st.floats(1, 30)),
)


class RoundTripTests(SynchronousTestCase):
    """Writing and reading again changes nothing."""

    @settings(deadline=None)
    @given(_apps)
    def test_any_app(self, app: App) -> None:
        """An app survives its record, also when that went through JSON."""
        if app.domains and not app.domains[0].startswith("*"):
            app = attrs.evolve(app, canonical=app.domains[0])
        self.assertEqual(app_from_record(json.loads(json.dumps(record_from_app(app)))), app)
