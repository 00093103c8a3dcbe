"""The admin API about certificates: list, read, write, delete.

Turns calls into operations of
:class:`~scalingo_proxy.services.certificate_control.CertificateControl` and
their results into answers.  A key goes in and never comes out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred

from scalingo_proxy.model import Certificate
from scalingo_proxy.resolvers.strict_tables import Refused, TableReader, text
from scalingo_proxy.services.admin_answers import Answer, json_answer
from scalingo_proxy.services.admin_routes import API, AdminRoute, Call, page_of
from scalingo_proxy.services.certificate_control import CertificateControl, CertificateWritten

__all__ = ["CertificatesApi"]

_BODY = TableReader({"certificate": text, "key": text}, required=("certificate", "key"))


class CertificatesApi:
    """``/certificates`` and what is below."""

    def __init__(self, certificates: CertificateControl) -> None:
        self._certificates = certificates

    def routes(self) -> list[AdminRoute]:
        """Its lines of the table."""
        one = f"{API}/certificates/{{name}}"
        return [
            AdminRoute("GET", f"{API}/certificates", self._list, query=("q", "page", "per_page")),
            AdminRoute("GET", one, self._get),
            AdminRoute("PUT", one, self._put, takes_body=True),
            AdminRoute("DELETE", one, self._delete),
        ]

    def _list(self, call: Call) -> Answer:
        page, per_page = page_of(call)
        found = self._certificates.page(call.query.get("q", ""), page, per_page)
        return json_answer(
            {
                "certificates": [self._told(each) for each in found.certificates],
                "page": found.page,
                "per_page": found.per_page,
                "total": found.total,
            }
        )

    def _get(self, call: Call) -> Answer:
        return json_answer(self._told(self._certificates.get(call.names["name"])))

    def _put(self, call: Call) -> Deferred[Answer]:
        def written(done: CertificateWritten) -> Answer:
            return json_answer(self._told(done.certificate), 201 if done.is_new else 200)

        try:
            given = _BODY(call.body)
        except Refused as error:
            raise error.as_configuration_error() from None
        writing = self._certificates.put(call.names["name"], given["certificate"], given["key"])
        return writing.addCallback(written)

    def _delete(self, call: Call) -> Deferred[Answer]:
        name = call.names["name"]
        message = f"certificate {name} is removed; open connections stay"
        deleting = self._certificates.delete(name)
        return deleting.addCallback(lambda _: json_answer({"deleted": name, "message": message}))

    def _told(self, certificate: Certificate) -> dict[str, Any]:
        return {
            "name": certificate.name,
            "domains": list(certificate.domains),
            "not_before": _moment(certificate.not_before),
            "not_after": _moment(certificate.not_after),
            "days_left": self._certificates.days_left(certificate),
            "fingerprint": certificate.fingerprint,
            "source": self._certificates.source(certificate),
        }


def _moment(seconds: float) -> str:
    """RFC 3339, as everywhere in the API."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
