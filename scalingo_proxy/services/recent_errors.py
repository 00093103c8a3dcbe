"""The last errors, as many as fit on a page: of everything, and of each app.

Keeps a few plain values of each, never a record, a query or a header, and a
bounded number of all of them.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

import attrs

from scalingo_proxy.errors import ClientClosed
from scalingo_proxy.model import Record

__all__ = ["ALL_KEPT", "APPS_KEPT", "APP_KEPT", "PATH_CHARACTERS", "RecentError", "RecentErrors"]

#: How many are kept over all apps, and how many of each.
ALL_KEPT = 20
APP_KEPT = 10
#: Of how many apps errors are kept: those that had one last.
APPS_KEPT = 1000
#: How much of a path is kept.
PATH_CHARACTERS = 200


@attrs.frozen
class RecentError:
    """One request that ended badly.

    :ivar wall_time: when it began, seconds since the epoch.
    :ivar code: the reason code of the proxy's own error, or ``"-"`` where the
        backend answered with an error.
    :ivar path: without the query.
    """

    wall_time: float
    request_id: str
    app: str
    backend: str
    method: str
    host: str
    path: str
    status: int
    code: str


class RecentErrors:
    """Takes them in, forgets the oldest."""

    def __init__(self) -> None:
        self._all: deque[RecentError] = deque(maxlen=ALL_KEPT)
        self._by_app: OrderedDict[str, deque[RecentError]] = OrderedDict()

    def add(self, record: Record) -> None:
        """Keep what there is to tell of *record*; that somebody left before it had asked is no error."""
        if record.method == "-" and record.code == ClientClosed.code and not record.app:
            return
        error = RecentError(
            record.wall_time,
            record.request_id,
            record.app,
            record.backend,
            record.method[:20],
            record.host[:255],
            record.path.partition("?")[0][:PATH_CHARACTERS],
            record.status,
            record.code,
        )
        self._all.append(error)
        if not record.app:
            return
        kept = self._by_app.get(record.app)
        if kept is None:
            kept = self._by_app[record.app] = deque(maxlen=APP_KEPT)
            if len(self._by_app) > APPS_KEPT:
                self._by_app.popitem(last=False)
        else:
            self._by_app.move_to_end(record.app)
        kept.append(error)

    def latest(self, app: str = "") -> Sequence[RecentError]:
        """The last ones of an app, or of everything; newest first."""
        kept = self._by_app.get(app, ()) if app else self._all
        return tuple(reversed(kept))
