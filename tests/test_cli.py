"""Tests for :mod:`scalingo_proxy.cli` and the commands behind it."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from scalingo_proxy import cli
from scalingo_proxy.cli_client import AdminAddress
from scalingo_proxy.cli_output import Output, printable
from scalingo_proxy.model import App
from scalingo_proxy.version import VERSION
from tests.services.admin_world import AdminWorld


@attrs.frozen
class Run:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class CommandCase(TestCase):
    """Runs commands in this process, with streams of their own."""

    def setUp(self) -> None:
        self.patch(os, "environ", {**os.environ})
        os.environ.pop("SCALINGO_PROXY_ADMIN", None)

    def run_command(self, *words: str) -> Run:
        out, err = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        try:
            status = cli.main(words)
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Run(status, out.getvalue(), err.getvalue())

    def file(self, content: str, name: str = "") -> str:
        path = Path(self.mktemp() + name)
        path.write_text(content, "utf-8")
        return str(path)


class UsageTests(CommandCase):
    """The command line itself."""

    def test_wrong_usage_is_2(self) -> None:
        """Said by argparse, with the usage."""
        for words in ((), ("app",), ("apps", "--such"), ("app", "set"), ("check",), ("such",)):
            run = self.run_command(*words)
            self.assertEqual(2, run.status, words)
            self.assertIn("usage: scalingo-proxy", run.err)

    def test_help_tells_the_exit_statuses(self) -> None:
        """They are part of the contract."""
        run = self.run_command("--help")
        self.assertEqual(0, run.status)
        self.assertIn("3 no proxy at the address", " ".join(run.out.split()))

    def test_version(self) -> None:
        """The version of the distribution."""
        self.assertEqual(f"scalingo-proxy {VERSION}\n", self.run_command("--version").out)

    def test_as_a_module(self) -> None:
        """``python -m scalingo_proxy`` is the same program, and no command of it needs a reactor."""
        code = (
            "import sys, runpy; sys.argv = ['scalingo-proxy', 'check', 'no-such-file']\n"
            "try: runpy.run_module('scalingo_proxy', run_name='__main__')\n"
            "except SystemExit as stop: print(stop.code, 'twisted.internet.reactor' in sys.modules)"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        self.assertEqual("1 False", ran.stdout.splitlines()[-1])

    def test_demo_is_twistd(self) -> None:
        """It becomes twistd with the demo's options, and passes the others on."""
        import twisted.scripts.twistd

        seen: list[str] = []
        self.patch(twisted.scripts.twistd, "run", lambda: seen.extend(sys.argv))
        self.patch(sys, "argv", ["scalingo-proxy"])
        self.assertEqual(0, self.run_command("demo", "--http", "9080").status)
        self.assertEqual(["twistd", "-n", "--pidfile=", "scalingo-proxy", "--demo", "--http", "9080"], seen)


class CheckTests(CommandCase):
    """``check FILE``."""

    GOOD = """
[[listen]]
endpoint = "127.0.0.1:8080"
[[app]]
name = "hello"
domains = ["hello.localhost", "*.hello.localhost"]
backends = ["127.0.0.1:3000"]
"""

    def test_a_good_file(self) -> None:
        """One line with counts."""
        path = self.file(self.GOOD)
        run = self.run_command("check", path)
        self.assertEqual((0, f"{path}: ok, 1 listener, 1 app, 2 domains, 1 backend\n"), (run.status, run.out))

    def test_mistakes(self) -> None:
        """Each on a line with file and line number, then how many there are."""
        path = self.file('[limits]\nhead_byte = 1\n[[app]]\nname = "a"\nbackends = ["10.0.0.1"]\n')
        run = self.run_command("check", path)
        self.assertEqual(1, run.status)
        first, second, last = run.out.splitlines()
        self.assertTrue(first.startswith(f"{path}:2: "), first)
        self.assertIn('did you mean "head_bytes"?', first)
        self.assertTrue(second.startswith(f"{path}:5: "), second)
        self.assertEqual("2 errors", last)

    def test_one_error(self) -> None:
        """Counted in the singular; a missing file is one."""
        run = self.run_command("check", "no-such-file.toml")
        self.assertEqual(1, run.status)
        self.assertEqual("1 error", run.out.splitlines()[-1])
        self.assertIn("no-such-file.toml", run.out)

    def test_warnings(self) -> None:
        """They do not make a file bad, and do not get into the result."""
        path = self.file(self.GOOD + "timeouts = { keep_alive = 5 }\n")
        run = self.run_command("check", path)
        self.assertEqual((0, 1), (run.status, len(run.out.splitlines())))
        self.assertTrue(run.err.startswith("warning: "))

    def test_json(self) -> None:
        """The same for programs."""
        good = self.run_command("check", self.file(self.GOOD), "--json")
        self.assertEqual({"ok": True, "mistakes": [], "warnings": []}, good.document)
        bad = self.run_command("--json", "check", self.file("x"))
        self.assertEqual((1, False, 1), (bad.status, bad.document["ok"], len(bad.document["mistakes"])))


