"""Tests of scalingo_proxy.config and the tables and environment it reads."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping

import attrs
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.config import load, parse
from scalingo_proxy.config_tables import DOCUMENT
from scalingo_proxy.errors import ConfigurationError
from scalingo_proxy.model import App, Backend, Health, Limits, Quarantine, Timeouts
from scalingo_proxy.resolvers.strict_tables import TableListReader, TableReader
from scalingo_proxy.settings import LogSettings, MetricsSettings, ProxySettings, Settings

LISTEN = '[[listen]]\nendpoint = "tcp:8080"\n'
HELLO = '[[app]]\nname = "hello"\ndomains = ["hello.example"]\nbackends = ["127.0.0.1:3000"]\n'


def sentences(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """What is said about the mistakes in a file ``proxy.toml``."""
    try:
        parse(text, "proxy.toml", environ)
    except ConfigurationError as error:
        return [str(mistake) for mistake in error.mistakes]
    return []


class ReadingTests(SynchronousTestCase):
    """What a file without mistakes becomes."""

    def test_empty(self) -> None:
        """An empty file is the defaults, which are those of an embedding program."""
        settings = parse("")
        self.assertEqual(settings, Settings())
        self.assertEqual(
            (settings.timeouts, settings.limits, settings.health, settings.quarantine),
            (Timeouts(), Limits(), Health(), Quarantine()),
        )
        self.assertEqual(settings.admin.endpoint.text, "127.0.0.1:8081")
        self.assertEqual(settings.warnings, ())

    def test_everything(self) -> None:
        """Every table reaches its settings."""
        settings = parse(
            """
            [proxy]
            name = "edge-7"
            state = ""
            [[listen]]
            endpoint = "[::1]:8080"
            trusted_proxies = ["10.0.0.0/8", "2001:DB8::1"]
            public_port = 80
            [[listen]]
            endpoint = "unix:/run/x.sock"
            [admin]
            endpoint = "127.0.0.1:9000"
            [timeouts]
            connect = 2
            [limits]
            body_bytes = 1000
            [log]
            requests = "json"
            query = false
            [metrics]
            max_apps = 5
            [[app]]
            name = "hello"
            domains = ["Hello.Example"]
            backends = ["[::1]:3000"]
            timeouts = { connect = 1 }
            """,
            "proxy.toml",
        )
        self.assertEqual(settings.proxy, ProxySettings(name="edge-7", state=""))
        first, second = settings.listens
        self.assertEqual(first.trusted_proxies, ("10.0.0.0/8", "2001:db8::1/128"))
        self.assertEqual((first.protocol, first.public_port, first.endpoint.port), ("http", 80, 8080))
        self.assertEqual(second.endpoint.path, "/run/x.sock")
        self.assertEqual(settings.admin.endpoint.port, 9000)
        self.assertEqual(settings.timeouts, Timeouts(connect=2.0))
        self.assertEqual(settings.limits, Limits(body_bytes=1000))
        self.assertEqual(settings.log, LogSettings("json", "-", False))
        self.assertEqual(settings.metrics, MetricsSettings(5))
        hello = App("hello", ("hello.example",), (Backend("::1", 3000),), timeouts={"connect": 1.0})
        self.assertEqual(settings.apps, (hello,))
        self.assertEqual(settings.filename, "proxy.toml")

    def test_twisted_endpoint(self) -> None:
        """An endpoint string of Twisted stays exactly that."""
        self.assertEqual(parse(LISTEN).listens[0].endpoint.description, "tcp:8080")


class MistakeTests(SynchronousTestCase):
    """Each mistake is one sentence with file, line and key path."""

    def test_unknown_key(self) -> None:
        """The shape of the sentence is part of the contract."""
        self.assertEqual(
            sentences("\n[timeouts]\nconect = 3\n"),
            ['proxy.toml:3: [timeouts] unknown key "conect"; did you mean "connect"?'],
        )

    def test_unknown_table(self) -> None:
        """A table that nobody knows is told with the one that was probably meant."""
        self.assertEqual(
            sentences("[timeout]\nconnect = 3\n"),
            ['proxy.toml:1: unknown key "timeout"; did you mean "timeouts"?'],
        )

    def test_in_a_list(self) -> None:
        """A mistake inside a list has the line of the item."""
        text = '[[app]]\nname = "a"\n[[app]]\nname = "b"\nbackends = [\n"10.0.0.1:80",\n"10.0.0.1",\n]\n'
        self.assertEqual(
            sentences(text),
            ['proxy.toml:7: [[app]] #2 backends: "10.0.0.1" has no port (expected host:port)'],
        )

    def test_in_an_inline_table(self) -> None:
        """A mistake in a table inside an app names both."""
        text = '[[app]]\nname = "a"\nbackends = [\n{address = "a:1", weight = 0}]\nlimits = { body = 1 }\n'
        self.assertEqual(
            sentences(text),
            [
                "proxy.toml:4: [[app]] #1 backends #1 weight: must be a whole number from 1 to 100, not 0",
                'proxy.toml:5: [[app]] #1 limits: unknown key "body"; did you mean "body_bytes"?',
            ],
        )

    def test_all_at_once_in_order(self) -> None:
        """Mistakes of every kind come together, in the order of their lines."""
        text = (
            '[[listen]]\nendpoint = "ssl:443"\n'
            '[[app]]\ndomains = ["a b"]\n'
            "[limits]\nbody_bytes = true\n"
            '[[listen]]\nprotocol = "htpp"\n'
        )
        found = sentences(text)
        self.assertEqual([sentence.split(":")[1] for sentence in found], ["2", "3", "4", "6", "7", "8"])
        self.assertIn("[[app]] #1 name: is missing", found[1])
        self.assertIn("[[listen]] #2 endpoint: is missing", found[4])
        self.assertIn('did you mean "http"?', found[5])

    def test_path_for_programs(self) -> None:
        """A mistake also has its key path, line and file as values."""
        with self.assertRaises(ConfigurationError) as caught:
            parse(HELLO + 'health = { pth = "/" }\n', "proxy.toml")
        (mistake,) = caught.exception.mistakes
        self.assertEqual((mistake.path, mistake.line), ("app[0].health.pth", 5))

    def test_single_brackets(self) -> None:
        """[app] where [[app]] belongs is told as that, and so is a table that is none."""
        self.assertEqual(
            sentences("health = 3\n[app]\n"),
            [
                "proxy.toml:1: [health]: must be a table, not 3",
                "proxy.toml:2: [app]: must be written [[app]], in double brackets",
            ],
        )

    def test_endpoint_as_number(self) -> None:
        """A port without quotes is told with its quotes."""
        self.assertEqual(
            sentences("[[listen]]\nendpoint = 8080\n"),
            ['proxy.toml:2: [[listen]] #1 endpoint: must be text in quotes: "8080"'],
        )

    def test_numbers(self) -> None:
        """Booleans, not-a-number, infinity and negative numbers are no numbers here."""
        for value in ("true", "nan", "inf", "-1", "-0.5", "0", '"5"', "1e300", "2020-01-01"):
            (sentence,) = sentences(f"[timeouts]\nconnect = {value}\n")
            self.assertIn("[timeouts] connect: must be a number, greater than 0", sentence)
        for value in ("true", "1.5", "-1", "0", "70000000000000000000"):
            (sentence,) = sentences(f"[limits]\nbody_bytes = {value}\n")
            self.assertIn("[limits] body_bytes: must be a whole number", sentence)

    def test_words(self) -> None:
        """What appears in log lines must be a word."""
        (sentence,) = sentences('[proxy]\nname = "a b"\n')
        self.assertIn("[proxy] name: must be 1 to 64 letters", sentence)

    def test_networks(self) -> None:
        """Trusted proxies must be networks."""
        (sentence,) = sentences(LISTEN + 'trusted_proxies = ["10.0.0.1/8"]\n')
        self.assertIn('did you mean "10.0.0.0/8"?', sentence)


class RelationTests(SynchronousTestCase):
    """What is wrong between values that are right each for itself."""

    def test_app_twice(self) -> None:
        """Two apps cannot have the same name."""
        self.assertEqual(
            sentences('[[app]]\nname = "a"\n[[app]]\nname = "a"\n'),
            ['proxy.toml:4: [[app]] #2 name: there is an app "a" already'],
        )

    def test_domain_of_another(self) -> None:
        """A domain belongs to one app; both are named, however the domain was written."""
        text = (
            '[[app]]\nname = "a"\ndomains = ["x.example"]\n[[app]]\nname = "b"\ndomains = [\n"X.Example."]\n'
        )
        self.assertEqual(
            sentences(text),
            ['proxy.toml:7: [[app]] #2 domains: "x.example" belongs to app "a", so app "b" cannot have it'],
        )

    def test_found_despite_other_mistakes(self) -> None:
        """A mistake elsewhere in an app does not hide that its domain is taken."""
        text = (
            '[[app]]\nname = "a"\ndomains = ["x.example"]\nstate = "off"\n'
            '[[app]]\nname = "b"\ndomains = ["x.example"]\n'
        )
        self.assertEqual(len(sentences(text)), 2)

    def test_endpoint_twice(self) -> None:
        """Two listeners cannot have the same place, in whatever words."""
        (sentence,) = sentences(LISTEN + '[[listen]]\nendpoint = "127.0.0.1:8080"\n')
        place, _, message = sentence.partition(" endpoint: ")
        self.assertEqual(place, "proxy.toml:4: [[listen]] #2")
        self.assertEqual(message, '"127.0.0.1:8080" is taken by [[listen]] #1 already ("tcp:8080")')

    def test_endpoint_of_admin(self) -> None:
        """A listener cannot sit where the admin API does, nor where it would by default."""
        (sentence,) = sentences('[[listen]]\nendpoint = "127.0.0.1:8081"\n')
        self.assertIn("[admin] endpoint", sentence)
        self.assertIn("[[listen]] #1", sentence)

    def test_default_app_that_is_not_there(self) -> None:
        """It may come later, but where apps stand in the file it is more likely a slip."""
        listen = LISTEN + 'protocol = "tls"\ndefault_app = "helo"\n'
        app = '[[app]]\nname = "{}"\ndomains = ["a.example"]\nbackends = ["10.0.0.1:80"]\n'
        (warning,) = parse(listen + app.format("hello"), "proxy.toml").warnings
        self.assertEqual(
            warning,
            'proxy.toml:4: [[listen]] #1 default_app: there is no app "helo" yet; '
            "until then clients without a name get an alert",
        )
        self.assertEqual(parse(listen + app.format("helo")).warnings, ())
        self.assertEqual(parse(listen).warnings, ())

    def test_default_app_for_http(self) -> None:
        """A setting that only TLS uses is refused elsewhere."""
        (sentence,) = sentences(LISTEN + 'default_app = "a"\n')
        self.assertEqual(sentence, 'proxy.toml:3: [[listen]] #1 default_app: is for protocol = "tls" alone')

    def test_open_admin(self) -> None:
        """An admin API that others can reach needs a token."""
        (sentence,) = sentences('[admin]\nendpoint = "8081"\n')
        self.assertIn("can be reached from other machines, so [admin] needs token_file", sentence)
        self.assertEqual(sentences('[admin]\nendpoint = "unix:/run/admin.sock"\n'), [])
        self.assertEqual(sentences('[admin]\nendpoint = "[::1]:8081"\n'), [])

    def test_limits(self) -> None:
        """One line of the head cannot be longer than the whole head."""
        (sentence,) = sentences("[limits]\nheader_bytes = 40000\n")
        self.assertIn("[limits] header_bytes: must not be more than head_bytes (32768)", sentence)
        self.assertEqual(sentences("[limits]\nhead_bytes = 4000\n"), [])

    def test_quarantine(self) -> None:
        """The first quarantine is no longer than the longest, also when that is the default."""
        (sentence,) = sentences("[quarantine]\nfirst = 40\n")
        self.assertIn("[quarantine] max: must not be less than first", sentence)

    def test_canonical(self) -> None:
        """The canonical domain is one of the app's own."""
        found = sentences(HELLO + 'canonical = "www.example"\n')
        self.assertIn("is not one of the app's domains", found[0])


