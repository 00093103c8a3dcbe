"""The admin API about the topology as a whole: where it comes from, and what is held back of it."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from scalingo_proxy.services.admin_answers import Answer, json_answer
from scalingo_proxy.services.admin_routes import API, AdminRoute, Call
from scalingo_proxy.services.topology_control import TopologyControl

__all__ = ["TopologyApi"]


class TopologyApi:
    """``/topology`` and what is below."""

    def __init__(self, topology: TopologyControl) -> None:
        self._topology = topology

    def routes(self) -> list[AdminRoute]:
        """Its lines of the table."""
        path = f"{API}/topology"
        return [
            AdminRoute("GET", path, self._get),
            AdminRoute("POST", f"{path}/confirm", self._confirm),
            AdminRoute("POST", f"{path}/discard", self._discard),
        ]

    def _get(self, _call: Call) -> Answer:
        return json_answer(self._topology.told())

    def _confirm(self, _call: Call) -> Deferred[Answer]:
        return self._topology.confirm().addCallback(lambda held: json_answer({"confirmed": held}))

    def _discard(self, _call: Call) -> Deferred[Answer]:
        return self._topology.discard().addCallback(lambda held: json_answer({"discarded": held}))
