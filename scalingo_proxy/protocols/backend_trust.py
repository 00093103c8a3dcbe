"""What a TLS connection to a backend begins with: whom to trust, and which name to insist on.

One OpenSSL context for each set of authorities, shared by all connections
that trust it; the name belongs to the connection.  Opens no connection and
reads no file, except that the trust store of the system is OpenSSL's matter.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, ServiceID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet import ssl
from twisted.logger import Logger

from scalingo_proxy.model import Backend
from scalingo_proxy.wire.authorities import read_authorities

__all__ = ["BackendTrusts", "Expectation"]

_log = Logger()

#: Contexts kept: one for each set of authorities that is in use.
MAX_CONTEXTS = 256
#: Expectations kept: one for each name and set of authorities.
MAX_EXPECTATIONS = 8192

_FOREIGN = "is not from a trusted authority"
_NO_NAME = "has no name or address in it"
_OTHER_NAME = "is for another name"
#: What OpenSSL finds wrong with a certificate (x509_vfy.h), for people.
_COMPLAINTS = {
    7: _FOREIGN,
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed and not trusted",
    19: _FOREIGN,
    20: _FOREIGN,
    21: _FOREIGN,
    23: "is revoked",
    24: "comes from a certificate that may not issue any",
    26: "is not meant for servers",
    28: "is rejected by the trust store",
}

K = TypeVar("K")
V = TypeVar("V")


class _Recent(Generic[K, V]):
    """Values made when they are first asked for; the one that was not asked for longest goes first."""

    def __init__(self, make: Callable[[K], V], most: int) -> None:
        self._make = make
        self._most = most
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: K) -> V:
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = self._make(key)
        if len(self._values) > self._most:
            self._values.popitem(last=False)
        return value


class Expectation:
    """One name under one set of authorities: begins handshakes and judges certificates."""

    def __init__(self, options: ssl.CertificateOptions, name: str) -> None:
        self._options = options
        self._name = name
        self._server_name = b"" if _is_address(name) else name.encode("ascii")
        self._service: ServiceID = DNS_ID(name) if self._server_name else IPAddress_ID(name)

    def begin(self, protocol: Any, judged: Callable[[str], None]) -> SSL.Connection:
        """A client's state before its first byte.

        :param protocol: the TLS protocol that will drive it.
        :param judged: told what is wrong with the backend's certificate, or
            ``""`` when it is the one that is expected.
        """
        connection: SSL.Connection = self._options.clientConnectionForTLS(protocol)
        if self._server_name:
            connection.set_tlsext_host_name(self._server_name)

        def verify(_: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
            # Whatever is raised here would be dropped: nothing may end in True by accident.
            complaint = "cannot be judged"
            try:
                if not ok:
                    complaint = _COMPLAINTS.get(error, f"does not verify (OpenSSL's reason {error})")
                else:
                    complaint = "" if depth else self._complaint(certificate)
            except Exception:
                _log.failure("a certificate for {name!r} cannot be judged", name=self._name)
            if complaint or depth == 0:
                judged(complaint)
            return not complaint

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        connection.set_connect_state()
        return connection

    def _complaint(self, certificate: crypto.X509) -> str:
        try:
            verify_service_identity(extract_patterns(certificate), [self._service], [])
        except VerificationError:
            return _OTHER_NAME
        except CertificateError:
            return _NO_NAME
        return ""


class BackendTrusts:
    """The expectations of all TLS backends, made once and kept while they are in use."""

    def __init__(self) -> None:
        self._options = _Recent(_options, MAX_CONTEXTS)
        self._expectations = _Recent(self._expectation, MAX_EXPECTATIONS)

    def expectation(self, backend: Backend) -> Expectation:
        """What is expected of *backend*, which is asked over TLS.

        :raises ValueError: its authorities cannot be read, or nothing can
            have its name.
        """
        return self._expectations[backend.trust.ca, backend.trust.name or backend.host]

    def _expectation(self, key: tuple[str, str]) -> Expectation:
        ca, name = key
        return Expectation(self._options[ca], name)


def _options(ca: str) -> ssl.CertificateOptions:
    options = ssl.CertificateOptions(
        trustRoot=_root(ca), acceptableProtocols=[b"http/1.1"], raiseMinimumTo=ssl.TLSVersion.TLSv1_2
    )
    context = options.getContext()
    if ca:
        # What is given is trusted as it is: an intermediate authority, or the backend's own certificate.
        store = context.get_cert_store()
        assert store is not None
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    return options


def _root(ca: str) -> Any:
    if not ca:
        return ssl.platformTrust()  # type: ignore[no-untyped-call]
    found = [
        ssl.Certificate(crypto.X509.from_cryptography(item))  # type: ignore[no-untyped-call]
        for item in read_authorities(ca)
    ]
    return ssl.trustRootFromCertificates(found)  # type: ignore[no-untyped-call]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