class UnreachableTests(CommandCase):
    """No proxy at the address."""

    def free_port(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return int(server.getsockname()[1])

    def test_refused(self) -> None:
        """3, and one sentence with address and flag."""
        port = self.free_port()
        run = self.run_command("apps", "--admin", f"127.0.0.1:{port}")
        self.assertEqual((3, ""), (run.status, run.out))
        self.assertEqual(
            f"cannot reach the proxy at 127.0.0.1:{port} (connection refused): "
            "start it, or name its admin endpoint with --admin or SCALINGO_PROXY_ADMIN\n",
            run.err,
        )

    def test_for_programs(self) -> None:
        """With --json what went wrong is JSON, whoever noticed: nobody there, or a mistake in a file."""
        cases = {
            ("apps", "--admin", f"127.0.0.1:{self.free_port()}"): (3, "unreachable"),
            ("app", "set", "x", "--file", "/no/such.json"): (1, "mistake"),
            ("apps", "--token-file", "/no/such.token"): (1, "mistake"),
        }
        for words, (status, code) in cases.items():
            run = self.run_command(*words, "--json")
            self.assertEqual((run.status, run.err), (status, ""))
            told = json.loads(run.out)["error"]
            self.assertEqual((told["code"], told["field"]), (code, None))
            self.assertGreater(len(told["message"]), 10)

    def test_from_the_environment(self) -> None:
        """The option wins over SCALINGO_PROXY_ADMIN, before or after the command."""
        os.environ["SCALINGO_PROXY_ADMIN"] = "unix:/no/such.sock"
        self.assertIn("unix:/no/such.sock (no such file", self.run_command("apps").err)
        port = self.free_port()
        for words in (("--admin", str(port), "apps"), ("apps", "--admin", str(port))):
            self.assertIn(f"at {port} ", self.run_command(*words).err)

    def test_something_else_answers(self) -> None:
        """What is no admin API is no proxy."""
        for answer in (
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            b"",
            b"HTTP/1.1 500 X\r\n\r\n{}",
        ):
            run = self.run_command("apps", "--admin", f"127.0.0.1:{self.answering(answer)}")
            self.assertEqual(3, run.status, answer)
            self.assertEqual(1, len(run.err.splitlines()))

    def answering(self, data: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))

        def answer() -> None:
            connection, _ = server.accept()
            connection.recv(65536)
            connection.sendall(data)
            connection.close()
            server.close()

        thread = threading.Thread(target=answer)
        thread.start()
        self.addCleanup(thread.join)
        return int(server.getsockname()[1])

    def test_addresses_that_are_none(self) -> None:
        """Refused before anything is dialled."""
        for text in ("nowhere", "unix:", "[::1", "host:99999", "systemd:domain=INET:name=x", "tcp:x"):
            run = self.run_command("apps", "--admin", text)
            self.assertEqual(1, run.status, text)
            self.assertTrue(run.err.startswith("--admin (or SCALINGO_PROXY_ADMIN): "), run.err)


