"""A process that may open few files, and more clients than that."""

from __future__ import annotations

import resource

from tests.integration.programs import IntegrationTestCase
from tests.integration.servers import SocketServer
from tests.integration.test_many_connections import ASK, answer_ok, read_answer


class DescriptorTests(IntegrationTestCase):
    """Those who are here are served; the others wait, and come in when there is room."""

    def test_more_clients_than_descriptors(self) -> None:
        """400 clients of a process with 256 descriptors: none is refused, and it stays in charge."""
        server = SocketServer(answer_ok)
        self.addCleanup(server.close)
        proxy = self.start_proxy(self.app("hello", [server.address]))
        soft, hard = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (256, hard))
        self.assertGreater(soft, 256)
        clients = []
        for _ in range(400):
            client = proxy.connect()
            self.addCleanup(client.close)
            clients.append(client)
        for _ in range(20):
            clients[0].sendall(ASK)
            self.assertTrue(read_answer(clients[0]).startswith(b"HTTP/1.1 200"))
        self.assertEqual(proxy.admin("GET", "/live")[0], 200)
        for client in clients:
            client.sendall(ASK)
            self.assertTrue(read_answer(client).startswith(b"HTTP/1.1 200"))
            client.close()
        self.assertNotIn("Traceback", proxy.output)
        self.assertEqual([line for line in proxy.request_log() if " status=200 " not in line], [])
