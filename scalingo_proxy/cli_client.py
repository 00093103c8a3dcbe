"""The command line's side of the admin API: one synchronous HTTP client.

Knows addresses, tokens and refusals; knows no command and prints nothing.
A command runs for a moment in a process of its own, so there is no reactor.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import attrs

from scalingo_proxy.model import split_host_port
from scalingo_proxy.services.endpoint_strings import parse_endpoint

__all__ = ["AdminAddress", "AdminClient", "ApiRefusal", "Unreachable"]

#: Seconds without a word from the proxy until it counts as unreachable.
_TIMEOUT_SECONDS = 60.0

#: How much of a long list is asked for at once.
_PER_PAGE = 500

#: Where "any address" of a listener is dialled.
_LOOPBACK_FOR = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


class Unreachable(Exception):
    """No proxy answers at the address."""


class ApiRefusal(Exception):
    """The proxy said no.

    :ivar status: the HTTP status.
    :ivar document: the whole answer, ``{"error": {"code", "message", …}}``.
    """

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        self.status = status
        self.document = document
        super().__init__(str(document["error"]["message"]))

    def lines(self) -> list[str]:
        """The refusal for people: every mistake on a line of its own."""
        mistakes = self.document["error"].get("mistakes") or ()
        if not mistakes:
            return [str(self)]
        return [": ".join(filter(None, (each["field"], each["message"]))) for each in mistakes]


@attrs.frozen
class AdminAddress:
    """Where the admin API listens: a TCP address, or a unix socket.

    :ivar text: as it was given, for sentences.
    """

    text: str
    host: str = ""
    port: int = 0
    socket_path: str = ""
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> AdminAddress:
        """Read ``PORT``, ``HOST:PORT``, ``https://HOST:PORT``, ``unix:PATH`` or an endpoint string.

        :raises ValueError: with a sentence that says what is wrong.
        """
        if text.partition(":")[0] in ("tcp", "tcp6", "unix", "systemd"):
            endpoint = parse_endpoint(text)
            if endpoint.kind == "systemd":
                raise ValueError(f"{text!r} does not tell where systemd listens (expected HOST:PORT)")
            if endpoint.kind == "unix":
                return cls(text, socket_path=endpoint.path)
            host, port = endpoint.interface, endpoint.port
        else:
            plain = text.removeprefix("https://").removeprefix("http://").rstrip("/")
            host, port = split_host_port(f"127.0.0.1:{plain}" if plain.isdigit() else plain)
        return cls(text, _LOOPBACK_FOR.get(host, host), port, tls=text.startswith("https://"))


class AdminClient:
    """Asks the admin API, one request after another.

    :param ca: a PEM file of authorities to trust over TLS; ``""``: those of the system.
    """

    def __init__(self, address: AdminAddress, token: str = "", ca: str = "") -> None:
        self.address = address
        self._ca = ca
        self._token = token

    def ask(
        self, method: str, *path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> tuple[int, Any]:
        """Send one request; the status, and the JSON document that came back.

        :param path: segments below ``/api/v1``, not yet escaped.
        :raises ApiRefusal: the proxy refused it.
        :raises Unreachable: there is no proxy there.
        """
        target = "/".join(["/api/v1", *(quote(segment, safe="") for segment in path)])
        if query:
            target += "?" + urlencode(query)
        headers = {"Accept": "application/json", "Connection": "close"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            data = json.dumps(body).encode("utf-8")
            headers["Content-Type"] = "application/json"
        status, answer = self._exchange(method, target, data, headers)
        return status, self._document(status, answer)

    def listed(self, kind: str, search: str = "") -> Iterator[dict[str, Any]]:
        """Everything of one kind, such as ``"apps"``, page after page.

        :param search: only what has this text in it; ``""``: all.
        :raises ApiRefusal: the proxy refused it.
        :raises Unreachable: there is no proxy there.
        """
        page, seen = 1, 0
        while True:
            query = {"page": str(page), "per_page": str(_PER_PAGE), "q": search}
            _status, answer = self.ask("GET", kind, query=query)
            yield from answer[kind]
            seen += len(answer[kind])
            if not answer[kind] or seen >= answer["total"]:
                return
            page += 1

    def _exchange(
        self, method: str, target: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        connection = _connection(self.address, self._ca)
        try:
            connection.request(method, target, body=data, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(self._sentence(_reason(error))) from error
        finally:
            connection.close()

    def _document(self, status: int, answer: bytes) -> Any:
        try:
            document = json.loads(answer)
            if status >= 400:
                refusal = ApiRefusal(status, document)
        except (ValueError, KeyError, TypeError):
            raise Unreachable(self._sentence("what answers there is not the admin API")) from None
        if status >= 400:
            raise refusal
        return document

    def _sentence(self, reason: str) -> str:
        return (
            f"cannot reach the proxy at {self.address.text} ({reason}): "
            "start it, or name its admin endpoint with --admin or SCALINGO_PROXY_ADMIN"
        )


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(self._path)


def _connection(address: AdminAddress, ca: str) -> http.client.HTTPConnection:
    if address.socket_path:
        return _UnixConnection(address.socket_path)
    if address.tls:
        try:
            context = ssl.create_default_context(cafile=ca or None)
        except OSError as error:
            raise Unreachable(f"--ca: {ca} cannot be used: {_reason(error)}") from None
        return http.client.HTTPSConnection(
            address.host, address.port, timeout=_TIMEOUT_SECONDS, context=context
        )
    return http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT_SECONDS)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate: {error.verify_message}; name the authority with --ca"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).lower() or type(error).__name__
