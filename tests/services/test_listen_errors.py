"""Tests for :mod:`scalingo_proxy.services.listen_errors`."""

from __future__ import annotations

import errno
import os
import socket

from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.services.endpoint_strings import parse_endpoint
from scalingo_proxy.services.listen_errors import explain_listen_error


def explain(endpoint: str, number: int) -> str:
    """The sentence for an error of the system, without its beginning."""
    error = CannotListenError("", 1, OSError(number, os.strerror(number)))
    beginning, _, reason = explain_listen_error(parse_endpoint(endpoint), error).partition('": ')
    assert beginning == f'cannot listen on "{endpoint}', beginning
    return reason


class ExplainTests(SynchronousTestCase):
    """One sentence for each way to fail."""

    def test_tcp(self) -> None:
        """TCP ports that are busy, privileged or elsewhere."""
        self.assertEqual(explain("8080", errno.EADDRINUSE), "port 8080 is in use by another program")
        self.assertIn("no permission for port 80", explain("tcp:80", errno.EACCES))
        self.assertEqual(
            explain("192.0.2.1:80", errno.EADDRNOTAVAIL), "this machine has no address 192.0.2.1"
        )
        self.assertEqual(explain("[::1]:80", errno.EAFNOSUPPORT), "this machine has no IPv6")

    def test_unix(self) -> None:
        """Unix sockets that are taken, or whose directory is missing or closed."""
        self.assertEqual(explain("unix:/nonexistent/x", errno.EADDRINUSE), "another program listens there")
        self.assertEqual(explain("unix:/nonexistent/x", errno.ENOENT), 'there is no directory "/nonexistent"')
        self.assertEqual(explain("unix:/y/x", errno.EACCES), 'no permission to create a socket in "/y"')
        self.assertEqual(explain("unix:x", errno.EROFS), 'no permission to create a socket in "."')

    def test_file_in_the_way(self) -> None:
        """A file that is no socket is told as such."""
        self.assertEqual(
            explain("unix:/dev/null", errno.EADDRINUSE), "there is a file of that name that is no socket"
        )

    def test_lock(self) -> None:
        """Twisted's lock is held by whoever listens."""
        error = CannotListenError(None, b"/x", "Cannot acquire lock")
        sentence = explain_listen_error(parse_endpoint("unix:/nonexistent/x"), error)
        self.assertTrue(sentence.endswith(": another program listens there"), sentence)

    def test_systemd(self) -> None:
        """A socket that systemd did not hand down."""
        endpoint = parse_endpoint("systemd:domain=INET:index=3")
        self.assertTrue(
            explain_listen_error(endpoint, IndexError()).endswith("systemd handed down no such socket")
        )

    def test_anything_else(self) -> None:
        """Any other error is told in the words of the system."""
        self.assertEqual(explain("tcp:80", errno.EMFILE), os.strerror(errno.EMFILE).lower())
        raw = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        self.assertTrue(
            explain_listen_error(parse_endpoint("tcp:80"), raw).endswith(os.strerror(errno.ENOMEM).lower())
        )
        unresolved = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.assertIn("name or service not known", explain_listen_error(parse_endpoint("tcp:80"), unresolved))