class NotInEffectTests(SynchronousTestCase):
    """Settings that nothing puts into effect are never passed over in silence."""

    def test_switched_off(self) -> None:
        """Saying that they are off is fine."""
        off = (
            "[access]\ndeny = []\nallow = []\n"
            + LISTEN
            + 'protocol = "http"\nproxy_protocol = false\n'
            + HELLO
            + 'tls = "terminate"\nforce_https = false\ncanonical = ""\ncertificate = ""\nsend_proxy = ""\n'
            "error_pages = {}\nrate_limit = {}\naccess = { deny = [], allow = [] }\n"
        )
        self.assertEqual(sentences(off), [])

    def test_warned(self) -> None:
        """What the proxy is safe without is kept, with a warning at its line."""
        settings = parse(
            '[health]\npath = "/up"\n[quarantine]\nmax = 60\n'
            + HELLO
            + 'health = { path = "/" }\ntimeouts = { keep_alive = 5, connect = 1 }\n',
            "proxy.toml",
        )
        self.assertEqual(
            [
                warning.partition(": b")[0].partition(": f")[0].partition(": a")[0]
                for warning in settings.warnings
            ],
            [
                "proxy.toml:10: [[app]] #1 timeouts keep_alive",
            ],
        )
        self.assertEqual(settings.health, Health(path="/up"))
        self.assertEqual(settings.quarantine, Quarantine(max=60.0))
        self.assertEqual(settings.apps[0].timeouts, {"keep_alive": 5.0, "connect": 1.0})

    def test_one_sentence_each(self) -> None:
        """A value that is wrong in itself is not also said to have no effect."""
        self.assertEqual(len(sentences(HELLO + "certificate = 5\n")), 1)


