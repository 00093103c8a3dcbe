"""The admin API over TLS: asked by the command line, verified, exchanged by a reload."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request

from scalingo_proxy.protocols.tls_authority import Authority
from tests.installations import CHECKOUT
from tests.integration.programs import IntegrationTestCase, ProxyProcess, wait_for


class AdminTLSTests(IntegrationTestCase):
    """A door that other machines may reach."""

    def issue(self, folder: str, authority: Authority) -> None:
        cert, key = authority.issue(["localhost"], time.time())
        for name, pem in (("admin.pem", cert), ("admin.key", key), ("ca.pem", authority.pem)):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(pem)

    def command(self, folder: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "scalingo_proxy", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_command_line(self) -> None:
        """Only who trusts the authority and has the token is answered."""
        folder = self.directory()
        self.issue(folder, Authority.create("admin test", time.time()))
        with open(os.path.join(folder, "token"), "w") as file:
            file.write("open-sesame\n")
        config = self.config(self.app("hello", ["127.0.0.1:1"])).replace(
            'endpoint = "127.0.0.1:0"',
            'endpoint = "tcp:0:interface=127.0.0.1"\ntoken_file = "token"\n'
            'certificate = { cert = "admin.pem", key = "admin.key" }',
        )
        proxy = ProxyProcess(folder, config)
        self.addCleanup(proxy.end)
        banner = re.compile(r"^  admin +(https)://127\.0\.0\.1:(\d+)/", re.MULTILINE)
        found = wait_for(lambda: banner.search(proxy.output), "the banner")
        address = f"https://localhost:{found[2]}"
        told = self.command(folder, "--admin", address, "--ca", "ca.pem", "--token-file", "token", "apps")
        self.assertEqual((told.returncode, "hello" in told.stdout), (0, True), told.stderr)
        untrusting = self.command(folder, "--admin", address, "--token-file", "token", "apps")
        self.assertEqual(untrusting.returncode, 3)
        self.assertIn("name the authority with --ca", untrusting.stderr)
        self.assertEqual(self.command(folder, "--admin", address, "--ca", "ca.pem", "apps").returncode, 1)
        plain = self.command(folder, "--admin", f"localhost:{found[2]}", "--token-file", "token", "apps")
        self.assertEqual(plain.returncode, 3)
        # A certificate that was exchanged is served after a reload.
        self.issue(folder, Authority.create("another", time.time()))
        proxy.signal(signal.SIGHUP)

        def is_exchanged() -> bool:
            context = ssl.create_default_context(cafile=os.path.join(folder, "ca.pem"))
            try:
                with urllib.request.urlopen(f"{address}/live", context=context, timeout=10) as answer:
                    return answer.status == 200
            except OSError:
                return False

        wait_for(is_exchanged, "the new certificate")

    def test_broken_files(self) -> None:
        """A mistake at the start, with its line, as everything else."""
        folder = self.directory()
        config = self.config().replace(
            'endpoint = "127.0.0.1:0"', 'endpoint = "127.0.0.1:0"\ncertificate = { cert = "a", key = "b" }'
        )
        proxy = ProxyProcess(folder, config)
        self.addCleanup(proxy.end)
        self.assertEqual(proxy.wait(), 1)
        self.assertRegex(proxy.output, r'proxy.toml:\d+: \[admin\] certificate cert: "a" cannot be read')
