"""What has to hold after a soak, judged from what clients, backends and the request log tell."""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.soak.exchanges import Exchange
from tests.soak.members import SoakMembers

__all__ = ["AFTER_SIGNAL", "Verdict"]

#: How the codes of exchanges begin that whoever stopped the proxy has judged already.
AFTER_SIGNAL = "after the signal"

#: Codes of requests that no backend has seen: another could have been asked.
_NOT_SENT = {"connect-failed", "quarantined", "no-backend", "queue-full", "queue-timeout", "no answer"}

#: Codes of requests that may have been executed, whatever their method.
_MAYBE_EXECUTED = {"first-byte-timeout", "idle-timeout", "bad-response"}


class Verdict:
    """Judges every exchange.

    An error is *excused* if no backend of the app was untouched, from
    *recovery_seconds* before the exchange until its end: until then the proxy
    may still believe what it saw.  It is also excused if the backend that the
    exchange was given to was touched, and the exchange may not be given to
    another: because its answer had begun, it is a tunnel, it is a POST, or
    nothing proves that it was not executed.  A request that got no answer at
    all is never excused, unless its connection passes through.

    :ivar faults: everything that must not be, in words.
    :ivar errors: how many exchanges failed, by code and by excuse.
    """

    def __init__(
        self,
        exchanges: list[Exchange],
        fleet: SoakMembers,
        backends_by_id: dict[str, str],
        recovery_seconds: float,
    ) -> None:
        self.exchanges = exchanges
        self.faults: list[str] = []
        self.errors: Counter[tuple[str, str]] = Counter()
        self._fleet = fleet
        self._backends_by_id = backends_by_id
        self._recovery = recovery_seconds
        for exchange in exchanges:
            if not exchange.is_good:
                self._judge(exchange)
        self._judge_executions()

    def _judge(self, exchange: Exchange) -> None:
        excuse = self._excuse(exchange)
        self.errors[exchange.code, excuse or "NOT EXCUSED"] += 1
        if not excuse:
            where = f"at {exchange.backend or self._backends_by_id.get(exchange.id) or 'no backend'}"
            if exchange.behind:
                where += f" behind {exchange.behind}"
            self.faults.append(
                f"{exchange.kind} {exchange.id} of {exchange.app} {where}: {exchange.status} {exchange.code}"
                f" at {exchange.began:.2f}"
                f" after {exchange.seconds:.2f} s, though a backend was untouched"
            )

    def _excuse(self, exchange: Exchange) -> str:
        if exchange.code.startswith(AFTER_SIGNAL):
            return "the proxy stops"
        began, ended = exchange.began - self._recovery, exchange.ended
        has_answer = exchange.has_begun or exchange.status or "broken" not in exchange.code
        if not (has_answer or "passed" in exchange.kind):
            return ""  # whatever happens to backends, the proxy itself can answer
        if not self._fleet.has_untouched(exchange.app, began, ended):
            return "no untouched backend"
        may_not_move = (
            exchange.has_begun
            or exchange.is_tunnel
            or not exchange.is_repeatable
            or exchange.code in _MAYBE_EXECUTED
        )
        if may_not_move and exchange.code not in _NOT_SENT and self._was_given_to_touched(exchange):
            return "its backend was touched"
        return ""

    def _was_given_to_touched(self, exchange: Exchange) -> bool:
        began, ended = exchange.connected or exchange.began, exchange.ended
        backend = self._fleet.by_name(exchange.backend) or self._fleet.by_address(
            self._backends_by_id.get(exchange.id, "")
        )
        if backend is not None:
            if exchange.is_tunnel and backend.serves_until <= ended:
                return True  # drained: tunnels are closed at the deadline
            # A moment for what was in the buffers of the operating system.
            return backend.was_touched(began - 0.5, ended)
        if "passed" not in exchange.kind or exchange.status:
            return False
        # Nobody knows who it was given to, only that somebody was touched.
        return any(
            each.app == exchange.app
            and (each.was_touched(began, ended) or began <= each.serves_until <= ended)
            for each in self._fleet.everybody()
        )

    def _judge_executions(self) -> None:
        by_id: dict[str, list[tuple[float, str, str]]] = defaultdict(list)
        for when, request_id, method, name in self._fleet.executions():
            by_id[request_id].append((when, method, name))
        for exchange in self.exchanges:
            done = by_id.pop(exchange.id, [])
            names = [name for _, _, name in done]
            what = f"{exchange.kind} {exchange.id} of {exchange.app}"
            if exchange.status in (200, 101) and exchange.backend and exchange.backend not in names:
                self.faults.append(f"{what} was answered by {exchange.backend}, and executed by {names}")
            if len(done) > 1 and not exchange.is_repeatable:
                self.faults.append(f"{what} was executed {len(done)} times, by {names}")
            for _, _, name in done[:-1]:
                backend = self._fleet.by_name(name)
                assert backend is not None
                if not backend.was_touched(exchange.began - 0.5, exchange.ended):
                    self.faults.append(f"{what} was executed again after {name}, which nothing was done to")
            for when, _, name in done:
                backend = self._fleet.by_name(name)
                assert backend is not None
                late = (exchange.connected or exchange.began) - backend.gone_from
                if late > 0:
                    self.faults.append(
                        f"{what} came {late:.2f} s after {name} was gone, which executed it at {when}"
                    )
        if by_id:
            self.faults.append(f"{len(by_id)} executions that nobody asked for, such as {next(iter(by_id))}")

    # -- in numbers ----------------------------------------------------------

    def summary(self) -> list[str]:
        """Everything by kind, and how long it took."""
        lines = [f"{'requests':<26}{'all':>7}{'good':>7}{'p50':>10}{'p99':>10}"]
        by_kind: dict[str, list[Exchange]] = defaultdict(list)
        for exchange in self.exchanges:
            by_kind[exchange.kind].append(exchange)
        for kind, all_of_them in sorted(by_kind.items()):
            good = sorted(exchange.seconds for exchange in all_of_them if exchange.is_good)
            middle, late = (_quantile(good, share) * 1000 for share in (0.5, 0.99))
            lines.append(f"  {kind:<24}{len(all_of_them):>7}{len(good):>7}{middle:>7.0f} ms{late:>7.0f} ms")
        lines.append("errors")
        for (code, excuse), count in sorted(self.errors.items()):
            lines.append(f"  {code:<60} {count:>5}  {excuse}")
        if not self.errors:
            lines.append("  none")
        return lines


def _quantile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
