"""Alerts, and what clients make of them."""

from __future__ import annotations

import ssl
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.wire.tls_alert import Alert, HelloRefused, alert_record


def heard_by_openssl(data: bytes, **versions: ssl.TLSVersion) -> str:
    """What the client of this Python says to *data* as the only answer to its hello."""
    context = ssl.create_default_context()
    for name, version in versions.items():
        setattr(context, name, version)
    context.set_ciphers("ALL:@SECLEVEL=0")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="app.test")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        incoming.write(data)
    try:
        client.do_handshake()
    except ssl.SSLError as error:
        return str(error).lower().replace("_", " ")
    raise AssertionError("the client was content")


class AlertTests(SynchronousTestCase):
    """One record for each."""

    def test_fatal(self) -> None:
        """A record of two bytes: fatal, and why."""
        self.assertEqual(alert_record(Alert.UNRECOGNIZED_NAME), bytes.fromhex("15 0303 0002 02 70"))

    def test_not_fatal(self) -> None:
        """Closing in order is no failure (RFC 8446 §6.1)."""
        self.assertEqual(alert_record(Alert.CLOSE_NOTIFY), bytes.fromhex("15 0303 0002 01 00"))

    def test_version(self) -> None:
        """The record speaks the client's version, from SSL 3 to TLS 1.2."""
        for version, spoken in ((0, "0300"), (0x0301, "0301"), (0x0304, "0303")):
            self.assertEqual(alert_record(Alert.DECODE_ERROR, version)[1:3].hex(), spoken)

    def test_text(self) -> None:
        """Names are those of the RFCs."""
        self.assertEqual(Alert(120).text, "no_application_protocol")

    def test_refusal_without_alert(self) -> None:
        """Nothing is said to whom it means nothing."""
        self.assertEqual(HelloRefused(None, "why").answer, b"")
        self.assertEqual(str(HelloRefused(None, "why")), "why")


class ClientTests(SynchronousTestCase):
    """A real client says what it was told."""

    def test_each(self) -> None:
        """Each alert by which a hello is refused is understood."""
        for alert in (
            Alert.UNEXPECTED_MESSAGE,
            Alert.RECORD_OVERFLOW,
            Alert.HANDSHAKE_FAILURE,
            Alert.ILLEGAL_PARAMETER,
            Alert.DECODE_ERROR,
            Alert.PROTOCOL_VERSION,
            Alert.MISSING_EXTENSION,
            Alert.UNRECOGNIZED_NAME,
            Alert.NO_APPLICATION_PROTOCOL,
        ):
            self.assertIn(alert.text.replace("_", " "), heard_by_openssl(alert_record(alert)))

    @skipUnless(ssl.HAS_TLSv1, "this OpenSSL has no TLS 1.0")
    def test_old_client(self) -> None:
        """So it is by a client that speaks TLS 1.0 alone."""
        data = alert_record(Alert.PROTOCOL_VERSION, 0x0301)
        heard = heard_by_openssl(
            data, minimum_version=ssl.TLSVersion.MINIMUM_SUPPORTED, maximum_version=ssl.TLSVersion.TLSv1
        )
        self.assertIn("protocol version", heard)