class SyntaxTests(SynchronousTestCase):
    """A file that is not TOML at all."""

    def test_line_and_column(self) -> None:
        """The place is told, and what is usually forgotten."""
        self.assertEqual(
            sentences("[[listen]]\nendpoint = tcp:8080\n"),
            ["proxy.toml:2:12: not TOML: this is no value (text stands in quotes)"],
        )

    def test_end_of_file(self) -> None:
        """A document that stops too early is told with its last line."""
        self.assertEqual(
            sentences('[log]\ndestination = """x\n'),
            ["proxy.toml:2: not TOML at the end of the file: unterminated string"],
        )

    def test_key_twice(self) -> None:
        """A key that stands twice is told as that."""
        (sentence,) = sentences("[log]\nquery = true\nquery = false\n")
        self.assertIn("this key is set twice", sentence)

    def test_hostile(self) -> None:
        """Endless nesting and endless numbers are mistakes like others."""
        self.assertIn("nested too deeply", sentences("a = " + "[" * 100_000)[0])
        self.assertIn("number is too long", sentences("a = " + "1" * 10_000)[0])


class EnvironmentTests(SynchronousTestCase):
    """SCALINGO_PROXY_<SECTION>_<KEY>."""

    def test_takes_precedence(self) -> None:
        """A variable wins over the file, and gives values of every kind."""
        settings = parse(
            "[timeouts]\nconnect = 9\nidle = 9\n",
            "proxy.toml",
            {
                "SCALINGO_PROXY_TIMEOUTS_CONNECT": "2",
                "SCALINGO_PROXY_LIMITS_BODY_BYTES": "10",
                "SCALINGO_PROXY_LOG_QUERY": "false",
                "SCALINGO_PROXY_PROXY_NAME": "7",
                "SCALINGO_PROXY_ADMIN_ENDPOINT": "127.0.0.1:9",
                "PATH": "/bin",
            },
        )
        self.assertEqual(settings.timeouts, Timeouts(connect=2.0, idle=9.0))
        self.assertEqual((settings.limits.body_bytes, settings.log.query), (10, False))
        self.assertEqual((settings.proxy.name, settings.admin.endpoint.port), ("7", 9))
        self.assertEqual(settings.warnings, ())

    def test_mistakes(self) -> None:
        """A mistake names the variable instead of a line."""
        environ = {"SCALINGO_PROXY_TIMEOUTS_CONNECT": "fast", "SCALINGO_PROXY_LOG_QUERY": "1"}
        flag, number = sentences("", environ)
        self.assertEqual(flag, 'SCALINGO_PROXY_LOG_QUERY: must be true or false, not "1"')
        self.assertTrue(number.startswith("SCALINGO_PROXY_TIMEOUTS_CONNECT: must be a number"), number)
        self.assertTrue(number.endswith('at most 31536000, not "fast"'), number)

    def test_unknown(self) -> None:
        """A variable that names no setting is warned of, with the one that was probably meant."""
        (warning,) = parse("", "", {"SCALINGO_PROXY_TIMEOUT_CONNECT": "2"}).warnings
        self.assertEqual(
            warning,
            "SCALINGO_PROXY_TIMEOUT_CONNECT: no setting has this name; "
            'did you mean "SCALINGO_PROXY_TIMEOUTS_CONNECT"?',
        )

    def test_of_the_commands(self) -> None:
        """Where the commands find the admin API is no setting of the proxy, and no mistake."""
        self.assertEqual(parse("", "", {"SCALINGO_PROXY_ADMIN": "127.0.0.1:9"}), Settings())

    def test_kubernetes(self) -> None:
        """What Kubernetes sets for a service called scalingo-proxy is none of ours."""
        environ = {
            "SCALINGO_PROXY_SERVICE_HOST": "10.0.0.1",
            "SCALINGO_PROXY_SERVICE_PORT": "80",
            "SCALINGO_PROXY_SERVICE_PORT_HTTP": "80",
            "SCALINGO_PROXY_PORT": "tcp://10.0.0.1:80",
            "SCALINGO_PROXY_PORT_80_TCP": "tcp://10.0.0.1:80",
            "SCALINGO_PROXY_PORT_80_TCP_PROTO": "tcp",
            "SCALINGO_PROXY_ADMIN_PORT_8081_TCP_ADDR": "10.0.0.1",
        }
        self.assertEqual(parse("", "", environ), Settings())


