"""What the kernel tells of real sockets: bytes under way, and a peer that has gone."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.protocols.progress import SendProgress, is_alive


class OverSocket:
    """As much of a transport as is asked."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def getHandle(self) -> Any:
        return self.handle


class OverTransport:
    """A TLS transport of Twisted: its handle is no socket, that of its transport is one."""

    def __init__(self, transport: OverSocket) -> None:
        self.transport = transport

    def getHandle(self) -> object:
        return object()


class SocketTestCase(SynchronousTestCase):
    """Two ends of a TCP connection on the loopback."""

    def setUp(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.near = socket.create_connection(listener.getsockname())
        self.far, _ = listener.accept()
        listener.close()
        self.near.setblocking(False)
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.transport = OverSocket(self.near)

    def fill(self) -> None:
        """Write until the kernel takes no more."""
        try:
            while True:
                self.near.send(b"x" * 65536)
        except BlockingIOError:
            pass

    def soon(self, condition: Callable[[], bool]) -> bool:
        """Whether the kernel makes it true within a few seconds; it has no callback to wait for."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if condition():
                return True
        return False


class SendProgressTests(SocketTestCase):
    """Does a slow reader still read?"""

    def test_nothing_under_way(self) -> None:
        """Where nothing waits, nothing moves."""
        progress = SendProgress()
        self.assertFalse(progress.has_moved(self.transport))
        self.assertFalse(progress.has_moved(self.transport))

    def test_first_look(self) -> None:
        """Bytes that wait when nobody has looked before may be moving."""
        self.fill()
        self.assertTrue(SendProgress().has_moved(self.transport))

    def test_reader_stands_still(self) -> None:
        """Bytes that wait as they did are not moving."""
        self.fill()
        progress = SendProgress()
        # The far side's buffer fills in a moment of its own.
        self.assertTrue(self.soon(lambda: not progress.has_moved(self.transport)))
        self.assertFalse(progress.has_moved(self.transport))

    def test_reader_reads(self) -> None:
        """A reader that takes some is seen."""
        self.fill()
        progress = SendProgress()
        self.assertTrue(self.soon(lambda: not progress.has_moved(self.transport)))
        self.far.recv(1_000_000)
        self.far.recv(1_000_000)
        self.assertTrue(self.soon(lambda: progress.has_moved(self.transport)))

    def test_noted(self) -> None:
        """After a note it is the movement since then that counts."""
        self.fill()
        progress = SendProgress()
        self.assertTrue(self.soon(lambda: not progress.has_moved(self.transport)))
        progress.note(self.transport)
        self.assertFalse(progress.has_moved(self.transport))

    def test_tls(self) -> None:
        """A TLS transport is asked through the one it runs on."""
        self.fill()
        self.assertTrue(SendProgress().has_moved(OverTransport(self.transport)))

    def test_no_socket(self) -> None:
        """Where there is no socket nothing moves."""
        for transport in (object(), OverSocket(object()), OverTransport(OverSocket(None))):
            progress = SendProgress()
            progress.note(transport)
            self.assertFalse(progress.has_moved(transport))

    def test_closed_socket(self) -> None:
        """Nor on a socket that is closed."""
        self.near.close()
        self.assertFalse(SendProgress().has_moved(self.transport))

    def test_lost_transport(self) -> None:
        """A TCP transport of Twisted that was lost has no socket left to ask for."""
        del self.transport.handle
        self.assertFalse(SendProgress().has_moved(self.transport))


class IsAliveTests(SocketTestCase):
    """Is an idle peer still there?"""

    def test_silent_peer(self) -> None:
        """A peer that says nothing is there."""
        self.assertTrue(is_alive(self.transport))

    def test_closed_peer(self) -> None:
        """A peer that closed is not."""
        self.far.close()
        self.assertTrue(self.soon(lambda: not is_alive(self.transport)))

    def test_reset(self) -> None:
        """Nor one that reset."""
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.far.close()
        self.assertTrue(self.soon(lambda: not is_alive(self.transport)))

    def test_bytes_unasked(self) -> None:
        """One that speaks unasked is of no use either; what it said stays unread."""
        self.far.send(b"evil")
        self.assertTrue(self.soon(lambda: not is_alive(self.transport)))
        self.assertEqual(self.near.recv(10), b"evil")

    def test_no_socket(self) -> None:
        """Where there is no socket, nothing says it is gone."""
        for transport in (object(), OverSocket(object())):
            self.assertTrue(is_alive(transport))