class AddressTests(SynchronousTestCase):
    """How an admin address is written."""

    def test_forms(self) -> None:
        """As an operator writes it, or as the configuration has it."""
        for text, host, port in (
            ("8081", "127.0.0.1", 8081),
            ("127.0.0.1:8081", "127.0.0.1", 8081),
            ("localhost:8081", "localhost", 8081),
            ("router-1.internal:8081", "router-1.internal", 8081),
            ("[::1]:8081", "::1", 8081),
            ("http://127.0.0.1:8081/", "127.0.0.1", 8081),
            ("tcp:8081:interface=127.0.0.2", "127.0.0.2", 8081),
            ("tcp:8081", "127.0.0.1", 8081),
            ("0.0.0.0:8081", "127.0.0.1", 8081),
            (r"tcp6:8081:interface=\:\:1", "::1", 8081),
        ):
            address = AdminAddress.parse(text)
            self.assertEqual((host, port, ""), (address.host, address.port, address.socket_path), text)

    def test_unix_sockets(self) -> None:
        """With or without the arguments that only a server needs."""
        for text in ("unix:/run/admin.sock", "unix:/run/admin.sock:mode=660"):
            self.assertEqual("/run/admin.sock", AdminAddress.parse(text).socket_path)


class AppsCase(CommandCase):
    """Commands against a running admin API."""

    def setUp(self) -> None:
        super().setUp()
        self.world = self.serve("127.0.0.1:0")
        address = self.world.service.address
        assert isinstance(address, IPv4Address)
        os.environ["SCALINGO_PROXY_ADMIN"] = f"127.0.0.1:{address.port}"

    def serve(self, endpoint: str, **options: Any) -> AdminWorld:
        from twisted.internet import reactor

        filed = App("filed", ("filed.localhost", "www.filed.localhost"), ("127.0.0.1:1", "127.0.0.1:2"))
        world = AdminWorld(filed, reactor=reactor, endpoint=endpoint, **options).start()
        self.addCleanup(world.stop)
        return world

    async def command(self, *words: str) -> Run:
        return await deferToThread(self.run_command, *words)


class ListTests(AppsCase):
    """``apps``."""

    async def test_a_table(self) -> None:
        """Columns that a program can cut, without colours."""
        await self.command("app", "set", "a", "--domain", "a.localhost")
        run = await self.command("apps")
        self.assertEqual(
            "NAME   STATE    BACKENDS  SOURCE  DOMAINS\n"
            "a      running  0         store   a.localhost\n"
            "filed  running  2         file    filed.localhost,www.filed.localhost\n",
            run.out,
        )

    async def test_a_query(self) -> None:
        """Only the apps that the proxy finds."""
        run = await self.command("apps", "--query", "nothing")
        self.assertEqual((0, "NAME  STATE  BACKENDS  SOURCE  DOMAINS\n"), (run.status, run.out))
        self.assertIn("\nfiled ", (await self.command("apps", "-q", "www")).out)

    async def test_json(self) -> None:
        """Every app in one document, however many pages that are."""
        self.world.file.replace([App(f"app-{number:04}") for number in range(1100)])
        document = (await self.command("apps", "--json")).document
        self.assertEqual((1100, 1100), (document["total"], len(document["apps"])))
        self.assertEqual("app-1099", document["apps"][-1]["name"])

    async def test_over_a_unix_socket(self) -> None:
        """The other way to reach a proxy on this machine."""
        path = self.mktemp()
        self.serve(f"unix:{path}")
        self.assertIn("filed", (await self.command("apps", "--admin", f"unix:{path}")).out)


