"""SIGTERM in the middle of constant load: what was begun ends well, and the process within its limit."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.soak.clients import Doors, Load
from tests.soak.exchanges import Exchange
from tests.soak.fleet import Fleet
from tests.soak.run import DRAIN_SECONDS, RECOVERY_SECONDS, Soak
from tests.soak.verdict import AFTER_SIGNAL, Verdict

__all__ = ["StopUnderLoad"]


class StopUnderLoad(Soak):
    """No trouble but the one.

    :ivar took: seconds from the signal to the exit.
    """

    took = 0.0

    async def _soak(self, fleet: Fleet, doors: Doors) -> None:
        load = Load(self._random, doors)
        self._start(load)
        await asyncio.sleep(self.seconds)
        stopped_at = time.monotonic()
        self.proxy.signal(signal.SIGTERM)
        status = await asyncio.to_thread(self.proxy.wait)
        self.took = time.monotonic() - stopped_at
        await load.stop()

        if status not in (0, -signal.SIGTERM):
            self.faults.append(f"the exit status is {status}")
        if self.took > DRAIN_SECONDS + 1.0:
            self.faults.append(f"it took {self.took:.1f} s to stop, and may take {DRAIN_SECONDS}")
        self._check_log()
        for exchange in load.exchanges:
            if exchange.code and not self._is_due(exchange, stopped_at):
                began, ended = exchange.began - stopped_at, exchange.ended - stopped_at
                what = f"{exchange.kind} {exchange.id}: {exchange.status} {exchange.code}"
                self.faults.append(f"{what}, from {began:+.2f} s to {ended:+.2f} s after the signal")
            if exchange.code:
                exchange.code = f"{AFTER_SIGNAL}: {exchange.code}"
        # Only executions are left to judge.
        verdict = Verdict(load.exchanges, fleet, self._backends_by_id(load.exchanges), RECOVERY_SECONDS)
        self.faults += verdict.faults
        self.exchange_count = len(load.exchanges)
        self.lines += [*verdict.summary(), f"gone in {self.took:.2f} of {DRAIN_SECONDS} s"]

    def _is_due(self, exchange: Exchange, stopped_at: float) -> bool:
        """Whether this is what a stop has to look like."""
        if exchange.began >= stopped_at and not exchange.status:
            return True  # nobody lets new requests in, over whichever connection
        if exchange.kind.startswith("WEBSOCKET") and exchange.code == "closed 1012":
            return True
        # Nobody can tell those inside of what passes through; half of the time is theirs.
        return "passed" in exchange.kind and exchange.ended >= stopped_at + DRAIN_SECONDS / 2 - 0.2
