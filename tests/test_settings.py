"""Tests of scalingo_proxy.settings: the options of the command line."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.config import parse
from scalingo_proxy.errors import ConfigurationError
from scalingo_proxy.model import App, Backend
from scalingo_proxy.settings import Settings, parse_app_option

FILE = '[[listen]]\nendpoint = "tcp:80"\n[[app]]\nname = "hello"\ndomains = ["hello.example"]\n'


def mistakes(settings: Settings, **options: Any) -> list[str]:
    try:
        settings.with_options(**options)
    except ConfigurationError as error:
        return [str(mistake) for mistake in error.mistakes]
    return []


class OptionsTests(SynchronousTestCase):
    """Options over a file, or without one."""

    def test_nothing_at_all(self) -> None:
        """Without file and options there is one HTTP listener, on every address."""
        settings = Settings().with_options()
        (listen,) = settings.listens
        self.assertEqual((listen.protocol, listen.endpoint.text, listen.option), ("http", "8080", "--http"))
        self.assertEqual(settings.admin.endpoint.text, "127.0.0.1:8081")

    def test_listeners_are_added(self) -> None:
        """Options add listeners to those of the file; the default one stays away then."""
        settings = parse(FILE).with_options(http=["81", "[::1]:82"])
        self.assertEqual([listen.endpoint.port for listen in settings.listens], [80, 81, 82])
        self.assertEqual(len(parse(FILE).with_options().listens), 1)

    def test_admin(self) -> None:
        """--admin replaces the endpoint and keeps the rest."""
        self.assertEqual(Settings().with_options(admin="127.0.0.1:9").admin.endpoint.port, 9)

    def test_apps_are_added(self) -> None:
        """--app adds to the apps of the file."""
        settings = parse(FILE).with_options(apps=["a=a.example=10.0.0.1:80"])
        self.assertEqual([app.name for app in settings.apps], ["hello", "a"])

    def test_demo(self) -> None:
        """A demo leaves no store behind, unless a file or a variable asks for one."""
        settings = Settings().with_options(demo=True)
        self.assertEqual((settings.demo, settings.proxy.state), (True, ""))
        self.assertEqual(parse("", "f.toml").with_options(demo=True).proxy.state, "scalingo-proxy.db")
        environ = {"SCALINGO_PROXY_PROXY_STATE": "x.db"}
        self.assertEqual(parse("", "", environ).with_options(demo=True).proxy.state, "x.db")

    def test_demo_listeners(self) -> None:
        """A demo has a door for TLS, too, unless it is told which doors to have."""
        demo = Settings().with_options(demo=True)
        self.assertEqual(
            [(listen.protocol, listen.endpoint.text, listen.option) for listen in demo.listens],
            [("http", "8080", "--http"), ("tls", "8443", "--tls")],
        )
        (told,) = Settings().with_options(demo=True, http=["81"]).listens
        self.assertEqual(told.endpoint.text, "81")
        with self.assertRaises(ConfigurationError) as caught:
            Settings().with_options(demo=True, admin="127.0.0.1:8443")
        self.assertIn("taken by the default TLS listener", str(caught.exception))

    def test_warnings_stay(self) -> None:
        """Warnings of the file are still there."""
        settings = parse("[health]\nrise = 2\n")
        self.assertEqual(settings.with_options().warnings, settings.warnings)


class OptionMistakeTests(SynchronousTestCase):
    """Mistakes name the option."""

    def test_all_at_once(self) -> None:
        """Every option's mistakes come together."""
        found = mistakes(
            Settings(), http=["80a", "70000"], tls=["tls:1"], admin="0.0.0.0:1", apps=["a", "b=b c=10.0.0.1"]
        )
        self.assertEqual(
            [sentence.partition(":")[0] for sentence in found],
            ["--http", "--http", "--tls", "--admin", "--app", "--app", "--app"],
        )
        self.assertIn("TLS is no part of an endpoint", found[2])
        self.assertIn("needs token_file", found[3])

    def test_clash_with_file(self) -> None:
        """A listener of an option cannot sit on one of the file."""
        self.assertEqual(
            mistakes(parse(FILE), http=["127.0.0.1:80"]),
            ['--http: "127.0.0.1:80" is taken by [[listen]] already ("tcp:80")'],
        )

    def test_clash_with_admin(self) -> None:
        """Listeners and the admin API cannot share a port."""
        self.assertEqual(
            mistakes(Settings(), http=["8081"]),
            ['[admin]: "127.0.0.1:8081" is taken by --http already ("8081")'],
        )
        self.assertEqual(
            mistakes(Settings(), admin="127.0.0.1:8080"),
            ['--admin: "127.0.0.1:8080" is taken by the default HTTP listener already ("8080")'],
        )

    def test_app_of_file(self) -> None:
        """Names and domains of the file's apps are taken."""
        self.assertEqual(
            mistakes(parse(FILE), apps=["hello=a.example=a:1", "b=hello.example=b:1"]),
            [
                '--app: there is an app "hello" already',
                '--app: "hello.example" belongs to app "hello", so app "b" cannot have it',
            ],
        )


class AppOptionTests(SynchronousTestCase):
    """NAME=DOMAIN[,DOMAIN]=HOST:PORT[,HOST:PORT]."""

    def test_parsed(self) -> None:
        """Domains and backends are lists, IPv6 included."""
        self.assertEqual(
            parse_app_option("a=a.example,*.A.example=127.0.0.1:1,[::1]:2"),
            App("a", ("a.example", "*.a.example"), (Backend("127.0.0.1", 1), Backend("::1", 2))),
        )

    def test_tls_backend(self) -> None:
        """A backend may be asked over TLS."""
        (backend,) = parse_app_option("a=a.example=https://web.internal:8443").backends
        self.assertEqual(backend, Backend("web.internal", 8443, tls=True))

    def test_shape(self) -> None:
        """Anything that has not three parts is told the shape."""
        for text in ("", "a", "a=b", "a=b=", "=b=c:1", "a==c:1", "a=b=c:1=d"):
            with self.assertRaises(ConfigurationError) as caught:
                parse_app_option(text)
            self.assertIn("is not NAME=DOMAIN[,DOMAIN]=HOST:PORT[,HOST:PORT]", str(caught.exception))

    def test_mistakes(self) -> None:
        """Every mistake inside is told."""
        with self.assertRaises(ConfigurationError) as caught:
            parse_app_option("a b=x y,ok.example=10.0.0.1,b:0")
        self.assertEqual(len(caught.exception.mistakes), 4)
