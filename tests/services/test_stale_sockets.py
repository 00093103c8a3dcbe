"""Tests for :mod:`scalingo_proxy.services.stale_sockets`."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services.stale_sockets import clear_stale_socket


class ClearStaleSocketTests(SynchronousTestCase):
    """Which files are removed."""

    def setUp(self) -> None:
        directory = tempfile.mkdtemp()  # mktemp's paths may be longer than a socket's can be
        self.addCleanup(shutil.rmtree, directory)
        self.path = os.path.join(directory, "s")

    def bind(self) -> socket.socket:
        """A socket at the path; nobody listens yet."""
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(bound.close)
        bound.bind(self.path)
        return bound

    def lock(self) -> None:
        """Twisted's lock, held by a process that lives."""
        os.symlink(str(os.getpid()), self.path + ".lock")

    def test_abandoned(self) -> None:
        """A socket file whose process is gone is removed."""
        self.bind().close()
        self.assertTrue(clear_stale_socket(self.path))
        self.assertFalse(os.path.lexists(self.path))

    def test_abandoned_with_lock(self) -> None:
        """So is the lock beside it, even if its process id belongs to somebody now."""
        self.bind().close()
        self.lock()
        self.assertTrue(clear_stale_socket(self.path))
        self.assertFalse(os.path.lexists(self.path + ".lock"))

    def test_only_a_lock(self) -> None:
        """A lock without a socket is removed."""
        self.lock()
        self.assertTrue(clear_stale_socket(self.path))
        self.assertFalse(os.path.lexists(self.path + ".lock"))

    def test_listening(self) -> None:
        """A socket that answers stays, and so does its lock."""
        self.bind().listen(1)
        self.lock()
        self.assertFalse(clear_stale_socket(self.path))
        self.assertTrue(os.path.lexists(self.path) and os.path.lexists(self.path + ".lock"))

    def test_full_queue(self) -> None:
        """A socket whose queue of connections is full stays, and is not waited for."""
        self.bind().listen(0)
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.addCleanup(client.close)
            client.setblocking(False)
            client.connect_ex(self.path)
        self.assertFalse(clear_stale_socket(self.path))
        self.assertTrue(os.path.lexists(self.path))

    def test_no_socket(self) -> None:
        """A file that is no socket is never removed."""
        with open(self.path, "w"):
            pass
        self.lock()
        self.assertFalse(clear_stale_socket(self.path))
        self.assertTrue(os.path.lexists(self.path) and os.path.lexists(self.path + ".lock"))

    def test_nothing_there(self) -> None:
        """Where nothing is, nothing is removed."""
        self.assertFalse(clear_stale_socket(self.path))
        self.assertFalse(clear_stale_socket("/nonexistent/x"))
        self.assertFalse(clear_stale_socket("/dev/null/x"))
