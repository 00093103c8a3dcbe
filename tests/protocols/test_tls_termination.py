"""Ending TLS: the handshake, and the transport it leaves behind."""

from __future__ import annotations

import ssl
from random import Random
from typing import Any

from OpenSSL import SSL
from twisted.internet import _producer_helpers
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from twisted.internet.task import Clock, Cooperator
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import BadRequest, ClientClosed, ProxyError, RequestTimeout
from scalingo_proxy.protocols.tls_contexts import server_context
from scalingo_proxy.protocols.tls_termination import terminate
from scalingo_proxy.testing.transport_recorders import HalfCloseRecorder, PullRecorder, PushRecorder, Recorder
from scalingo_proxy.testing.transports import connected_pair
from scalingo_proxy.wire.tls_records import RECORD_BYTES
from tests.protocols.tls_clients import MemoryTLSClient, certificate, client_context, environment, rsa_key

A = certificate("a.example")
BOTH = (b"h2", b"http/1.1")
LONG = bytes(range(256)) * 8192  # 2 MiB: more than any buffer on the way


class Front(Recorder):
    """Takes the first bytes for the hello, and goes on with TLS."""

    def __init__(self, test: TerminationCase) -> None:
        super().__init__()
        self._test = test
        self.on_data = self._hello

    def _hello(self, data: bytes) -> None:
        self.transport.protocol = self._test.terminate(self.transport, data)


class TerminationCase(SynchronousTestCase):
    """A connection in memory, TLS on both ends."""

    inner_kind: type[Recorder] = HalfCloseRecorder
    cut = False
    latency = 0.0

    def setUp(self) -> None:
        self.clock = Clock()
        self.env = environment(self.clock)
        self.failures: list[ProxyError] = []
        self.negotiated: list[tuple[str, str | None]] = []
        self.context = server_context(A, BOTH)
        self.inner: Any = None
        self.tls: Any = None

    def terminate(self, transport: Any, received: bytes) -> Any:
        self.tls = terminate(
            self.env,
            transport,
            received,
            self.context,
            self.build,
            until=self.clock.seconds() + 10.0,
            on_failed=self.failures.append,
        )
        return self.tls

    def build(self, version: str, alpn: str | None) -> Recorder:
        self.negotiated.append((version, alpn))
        self.inner = self.inner_kind()
        return self.inner

    def connect(
        self, context: ssl.SSLContext | None = None, name: str = "a.example", session: Any = None
    ) -> MemoryTLSClient:
        """A client that is as far as it gets."""
        client = MemoryTLSClient(context or client_context(), name, session)
        self.near, self.far = connected_pair(
            self.clock, Front(self), client, cut=self.cut, random=Random(7), latency=self.latency
        )
        self.settle()
        return client

    def settle(self, seconds: float = 1.0) -> None:
        """Let everything happen that is going to, within *seconds*."""
        for _ in range(int(seconds / 0.01)):
            self.clock.advance(0.01)


