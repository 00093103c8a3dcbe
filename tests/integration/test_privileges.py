"""Started as root for a low port, and somebody with no rights from then on."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import stat
import unittest
from typing import Any

from tests.integration.programs import IntegrationTestCase, ProxyProcess, wait_for

_NOBODY, _NOGROUP = 65534, 65534


def _free_low_port() -> int:
    for port in range(700, 1023):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise unittest.SkipTest("no low port is free")


def _ask(path: str, method: str, target: str, body: str = "", token: str = "") -> tuple[int, bytes]:
    """Ask over a unix socket."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection.request(method, target, body or None, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@unittest.skipUnless(os.geteuid() == 0, "only root can give rights up")
class PrivilegesTests(IntegrationTestCase):
    """``twistd --uid nobody --gid nogroup``."""

    def test_given_up(self) -> None:
        """The port is bound before; store, log, token and socket are used by who is left, a reload too."""
        port = _free_low_port()
        folder = self.directory()
        os.chown(folder, _NOBODY, _NOGROUP)
        with open(os.path.join(folder, "token"), "w") as file:
            file.write("open-sesame\n")
        os.chmod(file.name, 0o600)
        config = f"""
[proxy]
state = "state.db"
[[listen]]
protocol = "http"
endpoint = "127.0.0.1:{port}"
[admin]
endpoint = "unix:{folder}/admin.sock"
token_file = "token"
[log]
destination = "{folder}/access.log"
"""
        started: Any = ProxyProcess(folder, config, twistd=("--uid", "nobody", "--gid", "nogroup"))
        self.addCleanup(started.end)
        # Who is left may not read the token that root alone may read, and says so.
        self.assertEqual(started.wait(), 1)
        self.assertRegex(started.output, r"admin\.token_file: \S*token: permission denied")

        os.chown(file.name, _NOBODY, _NOGROUP)
        proxy = ProxyProcess(folder, config, twistd=("--uid", "nobody", "--gid", "nogroup"))
        self.addCleanup(proxy.end)
        wait_for(lambda: "admin   unix:" in proxy.output or proxy.process.poll() is not None, "the banner")
        with open(f"/proc/{proxy.pid}/status") as status:
            found = re.findall(r"^(?:Uid|Gid|Groups):\s*(.*?)\s*$", status.read(), re.MULTILINE)
        self.assertEqual({number for line in found for number in line.split()}, {str(_NOBODY)})

        door = os.path.join(folder, "admin.sock")
        app = '{"domains": ["hello.test"], "backends": ["127.0.0.1:1"]}'
        wait_for(lambda: _ask(door, "GET", "/ready")[0] == 200, "readiness")
        self.assertEqual(_ask(door, "GET", "/api/v1/status")[0], 401)
        self.assertEqual(_ask(door, "PUT", "/api/v1/apps/hello", app, "open-sesame")[0], 201)
        proxy.port = port
        self.assertEqual(proxy.request()[0], 502)
        with open(proxy.config_path, "a") as more:
            more.write('[[app]]\nname = "later"\ndomains = ["later.test"]\nbackends = ["127.0.0.1:1"]\n')
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: proxy.request(host="later.test")[0] == 502, "the reload")
        for name in ("state.db", "state.db-wal", "admin.sock"):
            told = os.lstat(os.path.join(folder, name))
            self.assertEqual((told.st_uid, stat.S_IMODE(told.st_mode)), (_NOBODY, 0o600), name)
        log = os.path.join(folder, "access.log")
        self.assertEqual(os.stat(log).st_uid, _NOBODY)
        wait_for(lambda: os.path.getsize(log), "the request log")
        proxy.signal(signal.SIGTERM)
        self.assertEqual(proxy.wait(), 0)
        self.assertFalse(os.path.exists(door))
