"""What observers do for ordinary requests that finished together, one by one and together."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from scalingo_proxy.model import Record
from scalingo_proxy.services.batches import BATCH_RECORDS
from scalingo_proxy.services.broadcast import Broadcast
from scalingo_proxy.services.logfmt import LogfmtLines, format_logfmt
from scalingo_proxy.services.metrics import Metrics
from scalingo_proxy.services.traffic import Traffic
from tests.benchmarks.comparing import compare


def ordinary_record(seconds: float) -> Record:
    """That of an answer that came whole after so long."""
    record = Record(100.0, 1e9, "192.0.2.1", "http")
    record.method, record.host, record.path, record.protocol = "GET", "app.example", "/some/path", "http/1.1"
    record.request_id, record.app, record.backend = str(uuid.uuid4()), "app", "10.0.0.1:3000"
    record.status, record.bytes_out = 200, 512
    record.finished_at = record.first_byte_at = record.started_at + seconds
    return record


def of_records() -> Iterator[str]:
    """The request log, and those who count."""
    records = [ordinary_record(0.002 + number / 5000) for number in range(BATCH_RECORDS)]
    write_lines = LogfmtLines()
    yield compare(
        "16 lines of the request log written together",
        lambda: [format_logfmt(record) for record in records],
        lambda: write_lines(records),
        1000,
    )
    counters = Broadcast(Metrics(), Traffic(lambda: 100.0))

    def one_by_one() -> None:
        for record in records:
            counters.exchange_finished(record)

    yield compare(
        "16 requests counted together, by two who count",
        one_by_one,
        lambda: counters.exchanges_finished(records),
        1000,
    )