class HandshakeTests(TerminationCase):
    """What comes before the protocol inside."""

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken, and which one it was is told."""
        for version, told in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            client = self.connect(client_context(minimum_version=version, maximum_version=version))
            self.assertEqual((client.tls.version(), self.negotiated[-1][0]), (told, told))

    def test_ciphers(self) -> None:
        """For TLS 1.2 exactly the suites that are documented, each for its kind of key."""
        wanted = {"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"}
        self.assertEqual(self.suites(), wanted)
        self.context = server_context(certificate("a.example", key=rsa_key()), BOTH)
        wanted = {name.replace("ECDSA", "RSA") for name in wanted} | {"DHE-RSA-AES256-GCM-SHA384"}
        self.assertEqual(self.suites(), wanted)

    def suites(self) -> set[str]:
        """Which suites of TLS 1.2 a client can have, offered one by one."""
        context = client_context(maximum_version=ssl.TLSVersion.TLSv1_2)
        context.set_ciphers("ALL:@SECLEVEL=0")
        names = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
        spoken = set()
        for name in names:
            try:
                context.set_ciphers(f"{name}:@SECLEVEL=0")
            except ssl.SSLError:
                continue
            client = self.connect(context)
            if client.is_established:
                spoken.add(client.tls.cipher()[0])
            client.transport.abortConnection()
        return spoken

    def test_alpn(self) -> None:
        """The server's favourite among the offers is chosen; without an offer, nothing is."""
        for offer, chosen in (
            (("http/1.1", "h2"), "h2"),
            (("h2",), "h2"),
            (("http/1.1",), "http/1.1"),
            (("acme/1", "http/1.1"), "http/1.1"),
            ((), None),
        ):
            client = self.connect(client_context(*offer))
            self.assertEqual((client.tls.selected_alpn_protocol(), self.negotiated[-1][1]), (chosen, chosen))

    def test_alpn_is_told(self) -> None:
        """The transport tells it as Twisted's does, and nothing when the connection is lost."""
        client = self.connect(client_context("h2"))
        transport = self.inner.transport
        self.assertEqual(transport.negotiatedProtocol, b"h2")
        client.transport.abortConnection()
        self.settle()
        self.assertEqual(transport.negotiatedProtocol, None)

    def test_alpn_without_h2(self) -> None:
        """Where HTTP/2 is off, it is not chosen."""
        self.context = server_context(A, (b"http/1.1",))
        client = self.connect(client_context("h2", "http/1.1"))
        self.assertEqual(client.tls.selected_alpn_protocol(), "http/1.1")

    def test_no_common_protocol(self) -> None:
        """Only unknown protocols: the alert of that name, one failure, nothing inside."""
        client = self.connect(client_context("imap", "pop3"))
        self.assertIn("no application protocol", str(client.error).lower())
        self.assertTrue(client.saw_fin)
        client.transport.loseConnection()
        self.settle()
        (failure,) = self.failures
        self.assertIsInstance(failure, BadRequest)
        self.assertIn("no application protocol", failure.detail)
        self.assertEqual(self.negotiated, [])

    def test_no_common_protocol_harms_nobody(self) -> None:
        """The refused handshake leaves nothing behind for the next operation of another connection."""
        other = self.connect()
        inner = self.inner
        self.connect(client_context("imap"))
        other.send(b"still there?")
        self.settle()
        self.assertEqual((inner.received, inner.reason), (b"still there?", None))

    def test_old_version(self) -> None:
        """A client that speaks only TLS 1.1 gets ``protocol_version``."""
        context = client_context()
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        client = self.connect(context)
        self.assertIn("protocol version", str(client.error).lower())
        client.transport.loseConnection()
        self.settle()
        (failure,) = self.failures
        self.assertIn("unsupported protocol", failure.detail)

    def test_client_refuses(self) -> None:
        """A client that does not trust the certificate says so in its alert."""
        client = self.connect(ssl.create_default_context())
        self.assertIn("certificate verify failed", str(client.error).lower())
        client.transport.loseConnection()
        self.settle()
        (failure,) = self.failures
        self.assertIsInstance(failure, BadRequest)
        self.assertIn("unknown ca", failure.detail)

    def test_client_leaves(self) -> None:
        """A client that goes away meanwhile was not refused."""
        client = MemoryTLSClient(client_context(), "a.example")
        connected_pair(self.clock, Front(self), client)
        client.transport.loseConnection()
        self.settle()
        (failure,) = self.failures
        self.assertIsInstance(failure, ClientClosed)

    def test_deadline(self) -> None:
        """A client that says no more is closed when the time is over, with one failure."""
        client = MemoryTLSClient(client_context(), "a.example")
        client.dataReceived = lambda data: None  # type: ignore[method-assign]
        connected_pair(self.clock, Front(self), client)
        self.settle(9.5)
        self.assertEqual((self.failures, client.reason), ([], None))
        self.settle(1.0)
        (failure,) = self.failures
        self.assertIsInstance(failure, RequestTimeout)
        assert client.reason is not None
        self.assertEqual(client.reason.type, ConnectionLost)

    def test_no_deadline_afterwards(self) -> None:
        """What is negotiated stays."""
        client = self.connect()
        self.settle(30.0)
        self.assertEqual((client.reason, self.inner.reason, self.failures), (None, None, []))

    def test_garbage(self) -> None:
        """Bytes that are no TLS end it with an alert."""
        raw = Recorder()
        connected_pair(self.clock, Front(self), raw)
        raw.transport.write(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00garbage")
        self.settle(4.0)
        self.assertEqual(raw.received[:1], b"\x15")
        self.assertEqual(len(self.failures), 1)

    def test_bytewise(self) -> None:
        """The hello and the rest may come in any pieces."""
        self.cut, self.latency = True, 0.001
        client = self.connect()
        client.send(b"ping")
        self.inner.transport.write(LONG)
        self.settle(20.0)
        self.assertEqual((self.inner.received, len(client.received)), (b"ping", len(LONG)))


class ResumptionTests(TerminationCase):
    """Sessions that go on where another one ended."""

    def again(self, first: str, second: str, context: ssl.SSLContext) -> bool:
        """Whether a session that began as *first* is resumed as *second*, with another context then."""
        client = self.connect(context, first)
        session = client.tls.session
        self.context, self.other = self.other, self.context
        client = self.connect(context, second, session)
        self.assertTrue(client.is_established)
        resumed = client.tls.session_reused
        assert resumed is not None
        return resumed

    def test_resumed(self) -> None:
        """Within one context a session resumes, in either version."""
        self.other = self.context
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(minimum_version=version, maximum_version=version)
            self.assertTrue(self.again("a.example", "a.example", context))

    def test_not_across_certificates(self) -> None:
        """A session of one certificate is not resumed with another one: the handshake is a full one."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            self.other = server_context(certificate("b.example"), BOTH)
            self.context = server_context(A, BOTH)
            context = client_context(minimum_version=version, maximum_version=version)
            self.assertFalse(self.again("a.example", "b.example", context))

    def test_not_across_a_swap(self) -> None:
        """A session of the old certificate is not resumed with the new one of the same name."""
        self.other = server_context(certificate("a.example"), BOTH)
        self.assertFalse(self.again("a.example", "a.example", client_context()))


class TransportTests(TerminationCase):
    """What the protocol inside stands on."""

    def test_interfaces(self) -> None:
        """It tells that it is TLS, and who is there."""
        self.connect()
        transport = self.inner.transport
        self.assertTrue(ISSLTransport.providedBy(transport))
        self.assertEqual(transport.getPeer(), self.near.getPeer())
        self.assertEqual(transport.getHost(), self.near.getHost())
        self.assertEqual(transport.negotiatedProtocol, None)
        self.assertEqual(transport.getPeerCertificate(), None)
        transport.setTcpNoDelay(True)
        self.assertTrue(self.near.getTcpNoDelay())

    def test_both_ways(self) -> None:
        """Bytes arrive whole, both ways at once."""
        client = self.connect()
        self.inner.transport.write(LONG)
        self.inner.transport.writeSequence([b"one ", b"two"])
        client.send(LONG)
        self.settle()
        self.assertEqual((self.inner.received, client.received), (LONG, LONG + b"one two"))

    def test_any_bytes(self) -> None:
        """Whatever is like bytes can be written, and nothing at all."""
        client = self.connect()
        for data in (bytearray(b"one "), b"", memoryview(b"two ")[1:], bytearray(b"three" * 10_000)):
            self.inner.transport.write(data)
        self.settle()
        self.assertEqual(client.received, b"one wo " + b"three" * 10_000)

    def test_any_records(self) -> None:
        """However its records come, whole, in pieces, or several at once, a client is heard and answered."""
        self.cut = True
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = self.connect(client_context(minimum_version=version, maximum_version=version))
            self.inner.on_data = lambda data: self.inner.transport.write(data.upper())
            told = b""
            for words in ([b"one"], [b"two", b"three"], [b"four" * 3000], [b"five" * 9000, b"six"]):
                for each in words:
                    client.send(each)
                    told += each
                self.settle()
            self.assertEqual((self.inner.received, client.received), (told, told.upper()))

    def test_lower_transport(self) -> None:
        """What belongs to the TCP connection is asked of it, and a protocol inside can lose it."""
        client = self.connect()
        transport = self.inner.transport
        ends = self.near.getPeer(), self.near.getHost()
        self.assertEqual((transport.getPeer(), transport.getHost()), ends)
        transport.setTcpNoDelay(True)
        transport.writeSequence([b"one ", b"two"])
        self.settle()
        transport.stopProducing()
        self.settle()
        self.assertEqual((client.received, client.saw_end), (b"one two", True))

    def test_pulled(self) -> None:
        """A producer that has to be asked for more is asked until it ends."""
        client = self.connect()
        producer = PullRecorder(self.inner.transport, [b"one ", b"two ", b"three"])
        self.patch(_producer_helpers, "cooperate", Cooperator(scheduler=self.later).cooperate)
        self.inner.transport.registerProducer(producer, False)
        self.settle()
        self.assertEqual(client.received, b"one two three")

    def test_no_producer_behind_the_end(self) -> None:
        """Who registers when all is over is told so at once."""
        client = self.connect()
        transport = self.inner.transport
        client.transport.abortConnection()
        self.settle()
        producer = PushRecorder()
        transport.registerProducer(producer, True)
        transport.unregisterProducer()
        self.assertEqual(producer.calls, ["stop"])

    def later(self, call: Any) -> Any:
        return self.clock.callLater(0.01, call)

    def test_writing_has_to_wait(self) -> None:
        """What OpenSSL does not take in the middle of a change of keys goes out in order, when it is over."""
        client = self.connect()
        producer = PushRecorder()
        self.inner.transport.registerProducer(producer, True)
        engine = self.tls._engine

        class Changing:
            """Waits for the client's next bytes."""

            receive, read, outgoing, end = engine.receive, engine.read, engine.outgoing, engine.end
            waits = True

            def write(self, data: bytes) -> bytes:
                if self.waits:
                    raise SSL.WantReadError
                written: bytes = engine.write(data)
                return written

        self.tls._engine = Changing()
        self.inner.transport.write(b"one ")
        self.inner.transport.write(LONG)
        self.settle()
        self.assertEqual((client.received, producer.calls), (b"", ["pause"]))
        self.tls._engine.waits = False
        client.send(b"next")
        self.settle()
        self.assertEqual((client.received, self.inner.received), (b"one " + LONG, b"next"))
        self.assertEqual(producer.calls[-1], "resume")

    def test_writing_fails(self) -> None:
        """What was written before OpenSSL gave up arrives, and the connection ends."""
        client = self.connect()
        engine, left = self.tls._engine, 5

        class Failing:
            """Fails with the sixth record."""

            receive, read, outgoing, end = engine.receive, engine.read, engine.outgoing, engine.end

            def write(self, data: bytes) -> bytes:
                nonlocal left
                left -= 1
                if left < 0:
                    raise SSL.Error([("SSL routines", "", "internal error")])
                written: bytes = engine.write(data)
                return written

        self.tls._engine = Failing()
        self.inner.transport.write(LONG)
        self.settle(5.0)
        self.assertEqual(client.received, LONG[: 5 * RECORD_BYTES])
        self.assertEqual(self.inner.ended_with, SSL.Error)
        self.assertFalse(client.saw_end)

    def test_buffers(self) -> None:
        """OpenSSL is handed no more at once than it shall keep room for, in either direction."""
        client = self.connect()
        engine = self.tls._engine
        sizes: list[int] = []

        class Watched:
            """Notes how much goes in and out."""

            read, outgoing, end = engine.read, engine.outgoing, engine.end

            def receive(self, data: bytes) -> None:
                sizes.append(len(data))
                engine.receive(data)

            def write(self, data: bytes) -> bytes:
                written: bytes = engine.write(data)
                sizes.append(len(written))
                return written

        self.tls._engine = Watched()
        self.inner.transport.write(LONG)
        client.send(LONG)
        self.settle()
        self.assertEqual((len(self.inner.received), len(client.received)), (len(LONG), len(LONG)))
        self.assertLess(max(sizes), RECORD_BYTES + 256)

    def test_back_pressure(self) -> None:
        """A client that does not read pauses the producer, and resumes it."""
        client = self.connect()
        producer = PushRecorder()
        self.inner.transport.registerProducer(producer, True)
        client.transport.pauseProducing()
        self.inner.transport.write(LONG)
        self.settle()
        self.assertEqual(producer.calls, ["pause"])
        client.transport.resumeProducing()
        self.settle()
        self.assertEqual((producer.calls, len(client.received)), (["pause", "resume"], len(LONG)))
        self.inner.transport.unregisterProducer()
        self.inner.transport.registerProducer(producer, True)

    def test_pausing(self) -> None:
        """A protocol inside that pauses gets no more than what was read already."""
        client = self.connect()
        self.inner.on_data = lambda data: self.inner.transport.pauseProducing()
        client.send(LONG)
        self.settle()
        self.assertLessEqual(self.inner.count, 65536)
        self.inner.on_data = lambda data: None
        self.inner.transport.resumeProducing()
        self.settle()
        self.assertEqual(self.inner.count, len(LONG))

    def test_loss_stops_the_producer(self) -> None:
        """When the connection is lost, the producer hears of it."""
        client = self.connect()
        producer = PushRecorder()
        self.inner.transport.registerProducer(producer, True)
        client.transport.abortConnection()
        self.settle()
        self.assertEqual((producer.calls, self.inner.ended_with), (["stop"], ConnectionLost))


class ClosingTests(TerminationCase):
    """How it ends, from our side and from theirs."""

    def test_close(self) -> None:
        """Everything written arrives, then ``close_notify``, then the end of the TCP stream."""
        client = self.connect()
        self.inner.transport.write(LONG)
        self.inner.transport.loseConnection()
        self.settle()
        self.assertEqual((len(client.received), client.saw_end, client.saw_fin), (len(LONG), True, True))
        client.transport.loseConnection()
        self.settle()
        self.assertEqual(self.inner.ended_with, ConnectionDone)

    def test_close_with_a_running_producer(self) -> None:
        """A producer that is not paused holds nothing up."""
        client = self.connect()
        self.inner.transport.registerProducer(PushRecorder(), True)
        self.inner.transport.write(b"all")
        self.inner.transport.loseConnection()
        self.settle()
        self.assertEqual((client.received, client.saw_end), (b"all", True))

    def test_close_waits_for_a_paused_producer(self) -> None:
        """One that is paused has more to say."""
        client = self.connect()
        self.inner.transport.registerProducer(PushRecorder(), True)
        self.inner.transport.write(LONG)
        self.inner.transport.loseConnection()
        self.settle()
        self.assertEqual((len(client.received), client.saw_end), (len(LONG), False))
        self.inner.transport.write(b"the rest")
        self.inner.transport.unregisterProducer()
        self.settle()
        self.assertEqual((client.received[-8:], client.saw_end), (b"the rest", True))

    def test_close_is_not_waited_for_long(self) -> None:
        """A client that does not close is cut off after a moment."""
        client = self.connect()
        self.inner.transport.loseConnection()
        self.settle(1.5)
        self.assertEqual((client.saw_end, self.inner.reason), (True, None))
        self.settle(1.0)
        self.assertEqual(self.inner.ended_with, ConnectionAborted)

    def test_bytes_behind_the_close(self) -> None:
        """What a client sends on is thrown away, and not for ever."""
        client = self.connect()
        self.inner.transport.loseConnection()
        client.send(b"too late")
        self.settle()
        self.assertEqual((self.inner.received, self.inner.reason), (b"", None))
        for _ in range(3):
            client.send(LONG)
        self.settle(0.5)
        self.assertEqual(self.inner.ended_with, ConnectionAborted)

    def test_writing_behind_the_close(self) -> None:
        """Nothing is written after ``close_notify``."""
        client = self.connect()
        self.inner.transport.loseConnection()
        self.inner.transport.write(b"postscript")
        self.inner.transport.loseConnection()
        self.inner.transport.loseWriteConnection()
        self.settle()
        self.assertEqual((client.received, client.saw_end, client.error), (b"", True, None))

    def test_abort(self) -> None:
        """An aborted stream does not look complete: no ``close_notify``, a reset."""
        client = self.connect()
        self.inner.transport.write(b"half of it")
        self.inner.transport.abortConnection()
        self.settle()
        self.assertFalse(client.saw_end)
        assert client.reason is not None
        self.assertEqual((client.reason.type, self.inner.ended_with), (ConnectionLost, ConnectionAborted))

    def test_abort_inside(self) -> None:
        """Nothing is delivered after an abort, not even what was decrypted already."""
        client = self.connect()
        self.inner.on_data = lambda data: self.inner.transport.abortConnection()
        client.send(LONG[:60000])
        self.settle()
        self.assertEqual((len(self.inner.sizes), self.inner.ended_with), (1, ConnectionAborted))

    def test_client_closes(self) -> None:
        """Its ``close_notify`` is the end of its direction alone."""
        client = self.connect()
        client.send(b"question")
        client.close_notify()
        self.settle()
        self.assertEqual(self.inner.events, ["connectionMade", "readConnectionLost"])
        self.inner.transport.write(b"answer")
        self.inner.transport.loseConnection()
        self.settle()
        self.assertEqual((client.received, client.saw_fin), (b"answer", True))
        client.transport.loseConnection()
        self.settle()
        self.assertEqual(self.inner.ended_with, ConnectionDone)

    def test_client_goes(self) -> None:
        """``close_notify`` and the end of the TCP stream together are told once each."""
        client = self.connect()
        client.close_notify()
        client.transport.loseConnection()
        self.settle()
        self.assertEqual(self.inner.events[:2], ["connectionMade", "readConnectionLost"])
        self.inner.transport.loseConnection()
        self.settle()
        self.assertEqual(self.inner.events, ["connectionMade", "readConnectionLost", "connectionLost"])

    def test_cut_short(self) -> None:
        """A stream that ends without ``close_notify`` is a lost connection, not the end of a message."""
        client = self.connect()
        client.send(b"half a mess")
        client.transport.loseWriteConnection()
        self.settle()
        self.assertEqual(self.inner.events, ["connectionMade", "connectionLost"])
        self.assertNotEqual(self.inner.ended_with, ConnectionDone)

    def test_half_close(self) -> None:
        """Our direction can end alone: the client goes on to speak."""
        client = self.connect()
        self.inner.transport.write(b"that is all")
        self.inner.transport.loseWriteConnection()
        self.settle()
        self.assertEqual((client.received, client.saw_end), (b"that is all", True))
        client.send(b"but I have more")
        self.settle(5.0)
        self.assertEqual(self.inner.received, b"but I have more")
        self.inner.transport.loseConnection()
        client.transport.loseConnection()
        self.settle()
        self.assertEqual(self.inner.events, ["connectionMade", "connectionLost"])

    def test_slow_reader(self) -> None:
        """A client that reads what lies in its buffers may take its time."""
        client = self.connect()
        client.transport.pauseProducing()
        self.inner.transport.write(LONG)
        self.inner.transport.loseConnection()
        self.settle(1.0)
        client.transport.resumeProducing()
        self.settle()
        self.assertEqual((len(client.received), client.saw_end), (len(LONG), True))

    def test_broken_record(self) -> None:
        """A record that cannot be decrypted ends the connection with an alert."""
        client = self.connect()
        client.transport.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.settle(4.0)
        self.assertIsNot(self.inner.reason, None)
        self.assertIn("bad record mac", str(client.error).lower())


class PlainInnerTests(TerminationCase):
    """A protocol inside that knows no half-close."""

    inner_kind = Recorder

    def test_client_closes(self) -> None:
        """The client's ``close_notify`` is answered with ours, and is the end."""
        self.assertFalse(IHalfCloseableProtocol.providedBy(Recorder()))
        client = self.connect()
        client.close_notify()
        self.settle()
        self.assertTrue(client.saw_fin)
        client.transport.loseConnection()
        self.settle()
        self.assertEqual((self.inner.ended_with, client.error), (ConnectionDone, None))


class OddTransportTests(SynchronousTestCase):
    """Transports below that can do less than TCP."""

    def test_lost_at_once(self) -> None:
        """A transport that tells of the loss inside of what was asked breaks nothing."""
        from twisted.internet.testing import StringTransport

        class Sudden(StringTransport):
            def abortConnection(self) -> None:
                tls.connectionLost(Failure(ConnectionAborted()))

        env = environment(Clock())
        failures: list[ProxyError] = []
        tls = terminate(
            env,
            Sudden(),
            b"",
            server_context(A, BOTH),
            lambda version, alpn: Recorder(),
            until=10.0,
            on_failed=failures.append,
        )
        tls.loseConnection()
        self.assertIsInstance(failures[0], ClientClosed)
        self.assertEqual(len(failures), 1)
