"""What all that is measured shares: names of apps, certificates, backends, a place for files."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import time

from scalingo_proxy.protocols.tls_authority import Authority
from tests.benchmarks.machine import Cores
from tests.benchmarks.programs import Program, find_nginx, free_port

__all__ = ["BODY_BYTES", "BROWSER_HEADERS", "World", "host"]

BODY_BYTES = 64 * 1024 * 1024

#: What a browser sends beside ``Host``.
BROWSER_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language": "de,en-US;q=0.7,en;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Cookie": "session=4f1c2a9b8e7d6c5b4a39281706f5e4d3; theme=dark",
    "Sec-Fetch-Mode": "navigate",
}


def host(number: int) -> str:
    """The name of an app; one certificate covers them all."""
    return f"app{number}.bench.example"


class World:
    """The backends that every proxy has behind it, and the files they all use.

    :ivar directory: for files; gone at the end.
    :ivar http: the port of an nginx that answers 200 at once, has a body of
        64 MB at ``/body`` and takes as much at ``/upload``.
    :ivar bulk: a port that answers a first piece of anything with 64 MB.
    :ivar hello: one that answers it with one byte.
    :ivar syslog: a UDP port for logs that nobody reads.
    :ivar apps: how many apps each proxy is to know.
    """

    def __init__(self, apps: int) -> None:
        self.apps = apps
        self.cores = Cores()
        self._directory = tempfile.TemporaryDirectory(prefix="bench-")
        self.directory = self._directory.name
        os.chmod(self.directory, 0o755)
        self._programs: list[Program] = []
        self._sockets: list[socket.socket] = []
        self.authority = Authority.create("measured", time.time())
        certificate, key = self.authority.issue(["*.bench.example"], time.time())
        self.certificate = self._file("certificate.pem", certificate)
        self.key = self._file("key.pem", key)
        self.both = self._file("both.pem", certificate + key)
        log = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        log.bind(("127.0.0.1", 0))
        self._sockets.append(log)
        self.syslog: int = log.getsockname()[1]
        self.http = free_port()
        self.bulk, self.hello = free_port(), free_port()
        self._start_backends()

    def _file(self, name: str, content: bytes) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "wb") as file:
            file.write(content)
        return path

    def write(self, name: str, text: str) -> str:
        """A file with *text* in it; its path."""
        return self._file(name, text.encode())

    def _start_backends(self) -> None:
        body = self._file("body", b"")
        os.truncate(body, BODY_BYTES)
        configuration = self.write(
            "backend.conf",
            f"""
daemon off; worker_processes 1; pid {self.directory}/backend.pid; error_log stderr crit;
events {{ worker_connections 16384; }}
worker_rlimit_nofile 32768;
http {{
  access_log off; sendfile on; tcp_nodelay on; client_max_body_size 0; keepalive_requests 1000000000;
  client_body_temp_path {self.directory}/b1; proxy_temp_path {self.directory}/b2;
  fastcgi_temp_path {self.directory}/b3; uwsgi_temp_path {self.directory}/b4;
  scgi_temp_path {self.directory}/b5;
  server {{
    listen 127.0.0.1:{self.http} backlog=4096;
    location / {{ default_type text/plain; return 200 "{"hello world " * 10}"; }}
    location = /upload {{ client_body_buffer_size 65m; proxy_pass http://127.0.0.1:{self.http}/thanks; }}
    location = /thanks {{ return 200 "thanks"; }}
    location = /body {{ root {self.directory}; }}
  }}
}}
""",
        )
        nginx = self.start([find_nginx(), "-c", configuration], "backend")
        nginx.wait_for_port(self.http)
        raw = self.start(
            [sys.executable, "-m", "tests.benchmarks.raw_backend", str(self.bulk), str(self.hello), body],
            "raw-backend",
            os.getcwd(),
        )
        raw.wait_for_port(self.hello)

    def start(self, command: list[str], name: str, directory: str = "") -> Program:
        """A program that is not measured."""
        output = os.path.join(self.directory, f"{name}.out")
        program = Program(command, directory or self.directory, self.cores.rest, output)
        self._programs.append(program)
        return program

    def pids(self) -> list[int]:
        """The backends."""
        return [program.pid for program in self._programs]

    def end(self) -> None:
        """End the backends and take the files away."""
        for program in self._programs:
            program.end()
        for each in self._sockets:
            each.close()
        self._directory.cleanup()
