"""Certificates: what is read of them, and what is wrong with them."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from scalingo_proxy.errors import CertificateMistake, ConfigurationError
from scalingo_proxy.protocols import tls_certificates
from scalingo_proxy.protocols.tls_authority import Authority
from scalingo_proxy.protocols.tls_certificates import (
    date_mistakes,
    load_certificate,
    read_certificate,
    stored_certificate,
    trial_context,
)
from tests.protocols.tls_clients import rsa_key

NOW = 1_800_000_000.0
DAY = 86400.0

PEM = serialization.Encoding.PEM
ROOT = Authority.create("root", NOW, days=3000)
MIDDLE = ROOT.subordinate("middle", NOW, days=2000)
CHAIN, KEY = MIDDLE.issue(["a.example", "*.a.example"], NOW)
LEAF, ISSUER = x509.load_pem_x509_certificates(CHAIN)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(PEM) for each in certificates)


def key_pem(key: Any, encryption: Any = None) -> bytes:
    encoded: bytes = key.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, encryption or serialization.NoEncryption()
    )
    return encoded


def self_signed(
    key: Any,
    *extensions: x509.ExtensionType,
    names: tuple[str, ...] = ("odd.example",),
    algorithm: Any = hashes.SHA256(),  # noqa: B008
) -> bytes:
    """A certificate that no authority would issue."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "odd")])
    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(moment - datetime.timedelta(days=1))
        .not_valid_after(moment + datetime.timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), False
        )
    for extension in extensions:
        builder = builder.add_extension(extension, False)
    return builder.sign(key, algorithm).public_bytes(PEM)


