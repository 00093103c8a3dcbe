"""``python -m tests.benchmarks.latency_model``: what a choice about turns does to latencies, by a model.

Latencies of a real proxy hold what its machine does beside it, which hides a
few per cent.  The model has one core, requests that come at random, a backend,
and times of ours; it gives the same figures everywhere.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import deque

import attrs

__all__ = ["Choice", "latencies"]

_US = 1e-6

# Times of ours at half load: a request; an answer before it is sent, and after; a turn; a wakeup; a look
# for events that finds none; observers, once for each batch and for each of its records.
_REQUEST, _ANSWER, _AFTER, _TURN, _WAKEUP, _LOOK = 40 * _US, 22 * _US, 8 * _US, 6 * _US, 10 * _US, 0.7 * _US
_BATCH, _RECORD = 32 * _US, 3 * _US
# Of a backend: what it is busy for a request, and on the way besides, at least and at most.
_BACKEND, _WAY = 14 * _US, (9 * _US, 24 * _US)
# How much each differs from the others.
_DEVIATION = 0.25


@attrs.frozen
class Choice:
    """How a proxy goes about its work.

    :ivar most: how many records observers are told of without waiting any longer.
    :ivar idle: how many are enough for an idle moment, if that is waited for.
    :ivar answers_first: whether a turn serves backends before clients.
    """

    name: str
    most: int
    idle: int = 0
    answers_first: bool = False


def latencies(choice: Choice, rate: float, count: int = 120_000, seed: int = 1) -> list[float]:
    """Of *count* requests, so many a second, the shortest first, in seconds."""
    chance = random.Random(seed)
    moment = 0.0
    requests: deque[tuple[float, int]] = deque()
    for number in range(count):
        moment += chance.expovariate(rate)
        requests.append((moment, number))
    came = [moment for moment, _ in requests]
    answers: list[tuple[float, int]] = []
    took: list[float] = []
    now = backend_free = 0.0
    untold = 0

    def about(mean: float) -> float:
        return mean * max(0.4, chance.gauss(1.0, _DEVIATION))

    while requests or answers:
        events = []
        while requests and requests[0][0] <= now:
            events.append((*requests.popleft(), False))
        while answers and answers[0][0] <= now:
            events.append((*heapq.heappop(answers), True))
        if not events and choice.idle and untold >= choice.idle:
            now += _LOOK + _BATCH + _RECORD * untold
            untold = 0
        elif not events:
            upcoming = [each[0][0] for each in (requests, answers) if each]
            now = min(upcoming) + _WAKEUP
        else:
            now += _TURN
            events.sort(key=lambda event: (choice.answers_first and not event[2], event[0]))
        for _, number, is_answer in events:
            if not is_answer:
                now += about(_REQUEST)
                backend_free = max(backend_free, now) + _BACKEND
                heapq.heappush(answers, (backend_free + chance.uniform(*_WAY), number))
                continue
            now += about(_ANSWER)
            took.append(now - came[number])
            now += about(_AFTER)
            untold += 1
            if untold >= choice.most:
                now += _BATCH + _RECORD * untold
                untold = 0
    return sorted(took)


CHOICES = (
    Choice("told at 16", 16),
    Choice("told at 256", 256),
    Choice("idle from 16, or at 256", 256, 16),
    Choice("the same, answers first", 256, 16, True),
    Choice("idle from 16, or at 64", 64, 16),
    Choice("idle from 8, or at 256", 256, 8),
)


def main() -> None:
    rates = (8000, 10_000, 12_000)
    sys.stdout.write(f"{'requests/s':27}" + "".join(f"{rate:<18}" for rate in rates) + "\n")
    sys.stdout.write(f"{'':22}" + f"{'p50':>6}{'p90':>6}{'p99':>6}" * len(rates) + "   µs\n")
    for choice in CHOICES:
        told = ""
        for rate in rates:
            took = latencies(choice, rate)
            told += "".join(f"{took[int(len(took) * share)] * 1e6:6.0f}" for share in (0.5, 0.9, 0.99))
        sys.stdout.write(f"{choice.name:23}{told}\n")


if __name__ == "__main__":
    main()
