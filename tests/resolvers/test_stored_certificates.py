"""Certificates in the embedded store, and its file."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

import scalingo_proxy
from scalingo_proxy.errors import ConfigurationError, ResolverUnavailable
from scalingo_proxy.interfaces import ICertificateFeed
from scalingo_proxy.model import App, Certificate, CertificateChange, TopologyChange
from scalingo_proxy.resolvers.certificate_feed import CertificateFeed
from scalingo_proxy.resolvers.store import StoreResolver
from scalingo_proxy.resolvers.store_file import SCHEMA, StoreFile


def cert(name: str, chain: bytes = b"chain", key: bytes = b"key") -> Certificate:
    """What :func:`read` makes of it."""
    return Certificate(name, chain, key, (f"{name}.example",), 0.0, 1.0, "")


def read(name: str, chain: bytes, key: bytes) -> Certificate:
    if not chain.startswith(b"chain"):
        raise ValueError("it is no chain")
    return cert(name, chain, key)


A, B = cert("a"), cert("b", b"chain of b", b"secret of b")


class FeedTests(SynchronousTestCase):
    """What all sources have in common."""

    def setUp(self) -> None:
        self.feed = CertificateFeed()
        self.told: list[CertificateChange] = []
        self.leave = self.feed.watch(self.told.append)

    def test_interface(self) -> None:
        """It is a feed."""
        verifyObject(ICertificateFeed, self.feed)

    def test_difference(self) -> None:
        """Watchers hear of what differs, and of nothing else."""
        self.feed.take_over(CertificateChange((A, B), ("nobody",)))
        self.feed.take_over(CertificateChange((A,), ()))
        new = cert("a", b"chain of a")
        self.feed.take_over(CertificateChange((new, B), ()))
        self.feed.take_over(CertificateChange((), ("b", "b")))
        self.leave()
        self.feed.take_over(CertificateChange((B,)))
        self.assertEqual(
            self.told,
            [CertificateChange((A, B)), CertificateChange((new,)), CertificateChange((), ("b",))],
        )
        self.assertEqual(dict(self.feed.certificates()), {"a": new, "b": B})

    def test_failing_watcher(self) -> None:
        """One that fails keeps no other from hearing."""
        later: list[CertificateChange] = []
        self.feed.watch(lambda change: 1 / 0)
        self.feed.watch(later.append)
        self.feed.take_over(CertificateChange((A,)))
        self.assertEqual(later, [CertificateChange((A,))])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class FileTests(SynchronousTestCase):
    """The table in the file."""

    def setUp(self) -> None:
        self.path = self.mktemp()

    def opened(self) -> StoreFile:
        file = StoreFile(self.path, lock_timeout=0.05)
        self.addCleanup(file.close)
        file.open()
        return file

    def rewrite(self, *certificates: Certificate, removed: tuple[str, ...] = ()) -> None:
        file = self.opened()
        file.write_certificates(CertificateChange(certificates, removed))
        file.close()

    def names(self) -> dict[str, Certificate]:
        file = self.opened()
        loaded = file.load_certificates(read)
        file.close()
        return {each.name: each for each in loaded}

    def test_round_trip(self) -> None:
        """They come back as they were; later changes exchange and remove."""
        self.assertEqual(self.names(), {})
        self.rewrite(A, B)
        self.assertEqual(self.names(), {"a": A, "b": B})
        new = cert("a", b"chain of a")
        self.rewrite(new, removed=("b", "nobody"))
        self.assertEqual(self.names(), {"a": new})

    def test_beside_apps(self) -> None:
        """Apps and certificates of one name have nothing to do with each other."""
        file = self.opened()
        file.write(TopologyChange((App("a", ["a.example"]),)))
        file.write_certificates(CertificateChange((A,)))
        file.write(TopologyChange((), ("a",)))
        self.assertEqual(file.load_certificates(read), (A,))

    def test_keys_do_not_stay(self) -> None:
        """A key that was exchanged or removed is not in the file any more."""
        self.rewrite(A, cert("c", b"chain", b"KEY THAT WAS EXCHANGED"), cert("d", b"chain", b"KEY REMOVED"))
        self.rewrite(cert("c"), removed=("d",))
        with open(self.path, "rb") as file:
            content = file.read()
        self.assertNotIn(b"KEY THAT WAS EXCHANGED", content)
        self.assertNotIn(b"KEY REMOVED", content)

    def test_mode(self) -> None:
        """Nobody else may read the file."""
        self.rewrite(A)
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_older_file(self) -> None:
        """A store from before there were certificates is brought up to date, apps and all."""
        connection = sqlite3.connect(self.path)
        connection.execute(
            "CREATE TABLE apps (name TEXT NOT NULL PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID"
        )
        connection.execute("""INSERT INTO apps VALUES ('x', '{"name": "x", "domains": ["x.example"]}')""")
        connection.execute("PRAGMA application_id = 0x53505859")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
        connection.close()
        self.rewrite(A)
        self.assertEqual(list(self.names()), ["a"])
        file = self.opened()
        self.assertEqual(list(file.load("store").apps), ["x"])
        file.close()
        version = sqlite3.connect(self.path).execute("PRAGMA user_version").fetchone()[0]
        self.assertEqual(version, SCHEMA)

    def test_damaged(self) -> None:
        """Every one that cannot be read is named, and nothing of it told."""
        file = self.opened()
        file.write_certificates(CertificateChange((cert("x", b"odd"), A, cert("y", b"odd", b"SECRET"))))
        error = self.assertRaises(ConfigurationError, file.load_certificates, read)
        self.assertEqual(len(error.mistakes), 2)
        self.assertIn("damaged certificate 'x': it is no chain", str(error))
        self.assertIn("damaged certificate 'y'", str(error))
        self.assertNotIn("SECRET", str(error))


class StoreCase(TestCase):
    """A store on a file."""

    timeout = 60

    def setUp(self) -> None:
        self.path = self.mktemp()

    async def started(self, path: str | None = None, reader: Any = read) -> StoreResolver:
        store = StoreResolver(
            self.path if path is None else path, reactor, lock_timeout=0.05, read_certificate=reader
        )
        self.addCleanup(store.stop)
        await store.start()
        return store


class StoreTests(StoreCase):
    """The store around the file."""

    async def test_kept(self) -> None:
        """What was acknowledged is there after a restart."""
        store = await self.started()
        await store.certificates.set(A)
        await store.certificates.set(B)
        await store.certificates.remove("a")
        await store.stop()
        store = await self.started()
        self.assertEqual(dict(store.certificates.certificates()), {"b": B})

    async def test_told_once_it_is_safe(self) -> None:
        """Watchers hear after the commit, in time for whoever asked."""
        store = await self.started()
        told: list[CertificateChange] = []
        store.certificates.watch(told.append)
        setting = store.certificates.set(A)
        self.assertEqual((told, dict(store.certificates.certificates())), ([], {}))
        await setting
        self.assertEqual(told, [CertificateChange((A,))])

    async def test_loaded_before_the_apps(self) -> None:
        """When an app is told, its certificate has been."""
        store = await self.started()
        await store.set_app(App("x", ["x.example"], certificate="a"))
        await store.certificates.set(A)
        await store.stop()
        store = StoreResolver(self.path, reactor, read_certificate=read)
        self.addCleanup(store.stop)
        known: list[list[str]] = []
        store.watch(lambda change: known.append(list(store.certificates.certificates())))
        await store.start()
        self.assertEqual(known, [["a"]])

    async def test_without_a_file(self) -> None:
        """In memory it is the same, without the disk."""
        store = await self.started("")
        await store.certificates.set(A)
        self.assertEqual(dict(store.certificates.certificates()), {"a": A})
        await store.stop()
        await store.start()
        self.assertEqual(dict(store.certificates.certificates()), {"a": A})

    async def test_without_a_reader(self) -> None:
        """A program that does not serve certificates leaves them where they are."""
        store = await self.started()
        await store.certificates.set(A)
        await store.stop()
        store = await self.started(reader=None)
        self.assertEqual(dict(store.certificates.certificates()), {})
        await store.stop()
        store = await self.started()
        self.assertEqual(dict(store.certificates.certificates()), {"a": A})

    async def test_refused(self) -> None:
        """What is not there cannot be removed, and a store that is not open changes nothing."""
        store = await self.started()
        with self.assertRaises(KeyError):
            await store.certificates.remove("a")
        await store.stop()
        with self.assertRaises(ResolverUnavailable):
            await store.certificates.set(A)
        with self.assertRaises(ResolverUnavailable):
            await store.certificates.remove("a")

    async def test_damaged(self) -> None:
        """A damaged one keeps the store from starting, with a sentence."""
        store = await self.started()
        await store.certificates.set(cert("x", b"odd"))
        await store.stop()
        store = StoreResolver(self.path, reactor, read_certificate=read)
        with self.assertRaises(ConfigurationError) as caught:
            await store.start()
        self.assertIn("damaged certificate 'x'", str(caught.exception))

    def test_not_started(self) -> None:
        """Before the store is started there is none, and none can be told."""
        store = StoreResolver("", Clock())
        self.failureResultOf(store.certificates.set(A), ResolverUnavailable)


#: Writes certificate after certificate and tells each acknowledgement, until it is killed.
WRITER = """
import sys
from twisted.internet import reactor
from twisted.internet.task import react
from scalingo_proxy.model import Certificate
from scalingo_proxy.resolvers.store import StoreResolver

