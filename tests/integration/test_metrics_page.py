"""The metrics page of a running proxy, read by those who read such pages."""

from __future__ import annotations

import subprocess

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.programs import IntegrationTestCase, needs_program


class MetricsPageTests(IntegrationTestCase):
    """After some traffic of every kind."""

    def page(self) -> str:
        nginx = self.start_nginx()
        proxy = self.start_proxy(self.app("hello", [nginx.address]))
        for host in ("hello.test", "nobody.test", 'a"b\\'):
            proxy.request("/hello", host=host)
        status, page = proxy.admin("GET", "/metrics")
        self.assertEqual(status, 200)
        assert isinstance(page, str)
        return page

    def test_prometheus_client(self) -> None:
        """It parses, no family is told twice, and each sample belongs to its family."""
        families = list(text_string_to_metric_families(self.page()))
        names = [family.name for family in families]
        self.assertEqual(len(names), len(set(names)))
        samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }
        counted = ("scalingo_proxy_requests_total", ("app", "hello"), ("code", "2xx"), ("listener", "http"))
        self.assertEqual(samples[counted], 1)
        self.assertEqual(samples[("scalingo_proxy_first_byte_duration_seconds_count",)], 1)
        self.assertEqual(samples[("scalingo_proxy_worker_up", ("worker", "0"))], 1)
        self.assertLess(samples[("scalingo_proxy_reactor_lag_seconds",)], 30)

    def test_promtool(self) -> None:
        """The checker of Prometheus itself has nothing to say."""
        promtool = needs_program("promtool", "take it from the package prometheus, as .ci/run does")
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=self.page().encode("utf-8"),
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, b""))
