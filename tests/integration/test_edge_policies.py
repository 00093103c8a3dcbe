"""Address lists and rates on the running proxy: file, SIGHUP, admin API, restart."""

from __future__ import annotations

import os
import signal

from tests.integration.programs import IntegrationTestCase, ProxyProcess, wait_for
from tests.integration.servers import SocketServer
from tests.integration.test_many_connections import answer_ok


class EdgePolicyTests(IntegrationTestCase):
    """What an operator says is in effect when it was said."""

    def setUp(self) -> None:
        self.server = SocketServer(answer_ok)
        self.addCleanup(self.server.close)

    def status(self, proxy: ProxyProcess, host: str = "hello.test", **headers: str) -> int:
        return proxy.request("/", host, **headers)[0]

    def test_lists(self) -> None:
        """A file of thousands, read again on SIGHUP; a broken one changes nothing; the API's word stays."""
        folder = self.directory()
        networks = [f"10.{one}.{two}.0/24" for one in range(100) for two in range(100)]
        path = os.path.join(folder, "deny.txt")

        def write(*lines: str) -> None:
            with open(path, "w") as file:
                file.write("\n".join([*networks, *lines]))

        write()
        hello = self.app("hello", [self.server.address])
        rest = f'[access]\ndeny_files = ["deny.txt"]\n{hello}'
        trusting = 'endpoint = "tcp:0:interface=127.0.0.1"\ntrusted_proxies = ["127.0.0.1"]'
        config = self.config(rest, "state.db").replace('endpoint = "tcp:0:interface=127.0.0.1"', trusting)
        proxy = ProxyProcess(folder, config)
        self.addCleanup(proxy.end)
        proxy.wait_until_up()

        def seen_from(address: str) -> int:
            return self.status(proxy, **{"X-Forwarded-For": address})

        self.assertEqual([seen_from("10.99.99.7"), seen_from("10.100.0.1")], [403, 200])
        write("10.100.0.0/16")
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: seen_from("10.100.0.1") == 403, "the list to be read again")
        write("nonsense")
        proxy.signal(signal.SIGHUP)
        wait_for(lambda: f'"deny.txt" line {len(networks) + 1}: "nonsense"' in proxy.output, "the refusal")
        self.assertEqual(seen_from("10.100.0.1"), 403)
        write()
        status, told = proxy.admin("PUT", "/api/v1/access", {"deny": ["2001:db8::/32"]})
        self.assertEqual((status, told["deny"], told["file"]["deny"]), (200, ["2001:db8::/32"], 10_001))
        self.assertEqual([seen_from("2001:db8::1"), seen_from("2001:db9::1")], [403, 200])
        status, refusal = proxy.admin("PUT", "/api/v1/access", {"deny": ["10.0.0.1/8"]})
        self.assertEqual((status, refusal["error"]["field"]), (400, "deny[0]"))
        proxy.end()
        proxy = ProxyProcess(folder, config)
        self.addCleanup(proxy.end)
        proxy.wait_until_up()
        self.assertEqual([seen_from("2001:db8::1"), seen_from("10.1.1.1"), seen_from("::1")], [403, 403, 200])
        self.assertIn('denied_total{list="deny"} 2', proxy.admin("GET", "/metrics")[1])
        wait_for(lambda: any("code=denied" in line for line in proxy.request_log()), "the line of a refusal")

    def test_rate(self) -> None:
        """A limit that is put on a running app holds from the next request on, and others notice nothing."""
        proxy = self.start_proxy(
            self.app("hello", [self.server.address]) + self.app("other", [self.server.address])
        )
        limit = {"rate_limit": {"requests": 1, "per": 30.0, "burst": 3}, "access": {"deny": ["192.0.2.1"]}}
        self.assertEqual(proxy.admin("PATCH", "/api/v1/apps/hello", limit)[0], 200)
        statuses = [self.status(proxy) for _ in range(6)]
        self.assertEqual(statuses, [200, 200, 200, 429, 429, 429])
        _status, _body, headers = proxy.request()
        self.assertTrue(20 <= int(headers["Retry-After"]) <= 30, headers["Retry-After"])
        self.assertEqual(headers["X-Scalingo-Error"].partition(";")[0], "rate-limited")
        self.assertEqual([self.status(proxy, "other.test") for _ in range(6)], [200] * 6)