def read(name, chain, key):
    return Certificate(name, chain, key, (), 0.0, 1.0, "")

async def main(reactor):
    store = StoreResolver(sys.argv[1], reactor, read_certificate=read)
    await store.start()
    number = len(store.certificates.certificates())
    while True:
        await store.certificates.set(Certificate(f"c{number}", b"chain", b"k" * 2000, (), 0.0, 1.0, ""))
        print(number, flush=True)
        number += 1

react(main)
"""


class Writer(ProcessProtocol):
    """A process that writes, and is killed after some acknowledgements."""

    def __init__(self, kill_after: int) -> None:
        self.lines: list[bytes] = []
        self.errors = b""
        self.ended: Deferred[BaseException | None] = Deferred()
        self._kill_after = kill_after
        self._partial = b""

    def outReceived(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.lines += lines
        if len(self.lines) >= self._kill_after and self.transport.pid is not None:
            self.transport.signalProcess("KILL")

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(reason.value)


class KilledTests(StoreCase):
    """kill -9."""

    async def test_killed(self) -> None:
        """Every certificate that was acknowledged before a SIGKILL is there after it."""
        root = os.path.dirname(os.path.dirname(os.path.abspath(scalingo_proxy.__file__)))
        for kill_after in (1, 20):
            writer = Writer(kill_after)
            words = [sys.executable, "-c", WRITER, self.path]
            reactor.spawnProcess(writer, sys.executable, words, env={**os.environ, "PYTHONPATH": root})
            reason = await writer.ended
            self.assertEqual(getattr(reason, "signal", None), signal.SIGKILL, writer.errors.decode())
            store = await self.started(reader=lambda *parts: cert(*parts))
            kept = store.certificates.certificates()
            for line in writer.lines:
                self.assertEqual(kept[f"c{int(line)}"].key, b"k" * 2000)
            await store.stop()