class LoadTests(SynchronousTestCase):
    """Files."""

    def setUp(self) -> None:
        self.folder = FilePath(self.mktemp())
        self.folder.makedirs()
        self.file = self.folder.child("proxy.toml")

    def problem(self, content: bytes | None = None) -> str:
        if content is not None:
            self.file.setContent(content)
        with self.assertRaises(ConfigurationError) as caught:
            load(self.file.path, {})
        (mistake,) = caught.exception.mistakes
        return str(mistake).removeprefix(self.folder.path + os.sep)

    def test_reads(self) -> None:
        """A file is read, with or without a byte order mark."""
        self.file.setContent(b"\xef\xbb\xbf" + HELLO.encode())
        settings = load(self.file.path, {})
        self.assertEqual((settings.apps[0].name, settings.filename), ("hello", self.file.path))

    def test_none(self) -> None:
        """Without a file there are the defaults and the environment."""
        self.assertEqual(load(None, {"SCALINGO_PROXY_METRICS_MAX_APPS": "3"}).metrics.max_apps, 3)

    def test_missing(self) -> None:
        """A file that is not there is a mistake of its own."""
        self.assertEqual(self.problem(), "proxy.toml: cannot be read: No such file or directory")

    def test_no_name(self) -> None:
        """An empty name is not the same as no file."""
        with self.assertRaises(ConfigurationError) as caught:
            load("", {})
        self.assertEqual(str(caught.exception), '"": cannot be read: No such file or directory')

    def test_folder(self) -> None:
        """So is a folder."""
        self.file.makedirs()
        self.assertEqual(self.problem(), "proxy.toml: cannot be read: Is a directory")

    def test_not_utf8(self) -> None:
        """Bytes that are no text are told with their line."""
        self.assertEqual(self.problem(b"# one\n# \xff\n"), "proxy.toml:2: is not UTF-8 text")

    def test_token_beside_the_file(self) -> None:
        """A relative token_file is looked for beside the configuration file."""
        self.folder.child("token").setContent(b"secret\n")
        self.file.setContent(b'[admin]\nendpoint = "0.0.0.0:8081"\ntoken_file = "token"\n')
        self.assertEqual(load(self.file.path, {}).admin.token_file, self.folder.child("token").path)

    def test_token_missing(self) -> None:
        """A token file that cannot be read, or is empty, is a mistake of its key."""
        content = b'[admin]\nendpoint = "0.0.0.0:8081"\ntoken_file = "token"\n'
        self.assertIn("proxy.toml:3: [admin] token_file: ", self.problem(content))
        self.folder.child("token").setContent(b"\nsecret")
        self.assertIn("must hold a token in its first line", self.problem())

    def test_folders_of_what_is_written(self) -> None:
        """The store and the log need a folder that is there, and cannot be one."""
        self.assertIn("there is no folder", self.problem(b'[proxy]\nstate = "/no/such/place/x.db"\n'))
        self.assertIn("there is no folder", self.problem(b'[log]\ndestination = "/no/such/place/x.log"\n'))
        self.assertIn("is a folder", self.problem(b'[log]\ndestination = "/"\n'))