class SetTests(AppsCase):
    """``app set``."""

    async def test_makes_an_app(self) -> None:
        """One line says what it is now."""
        words = ("--domain", "a.localhost", "--domain", "b.localhost", "--backend", "[::1]:3000")
        run = await self.command("app", "set", "hello", *words)
        self.assertEqual(
            (0, "hello created: a.localhost, b.localhost -> [::1]:3000\n"), (run.status, run.out)
        )
        self.assertIn("hello", self.world.store.apps())

    async def test_changes_what_is_named(self) -> None:
        """The rest stays as it is, also of an app of the file."""
        run = await self.command("app", "set", "filed", "--backend", "127.0.0.1:3")
        self.assertEqual("filed changed: filed.localhost, www.filed.localhost -> 127.0.0.1:3\n", run.out)
        run = await self.command("app", "set", "filed", "--balancer", "random_two", "--json")
        self.assertEqual(["127.0.0.1:3"], run.document["backends"])

    async def test_a_record(self) -> None:
        """A file replaces the app as a whole; options are over it."""
        path = self.file(
            '{"domains": ["x.localhost"], "backends": [{"address": "127.0.0.1:1", "weight": 2}]}'
        )
        run = await self.command("app", "set", "filed", "--file", path, "--domain", "y.localhost")
        self.assertEqual("filed changed: y.localhost -> 127.0.0.1:1\n", run.out)

    async def test_a_record_from_standard_input(self) -> None:
        """As ``-``; what ``apps --json`` told can be put back."""
        told = (await self.command("apps", "--json")).document["apps"][0]
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(told).encode())))
        self.assertEqual(0, (await self.command("app", "set", "filed", "--file", "-")).status)

    async def test_mistakes(self) -> None:
        """Each on a line with its place; nothing is changed."""
        run = await self.command(
            "app", "set", "hello", "--domain", "a b", "--backend", "1", "--balancer", "x"
        )
        self.assertEqual((1, ""), (run.status, run.out))
        self.assertEqual(
            ["domains[0]", "backends[0]", "balancer"],
            [line.partition(":")[0] for line in run.err.splitlines()],
        )

    async def test_a_taken_domain(self) -> None:
        """The owner is named."""
        run = await self.command("app", "set", "hello", "--domain", "filed.localhost")
        self.assertEqual(
            (1, "domains: domain 'filed.localhost' belongs to app 'filed'\n"), (run.status, run.err)
        )

    async def test_mistakes_as_json(self) -> None:
        """The proxy's own answer."""
        run = await self.command("app", "set", "hello", "--domain", "filed.localhost", "--json")
        self.assertEqual((1, "domain-taken"), (run.status, run.document["error"]["code"]))

    async def test_settings_without_effect(self) -> None:
        """The app is set, with a warning."""
        run = await self.command(
            "app", "set", "hello", "--file", self.file('{"timeouts": {"keep_alive": 5}}')
        )
        self.assertEqual(0, run.status)
        self.assertTrue(run.err.startswith('warning: app "hello": timeouts.keep_alive: '), run.err)

    async def test_when_ready(self) -> None:
        """With ``--wait``, a line for each backend that had to answer first."""
        words = ("--domain", "a.localhost", "--backend", "127.0.0.1:3", "--backend", "[::1]:3", "--wait")
        run = await self.command("app", "set", "hello", *words)
        self.assertEqual(
            [
                "checking http://127.0.0.1:3/ ... 200 in 0 ms",
                "checking http://[::1]:3/ ... 200 in 0 ms",
                "hello created: a.localhost -> 127.0.0.1:3, [::1]:3",
            ],
            run.out.splitlines(),
        )
        self.assertEqual((0, ""), (run.status, run.err))
        run = await self.command("app", "set", "hello", "--backend", "127.0.0.1:4", "--wait", "--json")
        self.assertEqual("127.0.0.1:4", run.document["probes"][0]["address"])

    async def test_not_ready(self) -> None:
        """Which backend it is, and why; the exit status tells, and nothing has changed."""
        self.world.deploys.seconds = 0.1
        self.world.probe.failing = {"127.0.0.1:3": 503}
        words = ("app", "set", "filed", "--backend", "127.0.0.1:3", "--backend", "127.0.0.1:4", "--wait")
        run = await self.command(*words)
        reason = "GET http://127.0.0.1:3/: answered 503"
        self.assertEqual(
            [
                f"checking http://127.0.0.1:3/ ... failed: {reason} (1 try in 0 s)",
                "checking http://127.0.0.1:4/ ... 200 in 0 ms",
            ],
            run.out.splitlines(),
        )
        self.assertEqual(
            (1, f"nothing has changed: 1 of 2 new backends are not ready after 0.1 seconds; {reason}\n"),
            (run.status, run.err),
        )
        run = await self.command(*words, "--json")
        self.assertEqual(
            (1, "not-ready", 503),
            (run.status, run.document["error"]["code"], run.document["probes"][0]["status"]),
        )
        self.assertNotIn("filed", self.world.store.apps())

    async def test_nothing_to_set(self) -> None:
        """Probably not what was meant."""
        run = await self.command("app", "set", "hello")
        self.assertEqual(1, run.status)
        self.assertIn("--domain", run.err)

    async def test_files_that_are_no_record(self) -> None:
        """Named, before anything is asked."""
        for content, sentence in (
            ("{", "is not JSON"),
            ("[]", "JSON table"),
            ('{"tls": 1, "tls": 2}', "twice"),
        ):
            path = self.file(content)
            run = await self.command("app", "set", "hello", "--file", path)
            self.assertEqual((1, True), (run.status, run.err.startswith(path)))
            self.assertIn(sentence, run.err)
        run = await self.command("app", "set", "hello", "--file", "no-such.json")
        self.assertEqual((1, "no-such.json: no such file or directory\n"), (run.status, run.err.lower()))