class LoadingTests(SynchronousTestCase):
    """One that is as it should be."""

    def test_facts(self) -> None:
        """Names, dates and fingerprint are those of the server's own certificate."""
        certificate = load_certificate("a", CHAIN, KEY, NOW)
        self.assertEqual(certificate.name, "a")
        self.assertEqual(certificate.domains, ("a.example", "*.a.example"))
        self.assertEqual((certificate.not_before, certificate.not_after), (NOW - 3600, NOW + 30 * DAY))
        self.assertEqual(certificate.fingerprint, LEAF.fingerprint(hashes.SHA256()).hex(":").upper())
        self.assertEqual((certificate.chain, certificate.key), (CHAIN, KEY))

    def test_repr(self) -> None:
        """The key is not told, not even by accident."""
        shown = repr(load_certificate("a", CHAIN, KEY, NOW))
        self.assertNotIn("PRIVATE", shown)
        self.assertIn("a.example", shown)

    def test_kinds_of_keys(self) -> None:
        """ECDSA on the curves that clients know, and RSA."""
        for key in (
            ec.generate_private_key(ec.SECP256R1()),
            ec.generate_private_key(ec.SECP384R1()),
            ec.generate_private_key(ec.SECP521R1()),
            rsa_key(2048),
            rsa_key(3072),
        ):
            chain, key_text = ROOT.issue(["a.example"], NOW, key=key)
            self.assertEqual(load_certificate("a", chain, key_text, NOW).domains, ("a.example",))

    def test_old_forms_of_keys(self) -> None:
        """What OpenSSL used to write is read too, and kept in one form."""
        for key in (ec.generate_private_key(ec.SECP256R1()), rsa_key()):
            chain, new = ROOT.issue(["a.example"], NOW, key=key)
            old = key.private_bytes(
                PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
            self.assertNotEqual(old, new)
            self.assertEqual(load_certificate("a", chain, old, NOW).key, new)

    def test_one_file_for_both(self) -> None:
        """Chain and key may come in one text; the chain that is kept has no key in it."""
        certificate = load_certificate("a", KEY + CHAIN, KEY + CHAIN, NOW)
        self.assertEqual((certificate.chain, certificate.key), (CHAIN, KEY))

    def test_root_in_the_chain(self) -> None:
        """The root may be sent, although nobody needs it."""
        certificate = load_certificate("a", CHAIN + ROOT.pem, KEY, NOW)
        self.assertEqual(certificate.chain, CHAIN + ROOT.pem)

    def test_self_signed(self) -> None:
        """One without an authority is the operator's business."""
        key = ec.generate_private_key(ec.SECP256R1())
        ca = x509.BasicConstraints(ca=True, path_length=None)
        certificate = load_certificate("a", self_signed(key, ca), key_pem(key), NOW)
        self.assertEqual(certificate.domains, ("odd.example",))

    def test_names(self) -> None:
        """Names come out as apps have them; what no client can ask for is left out, doubles too."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName(
            [
                x509.DNSName("Upper.Example"),
                x509.DNSName("upper.example."),
                x509.DNSName("xn--bcher-kva.example"),
                x509.DNSName("part*.example"),
                x509.DNSName("a.*.example"),
                x509.DNSName("*"),
                x509.RFC822Name("mail@a.example"),
                x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
                x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
            ]
        )
        certificate = read_certificate("a", self_signed(key, names, names=()), key_pem(key))
        self.assertEqual(
            certificate.domains,
            ("upper.example", "xn--bcher-kva.example", "192.0.2.1", "[2001:db8::1]"),
        )

    def test_one_trial_for_many(self) -> None:
        """Certificates that are read in a row are judged each by itself, whatever was wrong before."""
        trial, other = trial_context(), ec.generate_private_key(ec.SECP256R1())
        for key in (rsa_key(), other, rsa_key(), ec.generate_private_key(ec.SECP384R1())):
            chain, private = self_signed(key), key_pem(key)
            self.assertEqual(
                read_certificate("a", chain, private, trial), read_certificate("a", chain, private)
            )
            # What OpenSSL refuses leaves nothing behind.
            self.assertRaises(SSL.Error, tls_certificates._try_out, trial, [LEAF], other)
        self.assertEqual(read_certificate("a", CHAIN, KEY, trial).domains, ("a.example", "*.a.example"))

    def test_stored(self) -> None:
        """What was judged once is read again without its key being looked at."""
        certificate = load_certificate("a", CHAIN, KEY, NOW)
        self.assertEqual(stored_certificate("a", certificate.chain, certificate.key), certificate)
        for chain, key in ((b"", KEY), (b"x", KEY), (CHAIN[:100], KEY), (CHAIN, b""), (CHAIN, CHAIN)):
            self.assertRaises(ValueError, stored_certificate, "a", chain, key)


class CoveringTests(SynchronousTestCase):
    """Which hosts a certificate is for."""

    def test_covers(self) -> None:
        """A name covers itself; a wildcard one label, and nothing else."""
        certificate = load_certificate("a", CHAIN, KEY, NOW)
        for host in ("a.example", "b.a.example", "x-y.a.example"):
            self.assertTrue(certificate.covers(host), host)
        for host in (
            "",
            ".",
            "example",
            "b.example",
            "c.b.a.example",
            ".a.example",
            "*.a.example",
            "aa.example",
        ):
            self.assertFalse(certificate.covers(host), host)


class MistakeTests(SynchronousTestCase):
    """Each kind of mistake is a sentence about the right one of the two."""

    def mistakes(self, chain: bytes, key: bytes, now: float = NOW) -> list[str]:
        error = self.assertRaises(CertificateMistake, load_certificate, "a", chain, key, now)
        self.assertIsInstance(error, ConfigurationError)
        told = [str(mistake) for mistake in error.mistakes]
        self.assertEqual(told[0], f"{error.field}: {error.sentence}")
        self.assertNotIn("PRIVATE KEY-----", str(error))
        return told

    def assert_told(self, chain: bytes, key: bytes, *sentences: str, now: float = NOW) -> None:
        told = self.mistakes(chain, key, now)
        self.assertEqual(len(told), len(sentences), told)
        for sentence, wanted in zip(told, sentences, strict=True):
            self.assertIn(wanted, sentence)

    def test_both_at_once(self) -> None:
        """What is wrong with the one does not hide what is wrong with the other."""
        self.assert_told(b"nonsense", b"nonsense", "certificate: is not PEM", "key: is not PEM")

    def test_swapped(self) -> None:
        """Each in the place of the other."""
        self.assert_told(
            KEY,
            CHAIN,
            "certificate: is no certificate but a private key",
            "key: is no private key but a cert",
        )

    def test_damaged(self) -> None:
        """PEM that holds no DER, or not a certificate."""
        broken = b"-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"
        self.assert_told(CHAIN + broken, KEY, "certificate: cannot be read: certificate #3 is damaged")
        self.assert_told(
            CHAIN, broken.replace(b"CERTIFICATE", b"PRIVATE KEY"), "key: cannot be read: it is damaged"
        )

    def test_encrypted_key(self) -> None:
        """A key that would need a passphrase."""
        encryption = serialization.BestAvailableEncryption(b"secret")
        text = key_pem(ec.generate_private_key(ec.SECP256R1()), encryption)
        self.assert_told(CHAIN, text, "key: is encrypted; take the passphrase away")

    def test_other_key(self) -> None:
        """The key of another certificate."""
        _, other = ROOT.issue(["a.example"], NOW)
        self.assert_told(CHAIN, other, "key: does not belong to the certificate (a.example)")
        self.assert_told(CHAIN, key_pem(rsa_key()), "key: does not belong to the certificate (a.example)")

    def test_key_of_the_issuer(self) -> None:
        """The key of a certificate further up."""
        self.assert_told(
            CHAIN, MIDDLE.key_pem, "key: belongs to certificate #2 of the chain, not to the first"
        )

    def test_order(self) -> None:
        """A chain whose links do not hold names the first that does not."""
        self.assert_told(pem(ISSUER, LEAF), KEY, "certificate: is upside down")
        self.assert_told(
            pem(LEAF, ROOT.certificate),
            KEY,
            "certificate: is not in order: #2 (root) did not issue #1 (a.example); the server's own",
        )
        self.assert_told(
            pem(LEAF, ISSUER, LEAF),
            KEY,
            "certificate: is not in order: #3 (a.example) did not issue #2 (middle)",
        )
        self.assert_told(
            pem(LEAF, ISSUER, ISSUER),
            KEY,
            "certificate: has the same certificate twice, as #2 and #3 (middle)",
        )

    def test_another_issuer_of_that_name(self) -> None:
        """Names are not enough: the signature has to hold."""
        impostor = ROOT.subordinate("middle", NOW)
        self.assert_told(pem(LEAF, impostor.certificate), KEY, "certificate: is not in order: #2 (middle)")

    def test_too_many(self) -> None:
        """Nobody needs a chain of eleven."""
        self.assert_told(
            CHAIN + pem(ISSUER) * 9, KEY, "certificate: holds 11 certificates; a chain has at most 10"
        )

    def test_dates(self) -> None:
        """Expired, and not valid yet, with the date; also further up."""
        self.assert_told(CHAIN, KEY, "certificate: expired on 2027-02-14 08:00:00 UTC", now=NOW + 30 * DAY)
        self.assert_told(
            CHAIN,
            KEY,
            "certificate: is not valid before 2027-01-15 07:00:00 UTC",
            "certificate #2 (middle) is not valid before",
            now=NOW - DAY,
        )
        short = ROOT.subordinate("short", NOW, days=1)
        chain, key = short.issue(["a.example"], NOW)
        self.assert_told(
            chain, key, "certificate: has a chain whose certificate #2 (short) expired on", now=NOW + 2 * DAY
        )

    def test_dates_alone(self) -> None:
        """Where the date is not asked, it is no mistake; it can be asked later."""
        certificate = read_certificate("a", CHAIN, KEY)
        self.assertEqual(date_mistakes(certificate, NOW), [])
        (mistake,) = date_mistakes(certificate, NOW + 31 * DAY)
        self.assertEqual(mistake.path, "certificate")

    def test_no_names(self) -> None:
        """Clients look at subjectAltName alone; a common name is none."""
        key = ec.generate_private_key(ec.SECP256R1())
        for names in ((), ("a*.example",)):
            self.assert_told(self_signed(key, names=names), key_pem(key), "certificate: names no domain")

    def test_purpose(self) -> None:
        """A certificate for people or for signing code."""
        key = ec.generate_private_key(ec.SECP256R1())
        mail = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        self.assert_told(self_signed(key, mail), key_pem(key), "certificate: is not made for servers")
        everything = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
        load_certificate("a", self_signed(key, everything), key_pem(key), NOW)

    def test_usage(self) -> None:
        """A key that may not sign makes no handshake."""
        flags = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "key_cert_sign",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        usage = x509.KeyUsage(**{**flags, "key_encipherment": True})
        chain = self_signed(rsa_key(), usage)
        self.assert_told(
            chain, key_pem(rsa_key()), "certificate: cannot be used: its keyUsage lacks digitalSig"
        )

    def test_strength(self) -> None:
        """RSA keys that are too short to be safe, or so long that they hold up everybody."""
        for bits, told in ((1024, "is too weak: RSA with 1024 bits"), (8192, "is too large: RSA with 819")):
            self.assert_told(CHAIN, key_pem(fake_rsa(bits)), f"key: {told}", "key: does not belong")

    def test_kind(self) -> None:
        """Keys that browsers cannot use."""
        ed = ed25519.Ed25519PrivateKey.generate()
        self.assert_told(self_signed(ed, algorithm=None), key_pem(ed), "key: is neither RSA nor ECDSA")
        koblitz = ec.generate_private_key(ec.SECP256K1())
        self.assert_told(self_signed(koblitz), key_pem(koblitz), "key: is on the curve secp256k1")
        old = dsa.generate_private_key(1024)
        self.assert_told(CHAIN, key_pem(old), "key: is neither RSA nor ECDSA", "key: does not belong")

    def test_inconsistent_key(self) -> None:
        """An RSA key whose numbers do not belong together."""
        numbers = rsa_key().private_numbers()
        broken = rsa.RSAPrivateNumbers(
            p=numbers.p,
            q=numbers.q,
            d=numbers.d + 2,
            dmp1=numbers.dmp1,
            dmq1=numbers.dmq1,
            iqmp=numbers.iqmp,
            public_numbers=numbers.public_numbers,
        ).private_key(unsafe_skip_rsa_key_validation=True)
        chain, _ = ROOT.issue(["a.example"], NOW, key=rsa_key())
        self.assert_told(chain, key_pem(broken), "key: is damaged: its numbers do not belong together")

    def test_hash(self) -> None:
        """A signature that clients refuse."""
        self.assert_told(
            SIGNED_WITH_SHA1,
            KEY,
            "certificate: is signed with SHA1, which clients refuse",
            "key: does not belong",
        )

    def test_openssl_refuses(self) -> None:
        """What OpenSSL does not take is told when it is loaded, and not at a handshake."""

        def refuse(context: SSL.Context, chain: object, key: object) -> None:
            raise SSL.Error([("SSL routines", "", "ee key too small")])

        self.patch(tls_certificates, "_try_out", refuse)
        self.assert_told(CHAIN, KEY, "certificate: is refused by OpenSSL: ee key too small")


#: By an authority that nobody has any more, from 2026 to 2126; new signatures of this kind are hard to get.
SIGNED_WITH_SHA1 = b"""-----BEGIN CERTIFICATE-----
MIIBfDCCASOgAwIBAgIUf7y9CQG8F13b/ngx0WEfK1lCxL8wCQYHKoZIzj0EATAO
MQwwCgYDVQQDDANvbGQwIBcNMjYxMTIzMDQzNDQ1WhgPMjEyNjEwMzAwNDM0NDVa
MBQxEjAQBgNVBAMMCWEuZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IA
BGZ3OqoVTOa1V9A2Y1HmYIfCC8PUzvjwYU49Uc3jmfnUp7GMvqQVe5vHdsI53c/8
AImHVj4pRWHH68Ghj3SjUPqjWDBWMBQGA1UdEQQNMAuCCWEuZXhhbXBsZTAdBgNV
HQ4EFgQUjnQdzPSb2lQuG8Ug25YROu/0haQwHwYDVR0jBBgwFoAUcDO4h3wZrFTk
ll2qnG0RUUo0PtswCQYHKoZIzj0EAQNIADBFAiEA8iBgHuuYrn/vi+TbuwFSkic+
if1lYrXqWHMIDwqAtLwCIH2H3sUwXdB1KbyYPbDRWF0Hx8RI5eZ5Nvx24rphdHYX
-----END CERTIFICATE-----
"""


def fake_rsa(bits: int) -> rsa.RSAPrivateKey:
    """A key of that size, made fast: its primes are none."""
    p, q = (1 << bits // 2) - 1, (1 << bits // 2) - 3
    public = rsa.RSAPublicNumbers(65537, p * q)
    numbers = rsa.RSAPrivateNumbers(p=p, q=q, d=65539, dmp1=5, dmq1=7, iqmp=9, public_numbers=public)
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)
