"""What the documentation shows, works.

Python runs, page by page and from top to bottom; TOML is read as the proxy
reads it; a console session marked ``run`` is compared with what it prints;
any other command line must at least be understood.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import defer, task
from twisted.trial import unittest

from scalingo_proxy.cli import main
from scalingo_proxy.config import parse
from scalingo_proxy.errors import ResolverUnavailable, UnknownHost
from scalingo_proxy.model import App, RouteQuery
from scalingo_proxy.protocols import tls_authority
from scalingo_proxy.tap import Options
from scalingo_proxy.testing.backends import ScriptedBackend
from scalingo_proxy.testing.clients import connect_client
from scalingo_proxy.testing.network import MemoryNetwork
from scalingo_proxy.testing.world import World
from tests.authorities import Authority
from tests.docs.samples import Sample, documents, samples_in
from tests.installations import CHECKOUT, new_folder, run
from tests.soak.__main__ import options as soak_options


def all_samples(language: str) -> list[Sample]:
    return [sample for path in documents() for sample in samples_in(path) if sample.language == language]


def execute(sample: Sample, names: dict[str, Any]) -> None:
    """Run a sample; a traceback shows the page and the line."""
    padding = "\n" * (sample.line - 1)
    exec(compile(padding + sample.code, sample.page, "exec"), names)


class PythonTests(unittest.SynchronousTestCase):
    """Samples in Python."""

    def test_they_run(self) -> None:
        """Each page runs from top to bottom, all but whole programs."""
        for path in documents():
            names: dict[str, Any] = {"__name__": path.stem}
            for sample in samples_in(path):
                if sample.language == "python" and "program" not in sample.classes:
                    execute(sample, names)

    def test_program(self) -> None:
        """The program that embeds the proxy serves its app, on a network in memory."""
        (program,) = [sample for sample in all_samples("python") if "program" in sample.classes]
        started: list[Any] = []
        self.patch(task, "react", started.append)
        execute(program, {"__name__": "__main__"})
        (start,) = started

        network = MemoryNetwork()
        backend = ScriptedBackend("hello").listen(network, "127.0.0.1", 3000)
        running = defer.ensureDeferred(start(network))
        network.settle()
        client = connect_client(network, ("127.0.0.1", 8080))
        client.send(b"GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")
        network.run_until(lambda: client.responses)
        self.assertEqual(client.responses[0].status, 200)
        self.assertEqual(len(backend.requests), 1)
        self.assertNoResult(running)

    def test_deploy(self) -> None:
        """The deploy that is shown changes the app when its new backend answers, or says why not."""
        (sample,) = [one for one in all_samples("python") if "deploys.ready(app)" in one.code]
        names: dict[str, Any] = {}
        execute(sample, names)
        world = World()
        self.addCleanup(world.end)
        app = world.app("hello", ["hello.localhost"])
        world.request(b"GET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")
        deploying = defer.ensureDeferred(names["deploy"](world.factory.env, world.resolver))
        self.assertEqual(
            world.network.run_until(deploying), ["GET http://127.0.0.1:3001/up: connection refused"]
        )
        ScriptedBackend("new").listen(world.network, "127.0.0.1", 3001)
        deploying = defer.ensureDeferred(names["deploy"](world.factory.env, world.resolver))
        self.assertEqual(world.network.run_until(deploying), [app.backend.address])

    def test_program_is_short(self) -> None:
        """Embedding takes ten lines, imports and blank lines aside."""
        (program,) = [sample for sample in all_samples("python") if "program" in sample.classes]
        lines = [line for line in program.code.splitlines() if line and "import" not in line]
        self.assertLessEqual(len(lines), 10)

    def test_resolver(self) -> None:
        """The resolver that the page writes answers as the page says."""

        class Directory:
            async def look_up(self, host: str) -> Any:
                if host == "broken.test":
                    raise OSError
                return App("hello", [host], ["127.0.0.1:3000"]) if host == "hello.test" else None

        names: dict[str, Any] = {"__name__": "sample"}
        execute(next(iter(samples_in(CHECKOUT / "docs" / "writing_a_resolver.rst"))), names)
        resolver = names["DirectoryResolver"](Directory())
        route = self.successResultOf(resolver.resolve(RouteQuery("hello.test")))
        self.assertEqual((route.app.name, route.domain, route.resolver), ("hello", "hello.test", "directory"))
        self.failureResultOf(resolver.resolve(RouteQuery("other.test")), UnknownHost)
        self.failureResultOf(resolver.resolve(RouteQuery("broken.test")), ResolverUnavailable)


class TomlTests(unittest.SynchronousTestCase):
    """Samples of configuration."""

    def test_they_are_read(self) -> None:
        """The proxy takes each without a warning, all but those that show mistakes."""
        issuer = tls_authority.Authority.create("samples", time.time())
        for sample in all_samples("toml"):
            if "mistaken" not in sample.classes:
                folder = new_folder()
                for name in re.findall(r'\bca = "([\w.-]+)"', sample.code):
                    (folder / name).write_text(Authority().pem, "utf-8")
                for pair in re.findall(r'cert = "([\w.-]+)", key = "([\w.-]+)"', sample.code):
                    for name, pem in zip(pair, issuer.issue(["a.test"], time.time()), strict=True):
                        (folder / name).write_bytes(pem)
                for name in re.findall(r'deny_files = \["([\w.-]+)"\]', sample.code):
                    (folder / name).write_text("192.0.2.1  # a remark\n", "utf-8")
                self.assertEqual(
                    parse(sample.code, str(folder / sample.place.replace("/", "-")), {}).warnings, ()
                )


class ConsoleTests(unittest.SynchronousTestCase):
    """Samples of commands."""

    def test_sessions(self) -> None:
        """What a session marked ``run`` shows is what its commands print."""
        for path in documents():
            folder = new_folder()
            for sample in samples_in(path):
                if sample.caption:
                    (folder / sample.caption).write_text(sample.code, "utf-8")
                if "run" in sample.classes:
                    self.assertEqual(self._session(sample, folder), sample.code, sample.place)

    def _session(self, sample: Sample, folder: Path) -> str:
        shown = []
        for command in sample.commands():
            program, *words = shlex.split(command)
            self.assertEqual(program, "scalingo-proxy", sample.place)
            printed = run(
                sys.executable, "-m", "scalingo_proxy", *words, cwd=folder, PYTHONPATH=str(CHECKOUT)
            )
            shown.append(f"$ {command}\n{printed.stdout}")
        return "".join(shown)

    def test_commands_are_understood(self) -> None:
        """Every other command names subcommands, options and targets that there are."""
        for sample in all_samples("console"):
            if "run" not in sample.classes:
                for command in sample.commands():
                    self._understand(sample, shlex.split(command, comments=True))

    def _understand(self, sample: Sample, words: list[str]) -> None:
        program = words[0].rpartition("/")[2]
        if program == "scalingo-proxy":
            # Nothing listens at port 1: the command is understood and then finds no proxy.
            silence = io.StringIO()
            with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                try:
                    status: Any = main([*words[1:], "--admin", "127.0.0.1:1"])
                except SystemExit as leaving:
                    status = leaving.code
            self.assertNotEqual(status, 2, f"{sample.place}: {silence.getvalue()}")
        elif program in ("twistd", "twist"):
            Options().parseOptions(words[words.index("scalingo-proxy") + 1 :])
        elif program == "make":
            makefile = (CHECKOUT / "Makefile").read_text("utf-8")
            self.assertRegex(makefile, rf"(?m)^{words[1]}:", sample.place)
        elif program == "python" and "-c" in words:
            compile(words[-1], sample.place, "exec")
        elif words[1:3] == ["-m", "tests.soak"]:
            soak_options().parse_args(words[3:])
        elif program == "python":
            self.assertEqual(words[1:3], ["-m", "twisted.trial"], sample.place)
        elif program == "coverage":
            self.assertIn(words[1], ("run", "combine", "report"), sample.place)
        elif program == "python3":
            self.assertEqual(words[1:3], ["-m", "http.server"], sample.place)
        else:
            self.assertEqual(program, "curl", sample.place)
            self.assertTrue(any(re.match("https?://", word) for word in words), sample.place)