class SampleTests(SynchronousTestCase):
    """docs/scalingo-proxy.toml, the file people start from."""

    def setUp(self) -> None:
        sample = FilePath(__file__).parent().parent().child("docs").child("scalingo-proxy.toml")
        if not sample.exists():
            self.skipTest("the documentation is not here: run the tests in a checkout")
        self.text = sample.getContent().decode()

    def uncommented(self) -> str:
        """The text with every "#key = value" and "#[table]" in effect."""
        lines = (
            line[1:] if line.startswith("#") and line[1:2].strip() else line for line in self.text.split("\n")
        )
        return "\n".join(lines)

    def test_as_it_is(self) -> None:
        """It has no mistake and no warning, and says nothing but the defaults."""
        settings = parse(self.text, "scalingo-proxy.toml")
        self.assertEqual(settings.warnings, ())
        listens, (app,) = settings.listens, settings.apps
        told = [(listen.protocol, listen.endpoint.text) for listen in listens]
        self.assertEqual(told, [("http", "8080"), ("tls", "8443")])
        self.assertEqual(
            attrs.evolve(settings, listens=(), apps=(), filename=""),
            Settings(),
        )
        self.assertEqual(app, App("hello", app.domains, app.backends))

    def test_every_key(self) -> None:
        """Uncommented, it has every key there is, each with its default."""
        document = tomllib.loads(self.uncommented())
        given, findings = DOCUMENT.read(document)
        self.assertEqual(findings, [])
        for name, reader in DOCUMENT.fields.items():
            if isinstance(reader, TableListReader):
                keys = {key for table in document[name] for key in table}
                self.assertEqual(keys, set(reader.table.fields), name)
            elif isinstance(reader, TableReader):
                self.assertEqual(set(document[name]), set(reader.fields), name)
        self.assertEqual(Health(**given["health"]), Health())
        self.assertEqual(Quarantine(**given["quarantine"]), Quarantine())
        self.assertEqual(given["access"], {"deny": (), "allow": (), "deny_files": ()})

    def test_only_what_is_in_effect(self) -> None:
        """A commented key is one that would be refused or warned of, and is not in effect elsewhere."""
        commented = {
            line[1:].partition(" = ")[0]
            for line in self.text.split("\n")
            if line[1:2].strip() and line[0] == "#"
        }
        active = {line.partition(" = ")[0] for line in self.text.split("\n") if line and line[0] != "#"}
        self.assertEqual(commented & active, set())
