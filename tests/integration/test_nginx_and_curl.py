"""The main job on real input: curl in front, nginx behind, the proxy between."""

from __future__ import annotations

import os
import re

from tests.integration.programs import IntegrationTestCase, curl

MEGABYTE = 1024 * 1024


class NginxTests(IntegrationTestCase):
    """Requests of every kind through a proxy to nginx."""

    def setUp(self) -> None:
        self.nginx = self.start_nginx()
        limits = "[limits]\nbody_bytes = 2000000000\n"
        self.proxy = self.start_proxy(limits + self.app("hello", [self.nginx.address]))
        self.url = f"http://127.0.0.1:{self.proxy.port}"
        self.host = ("--header", "Host: hello.test")

    def test_get(self) -> None:
        """GET gives nginx's own answer."""
        answer = curl("--include", *self.host, f"{self.url}/hello")
        self.assertTrue(answer.startswith("HTTP/1.1 200 OK\r\nServer: nginx/"), answer)
        self.assertTrue(answer.endswith("\r\n\r\nhello from nginx"), answer)

    def test_head(self) -> None:
        """HEAD gives the length and nothing else, and the connection lives on."""
        answer = curl("--head", *self.host, f"{self.url}/hello", "--next", *self.host, f"{self.url}/hello")
        self.assertIn("Content-Length: 16\r\n", answer)
        self.assertTrue(answer.endswith("hello from nginx"), answer)

    def test_ranges(self) -> None:
        """Ranges and conditional requests are the backend's business and pass through."""
        with open(os.path.join(self.nginx.directory, "www", "text"), "w") as file:
            file.write("0123456789" * 100)
        self.assertEqual(curl("--range", "995-", *self.host, f"{self.url}/text"), "56789")
        answer = curl("--include", "--range", "0-1,5-6", *self.host, f"{self.url}/text")
        self.assertIn("206 Partial Content", answer)
        self.assertIn("multipart/byteranges", answer)
        etag = re.search(r'ETag: ("[^"]+")', curl("--head", *self.host, f"{self.url}/text"))
        assert etag is not None
        answer = curl("--include", *self.host, "--header", f"If-None-Match: {etag[1]}", f"{self.url}/text")
        self.assertIn("304 Not Modified", answer)

    def test_large_posts(self) -> None:
        """100 MB arrive whole, with a length and chunked, with and without Expect."""
        size = 100 * MEGABYTE
        path = self.nginx.sparse_file("upload", size)
        for headers in (
            (),
            ("--header", "Transfer-Encoding: chunked"),
            ("--header", "Expect:"),
            ("--header", "Transfer-Encoding: chunked", "--header", "Expect:"),
        ):
            answer = curl("--data-binary", f"@{path}", *self.host, *headers, f"{self.url}/count")
            self.assertEqual(answer, str(size))

    def test_too_large_post(self) -> None:
        """Beyond body_bytes the client gets its 413 while it still sends."""
        small = self.start_proxy(self.app("hello", [self.nginx.address]))
        path = self.nginx.sparse_file("upload", 100 * MEGABYTE)
        for headers in ((), ("--header", "Transfer-Encoding: chunked"), ("--header", "Expect:")):
            answer = curl(
                "--include",
                "--data-binary",
                f"@{path}",
                *self.host,
                *headers,
                f"http://127.0.0.1:{small.port}/count",
            )
            self.assertIn("X-Scalingo-Error: body-too-large", answer)

    def test_gigabyte_download(self) -> None:
        """1 GB passes through without staying in memory."""
        size = 1024 * MEGABYTE
        self.nginx.sparse_file("big", size)
        curl(*self.host, f"{self.url}/hello")
        before = self.proxy.resident_bytes()
        told = curl("--output", os.devnull, "--write-out", "%{size_download}", *self.host, f"{self.url}/big")
        self.assertEqual(told, str(size))
        self.assertLess(self.proxy.resident_bytes() - before, 30 * MEGABYTE)

    def test_unknown_host(self) -> None:
        """A host nobody claims gets the router's own 404, and the code is in the log."""
        answer = curl("--include", "--header", "Host: nobody.test", f"{self.url}/")
        self.assertIn("404 Not Found", answer)
        self.assertIn("X-Scalingo-Error: unknown-host; ", answer)