class RemoveTests(AppsCase):
    """``app rm``."""

    async def test_an_app(self) -> None:
        """It is gone."""
        await self.command("app", "set", "hello", "--domain", "hello.localhost")
        run = await self.command("app", "rm", "hello")
        self.assertEqual((0, "app hello is removed\n"), (run.status, run.out))

    async def test_an_app_of_the_file(self) -> None:
        """Its own version comes back, and cannot be removed here."""
        await self.command("app", "set", "filed", "--domain", "other.localhost")
        run = await self.command("app", "rm", "filed", "--json")
        self.assertEqual(["filed.localhost", "www.filed.localhost"], run.document["app"]["domains"])
        run = await self.command("app", "rm", "filed")
        self.assertEqual(1, run.status)
        self.assertIn("edit the file", run.err)

    async def test_an_unknown_app(self) -> None:
        """One sentence."""
        run = await self.command("app", "rm", "no/body")
        self.assertEqual((1, "there is no app 'no/body'\n"), (run.status, run.err))


class TokenTests(AppsCase):
    """``--token-file``."""

    async def test_the_token_is_sent(self) -> None:
        """Without it the refusal names the option; it is never told."""
        token = self.file("s3cret\n")
        path = self.mktemp()
        self.serve(f"unix:{path}", token_file=token)
        run = await self.command("apps", "--admin", f"unix:{path}")
        self.assertEqual(1, run.status)
        self.assertIn("--token-file", run.err)
        run = await self.command("apps", "--admin", f"unix:{path}", "--token-file", token)
        self.assertEqual(0, run.status)
        wrong = await self.command("apps", "--admin", f"unix:{path}", "--token-file", self.file("other"))
        self.assertEqual(1, wrong.status)
        self.assertNotIn("other", wrong.err)

    async def test_a_file_that_cannot_be_used(self) -> None:
        """Said before anything is asked."""
        run = await self.command("apps", "--token-file", "no-such-file")
        self.assertEqual(
            (1, "--token-file: no-such-file: no such file or directory\n"), (run.status, run.err)
        )


class OutputTests(SynchronousTestCase):
    """What gets onto a terminal."""

    def test_control_characters_are_escaped(self) -> None:
        """Nobody moves the cursor from afar."""
        self.assertEqual(r"a\x1b[2Jb\r\n", printable("a\x1b[2Jb\r\n"))
        self.assertEqual("é", printable("é"))

    def test_columns_are_aligned(self) -> None:
        """By what is printed; without blanks at the end."""
        out = io.StringIO()
        Output(out, out).table(["A", "B"], [["\x1b", "x"], ["bb", ""]])
        self.assertEqual("A     B\n\\x1b  x\nbb\n", out.getvalue())

    def test_nowhere_to_write(self) -> None:
        """A full disk is told in a sentence; a closed output keeps no command from what it does."""
        code = "import sys; from scalingo_proxy.cli import main; sys.exit(main(sys.argv[1:]))"
        good = self.mktemp()
        with open(good, "w") as file:
            file.write('[[listen]]\nprotocol = "http"\nendpoint = "8080"\n')
        command = [sys.executable, "-c", code, "check", "--json", good]
        if os.path.exists("/dev/full"):
            with open("/dev/full", "w") as full:
                ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
            self.assertEqual(
                (1, b"cannot write the result: no space left on device\n"), (ran.returncode, ran.stderr)
            )
        for closed in (">&-", ">&- 2>&-"):
            shell = subprocess.run(
                ["sh", "-c", f'exec "$@" {closed}', "sh", *command], stderr=subprocess.PIPE, check=False
            )
            self.assertEqual((0, b""), (shell.returncode, shell.stderr))

    def test_a_reader_that_has_enough(self) -> None:
        """``| head`` is no error."""
        code = "import sys; from scalingo_proxy.cli import main; sys.exit(main(['check', 'no-such']))"
        reading, writing = os.pipe()
        os.close(reading)
        ran = subprocess.run(
            [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, check=False
        )
        os.close(writing)
        self.assertEqual(b"", ran.stderr)
