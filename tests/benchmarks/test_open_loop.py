"""The load of the latency rows is what it says."""

from __future__ import annotations

import itertools
import socket
import statistics
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.benchmarks.open_loop import WARM_UP_SECONDS, measured, moments

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class MomentsTests(SynchronousTestCase):
    """When requests are sent."""

    def test_random(self) -> None:
        """Distances are exponential: as many below their mean, and as spread, as it has to be."""
        drawn = list(moments("random", 1000.0, 20.0, 32, seed=1))
        distances = [after - before for before, after in itertools.pairwise(drawn)]
        mean = statistics.mean(distances)
        self.assertApproximates(mean, 1e-3, 2e-5)
        self.assertApproximates(statistics.stdev(distances), mean, 5e-5)
        self.assertApproximates(sum(each < mean for each in distances) / len(distances), 0.632, 0.01)
        self.assertEqual(drawn, list(moments("random", 1000.0, 20.0, 32, seed=1)))

    def test_even(self) -> None:
        """One by one, at the same distance."""
        self.assertEqual(list(moments("even", 4.0, 1.0, 32, seed=1)), [0.0, 0.25, 0.5, 0.75])

    def test_bursts(self) -> None:
        """As many at once as there are connections, and the same rate."""
        self.assertEqual(list(moments("bursts", 4.0, 1.0, 2, seed=1)), [0.0, 0.0, 0.5, 0.5])


class MeasuredTests(SynchronousTestCase):
    """Against a backend that stands still once."""

    def setUp(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        self.lock = threading.Lock()
        self.answered = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        for _ in range(2):
            connection, _ = self.listening.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            while connection.recv(65536):
                with self.lock:
                    self.answered += 1
                    if self.answered == 120:
                        time.sleep(0.4)
                connection.sendall(_ANSWER[:20])
                connection.sendall(_ANSWER[20:])

    def test_stall(self) -> None:
        """All who would have come meanwhile have waited, not only those whose requests were there."""
        port = self.listening.getsockname()[1]
        told = measured(port, "even", 200.0, 0.9, connections=2)
        took = told["took"]
        self.assertEqual(len(took), 180)  # what came first is not counted
        self.assertEqual(self.answered, round(200 * (0.9 + WARM_UP_SECONDS)))
        self.assertGreater(sum(each > 0.1 for each in took), 40)
        self.assertGreater(took[-1], 0.35)
        self.assertGreater(told["late"][-1], 0.3)
