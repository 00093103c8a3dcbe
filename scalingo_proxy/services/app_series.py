"""Which apps have metrics of their own: the busiest, so many as there is room for.

A page of metrics has to stay small, however many apps there are, and its
counters must never fall.  So each request is counted in exactly one series,
for good: what came since the page was last made is kept apart for each app,
and only when the page is made again it is decided whose own series it goes
to, and what is added to the one that all other apps share.  A series that is
left out comes back where it stopped.  Whoever just watches does not ask what
was asked in between twice, and nobody has to be asked while requests finish.

How busy an app is, is a number of requests that is halved every few minutes.
A place changes hands only when the newcomer is twice as busy: series that
come and go are of no use to anybody.

Time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from heapq import nlargest
from operator import attrgetter, itemgetter

from scalingo_proxy.services.exposition import HistogramFamily, escape_label, numbers_in

__all__ = [
    "DURATION_BOUNDS",
    "HALF_LIFE_SECONDS",
    "MAX_OTHERS",
    "NO_APP",
    "OTHER_APPS",
    "STATUS_CLASSES",
    "AppCounts",
    "AppSeries",
]

#: The label ``app`` of requests for hosts that nobody claims.
NO_APP = "_none"
#: The label ``app`` of all apps that have no series of their own.
OTHER_APPS = "_other"
_RESERVED = (NO_APP, OTHER_APPS)

#: The bounds of the duration buckets, in seconds.
DURATION_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

#: How many classes of status there are: by its first digit, 0 for those that HTTP does not have.
STATUS_CLASSES = 6

#: After so long, a request counts half as much for how busy its app is.
HALF_LIFE_SECONDS = 300.0
#: How much busier than the one whose place it takes an app has to be.
_HEAD_START = 2.0
#: Of how many apps without a series it is known how busy they are.
MAX_OTHERS = 5_000
#: Less than this is as good as nothing.
_FAINT = 0.01

REQUEST_DURATION = HistogramFamily(
    "scalingo_proxy_request_duration_seconds",
    "From the beginning of a request to its end; to the answer where it became a tunnel.",
    DURATION_BOUNDS,
    "app",
)


class AppCounts:
    """What is counted for one value of the label ``app``.

    :ivar label: that value, escaped.
    :ivar requests: by listener, by the first digit of the status.
    :ivar durations: by bucket, the last one for what is beyond every bound.
    :ivar seconds: their sum.
    :ivar is_own: it is on the page.
    """

    __slots__ = (
        "_series",
        "_text",
        "_text_count",
        "app",
        "busy",
        "bytes_in",
        "bytes_out",
        "durations",
        "is_own",
        "label",
        "ranked",
        "requests",
        "seconds",
    )

    def __init__(self, app: str, is_own: bool = False) -> None:
        self.app = app
        self.label = escape_label(app)
        self.is_own = is_own
        self.requests: dict[str, list[int]] = defaultdict(lambda: [0] * STATUS_CLASSES)
        self.bytes_in = 0
        self.bytes_out = 0
        self.durations = [0] * (len(DURATION_BOUNDS) + 1)
        self.seconds = 0.0
        #: How busy the app is, and how many of its requests were counted for that.
        self.busy = 0.0
        self.ranked = 0
        self._series: Sequence[str] = ()
        self._text = ""
        self._text_count = -1

    @property
    def count(self) -> int:
        """How many requests."""
        return sum(map(sum, self.requests.values()))

    def add(self, others: Sequence[AppCounts]) -> None:
        """Take over what *others* have counted: thousands at once, so column by column."""
        for listener in {listener for other in others for listener in other.requests}:
            rows = [other.requests[listener] for other in (self, *others) if listener in other.requests]
            self.requests[listener] = [sum(column) for column in zip(*rows, strict=True)]
        rows = [self.durations, *(other.durations for other in others)]
        self.durations = [sum(column) for column in zip(*rows, strict=True)]
        self.seconds += sum([other.seconds for other in others])
        self.bytes_in += sum([other.bytes_in for other in others])
        self.bytes_out += sum([other.bytes_out for other in others])

    def histogram(self) -> str:
        """Its lines of :data:`REQUEST_DURATION`; the same text again while nothing was added."""
        count = sum(self.durations)
        if count != self._text_count:
            self._series = self._series or REQUEST_DURATION.series(self.label)
            self._text = numbers_in(self._series, self.durations, self.seconds)
            self._text_count = count
        return self._text


class _ByApp(dict[str, AppCounts]):
    """By app, and for every app that is not in it where to count for that one."""

    def __init__(self, series: AppSeries, counts: Mapping[str, AppCounts]) -> None:
        super().__init__(counts)
        self._series = series

    def __missing__(self, app: str) -> AppCounts:
        return self._series.counts_of(app)


class AppSeries:
    """Who has a series of its own.

    :param room: how many apps may.
    :ivar by_app: where to count the next request of an app.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._own = 0
        self._others = AppCounts(OTHER_APPS, is_own=True)
        reserved = {NO_APP: AppCounts(NO_APP, is_own=True), OTHER_APPS: self._others}
        self.by_app = _ByApp(self, reserved)
        # How busy those are that are not on the page.
        self._waiting: dict[str, float] = {}
        # What those had counted that were on it once, the last ones that were.
        self._away: OrderedDict[str, AppCounts] = OrderedDict()
        self._ranked_at = 0.0

    def counts_of(self, app: str) -> AppCounts:
        """Where to count for *app*, which is not in :attr:`by_app` yet."""
        counts = self.by_app.get(app or NO_APP)
        if counts is None:
            if len(self.by_app) - self._own >= MAX_OTHERS:
                return self._others
            counts = self.by_app[app] = AppCounts(app)
        return counts

    def label_of(self, app: str) -> str:
        """What the label ``app`` says for this app now, escaped; it gets a series if there is room."""
        counts = self.by_app.get(app or NO_APP)
        if counts is None or not counts.is_own:
            if self._own >= self._room:
                return self._others.label
            counts = self._admit(counts or AppCounts(app))
        return counts.label

    def is_own(self, label: str) -> bool:
        """Whether there is a series of this label; *label* is not escaped."""
        counts = self.by_app.get(label)
        return counts is not None and counts.is_own

    def look(self, now: float) -> Sequence[AppCounts]:
        """Decide who is on the page, and give what is told there.

        :param now: seconds on a clock that never goes back.
        """
        half_lives = max(now - self._ranked_at, 0.0) / HALF_LIFE_SECONDS
        self._ranked_at = now
        keep = 0.5**half_lives
        waiting = self._waiting
        newcomers = []
        for counts in self.by_app.values():
            count = counts.count
            if not counts.is_own:
                newcomers.append(counts)
                counts.busy = waiting.pop(counts.app, 0.0)
            counts.busy = counts.busy * keep + count - counts.ranked
            counts.ranked = count
        self._waiting = {app: busy * keep for app, busy in waiting.items() if busy > _FAINT}
        if newcomers:
            self._settle(newcomers)
        return tuple(counts for counts in self.by_app.values() if counts.is_own)

    # -- inner parts ---------------------------------------------------------

    def _settle(self, newcomers: list[AppCounts]) -> None:
        """Give places to the busiest of *newcomers*; what the others have counted is shared."""
        newcomers.sort(key=attrgetter("busy"), reverse=True)
        free = max(self._room - self._own, 0)
        for counts in newcomers[:free]:
            self._admit(counts)
        left = newcomers[free:]
        if left:
            del left[: self._exchange(left)]
        for counts in left:
            del self.by_app[counts.app]
            self._waiting[counts.app] = counts.busy
        if left:
            self._others.add(left)
        if len(self._waiting) > 2 * MAX_OTHERS:
            self._waiting = dict(nlargest(MAX_OTHERS, self._waiting.items(), key=itemgetter(1)))

    def _exchange(self, newcomers: Sequence[AppCounts]) -> int:
        """Let the first of *newcomers*, the busiest, take the places of the least busy; tells how many."""
        own = [counts for counts in self.by_app.values() if counts.is_own and counts.app not in _RESERVED]
        own.sort(key=attrgetter("busy"))
        for number, (least, counts) in enumerate(zip(own, newcomers, strict=False)):
            if counts.busy <= least.busy * _HEAD_START:
                return number
            self._admit(counts)
            self._send_away(least)
        return min(len(own), len(newcomers))

    def _admit(self, counts: AppCounts) -> AppCounts:
        app = counts.app
        before = self._away.pop(app, None)
        if before is not None:
            before.add([counts])
            before.busy, before.ranked = counts.busy, before.count
            counts = before
        counts.is_own = True
        self.by_app[app] = counts
        self._own += 1
        return counts

    def _send_away(self, counts: AppCounts) -> None:
        app = counts.app
        counts.is_own = False
        del self.by_app[app]
        self._own -= 1
        self._waiting[app] = counts.busy
        self._away[app] = counts
        while len(self._away) > self._room:
            self._away.popitem(last=False)
