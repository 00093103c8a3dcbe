"""Listeners on real sockets: ports that are taken, socket files, and the real addresses."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from scalingo_proxy.errors import ConfigurationError
from scalingo_proxy.services.listeners import Listener, ListenersService


class Greeter(Protocol):
    """Says the name of its factory, and goes."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self.factory.greeting)  # type: ignore[union-attr]
        self.transport.loseConnection()


class GreeterFactory(Factory):
    noisy = False
    protocol = Greeter

    def __init__(self, greeting: bytes = b"hello") -> None:
        self.greeting = greeting


class RealSocketTests(TestCase):
    """Everything on loopback and on ports that the system chooses."""

    def started(self, *endpoints: str) -> ListenersService:
        """A running service, stopped after the test."""
        service = ListenersService(reactor, [self.listener(endpoint) for endpoint in endpoints])
        service.privilegedStartService()
        service.startService()
        self.addCleanup(lambda: service.stopService() if service.running else None)
        return service

    def listener(self, endpoint: str, greeting: bytes = b"hello") -> Listener:
        return Listener("http", endpoint, GreeterFactory(greeting), "[[listen]]")

    def connect(self, address: str | tuple[str, int]) -> socket.socket:
        """A client that has connected: the kernel accepts for a port that listens."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        client = socket.socket(family, socket.SOCK_STREAM)
        self.addCleanup(client.close)
        client.connect(address)
        return client

    def can_connect(self, address: str | tuple[str, int]) -> bool:
        """Whether somebody listens there."""
        try:
            self.connect(address)
        except OSError:
            return False
        return True

    def socket_path(self) -> str:
        """A path in a new directory, short enough for a socket."""
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        return os.path.join(directory, "s")

    async def test_port_zero(self) -> None:
        """The port that the system chose is told, and is closed at the stop."""
        service = self.started("127.0.0.1:0")
        (port,) = service.ports
        self.assertGreater(port.port, 0)
        self.assertEqual(port.text, f"127.0.0.1:{port.port}")
        self.assertTrue(self.can_connect(("127.0.0.1", port.port)))
        await service.stopService()
        self.assertFalse(self.can_connect(("127.0.0.1", port.port)))

    async def test_busy_port(self) -> None:
        """A port that is taken is told in one sentence, raised to whoever starts the service."""
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        port = taken.getsockname()[1]
        service = ListenersService(
            reactor, [self.listener("127.0.0.1:0"), self.listener(f"127.0.0.1:{port}")]
        )
        error = self.assertRaises(ConfigurationError, service.privilegedStartService)
        self.assertEqual(
            str(error),
            f'[[listen]]: cannot listen on "127.0.0.1:{port}": port {port} is in use by another program',
        )
        await service.stopService()

    async def test_address_of_another_machine(self) -> None:
        """An address that this machine does not have is told as such (RFC 5737)."""
        service = ListenersService(reactor, [self.listener("192.0.2.1:0")])
        error = self.assertRaises(ConfigurationError, service.startService)
        self.assertIn("this machine has no address 192.0.2.1", str(error))

    async def test_missing_directory(self) -> None:
        """A socket in a directory that is not there is told as such, with and without a lock file."""
        for option in ("", ":lockfile=0"):
            service = ListenersService(reactor, [self.listener(f"unix:/nonexistent/x{option}")])
            error = self.assertRaises(ConfigurationError, service.startService)
            self.assertIn('there is no directory "/nonexistent"', str(error))

    async def test_unix_socket(self) -> None:
        """A socket file has the mode asked for, answers, and is removed at the stop."""
        path = self.socket_path()
        service = self.started(f"unix:{path}:mode=600")
        self.assertEqual(service.ports[0].text, f"unix:{path}")
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.assertTrue(self.can_connect(path))
        await service.stopService()
        self.assertEqual(os.listdir(os.path.dirname(path)), [])

    async def test_abandoned_socket(self) -> None:
        """A socket file that a killed process left behind is replaced."""
        for option in ("", ":lockfile=0"):
            path = self.socket_path()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as killed:
                killed.bind(path)
            os.symlink(str(os.getpid()), path + ".lock")  # its process id was given out again
            service = self.started(f"unix:{path}{option}")
            self.assertTrue(self.can_connect(path))
            await service.stopService()

    async def test_socket_in_use(self) -> None:
        """A socket file that somebody listens on stays theirs."""
        for option in ("", ":lockfile=0"):
            path = self.socket_path()
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as theirs:
                theirs.bind(path)
                theirs.listen()
                service = ListenersService(reactor, [self.listener(f"unix:{path}{option}")])
                error = self.assertRaises(ConfigurationError, service.startService)
                self.assertIn("another program listens there", str(error))
                self.assertTrue(self.can_connect(path))

    async def test_file_in_the_way(self) -> None:
        """A file that is no socket is left alone."""
        path = self.socket_path()
        with open(path, "w") as file:
            file.write("precious")
        service = ListenersService(reactor, [self.listener(f"unix:{path}:lockfile=0")])
        error = self.assertRaises(ConfigurationError, service.startService)
        self.assertIn("there is a file of that name that is no socket", str(error))
        with open(path) as file:
            self.assertEqual(file.read(), "precious")

    async def test_reload_keeps_connections_waiting(self) -> None:
        """A client that waits to be accepted while a door changes hands is served by the new factory."""
        service = self.started("127.0.0.1:0")
        address = ("127.0.0.1", service.ports[0].port)
        client = self.connect(address)  # the reactor does not run, so nobody has accepted it
        await service.reconcile(
            [self.listener("127.0.0.1:0", b"new"), self.listener("127.0.0.1:0", b"other")]
        )
        self.assertEqual(service.ports[0].port, address[1])
        greeting = await deferToThread(client.recv, 100)
        self.assertEqual(greeting, b"new")

    async def test_removed_socket_file(self) -> None:
        """A socket file that was removed by hand does not hinder the stop."""
        path = self.socket_path()
        service = self.started(f"unix:{path}:lockfile=0")
        os.unlink(path)
        await service.stopService()
