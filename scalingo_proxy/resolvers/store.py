"""The embedded store: what the admin API was told, kept across restarts.

Answers come from a table in memory, at once; the disk is touched when apps
and certificates are loaded and when they change, in a thread.  A change is
acknowledged, and served, only after it is safe on the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from scalingo_proxy.errors import ResolverUnavailable
from scalingo_proxy.interfaces import IResolver
from scalingo_proxy.model import App, Certificate, CertificateChange, Route, RouteQuery, TopologyChange
from scalingo_proxy.resolvers.loading import Loading, answer_after
from scalingo_proxy.resolvers.store_file import StoreFile, record_text
from scalingo_proxy.resolvers.stored_certificates import CertificateReader, StoredCertificates
from scalingo_proxy.resolvers.table_feed import TableFeed
from scalingo_proxy.routing.table import RouteTable

__all__ = ["StoreResolver"]

P = ParamSpec("P")
T = TypeVar("T")


@implementer(IResolver)
class StoreResolver(TableFeed):
    """Apps and certificates in a SQLite file, one process at a time.

    :param path: the file; made when missing, readable by its owner alone.
        ``""`` keeps everything in memory only.
    :param reactor: its threads' results come back through it; the disk is
        not touched before it runs.
    :param lock_timeout: how long :meth:`start` waits for another process to
        let go of the file, in seconds.
    :param read_certificate: reads those in the file, in the store's thread;
        without it they stay there and are not served.

    :ivar certificates: an ICertificateFeed that can be written to.
    """

    def __init__(
        self,
        path: str,
        reactor: Any,
        name: str = "store",
        *,
        lock_timeout: float = 5.0,
        read_certificate: CertificateReader | None = None,
    ) -> None:
        super().__init__(name)
        self.certificates = StoredCertificates(lambda plan: _shielded(self._apply_certificates(plan)))
        #: What is kept beside apps and certificates, by name; see :meth:`set_document`.
        self.documents: dict[str, Any] = {}
        self._read_certificate = read_certificate
        self._reactor = reactor
        self._file = StoreFile(path, lock_timeout) if path else None
        self._thread: _StoreThread | None = None
        self._is_open = False
        self._loading = Loading()
        # One change after the other, so that each is judged by the table that
        # it will change, and the disk hears of them in the same order.
        self._turn = DeferredLock()

    @property
    def is_loaded(self) -> bool:
        """Whether the apps are known, so that queries are answered at once."""
        return self._loading.is_done

    def when_loaded(self) -> Deferred[None]:
        """Fires once the apps are known; fails when :meth:`start` does."""
        return self._loading.wait()

    def start(self) -> Deferred[None]:
        """Open the file and load its apps, which are told to watchers as one change.

        After a failure or :meth:`stop` it may be called again.

        :raises ConfigurationError: (the Deferred fails with it) when the file
            cannot be used, with a sentence that says why.
        """
        return _shielded(self._start())

    def stop(self) -> Deferred[None]:
        """Let the changes that wait finish, then close the file.

        Queries are answered as before; later changes fail.
        """
        return _shielded(self._stop())

    def resolve(self, query: RouteQuery) -> Route | Deferred[Route]:
        """The route of the host that is asked for; a Deferred until the apps are loaded.

        :raises UnknownHost: when no app claims it.
        :raises ResolverUnavailable: (the Deferred fails with it) when the apps
            could not be loaded.
        """
        if self._loading.is_done:
            return self._answer(query)
        return answer_after(self._loading.wait(), lambda: self._answer(query))

    def apply(self, change: TopologyChange) -> Deferred[None]:
        """Take over *change* as a whole; fires when it is on the disk and served.

        Cancelling only ends the waiting: the change is made all the same.

        :raises DomainTaken: two apps would claim one domain.
        :raises ConfigurationError: an app cannot be told as a record.
        :raises ResolverUnavailable: the store is not open, or the disk fails.
            The Deferred fails with these; nothing is changed then.
        """
        return _shielded(self._apply(lambda: change))

    def set_app(self, app: App) -> Deferred[None]:
        """Add *app*, or replace the one of that name; as :meth:`apply`."""
        return self.apply(TopologyChange((app,)))

    def remove_app(self, name: str) -> Deferred[None]:
        """Forget the app called *name*; as :meth:`apply`.

        :raises KeyError: (the Deferred fails with it) when there is none.
        """

        def removal() -> TopologyChange:
            if name not in self.table.apps:
                raise KeyError(name)
            return TopologyChange((), (name,))

        return _shielded(self._apply(removal))

    def set_document(self, name: str, value: Any) -> Deferred[None]:
        """Keep a lone JSON value under *name*; ``None`` forgets it.  As :meth:`apply`."""
        return _shielded(self._set_document(name, value))

    # -- one at a time ---------------------------------------------------------

    async def _start(self) -> None:
        async with self._turn:
            if self._is_open:
                return
            self._loading.begin()
            table, certificates = self.table, tuple(self.certificates.certificates().values())
            try:
                if self._file is not None:
                    table, certificates = await self._load(self._file)
            except Exception as error:
                self._loading.abandon(error)
                raise
            self._is_open = True
            difference = table.difference(self.table)
            self.table = table
            # Before the apps: whoever asks for one of them finds its certificate.
            gone = self.certificates.certificates().keys() - {each.name for each in certificates}
            self.certificates.take_over(CertificateChange(certificates, tuple(gone)))
            self._loading.finish()
            self._tell(difference)

    async def _load(self, file: StoreFile) -> tuple[RouteTable, tuple[Certificate, ...]]:
        thread = _StoreThread(self._reactor)
        certificates: tuple[Certificate, ...] = ()
        try:
            await thread.run(file.open)
            self.documents = await thread.run(file.load_documents)
            table = await thread.run(file.load, self.name)
            if self._read_certificate is not None:
                certificates = await thread.run(file.load_certificates, self._read_certificate)
        except GeneratorExit:  # the program ends before its reactor ran: nothing can be waited for
            raise
        except BaseException:
            await thread.run(file.close)
            thread.stop()
            raise
        self._thread = thread
        return table, certificates

    async def _apply(self, plan: Callable[[], TopologyChange]) -> None:
        async with self._turn:
            if not self._is_open:
                raise ResolverUnavailable("the store is not open")
            table, difference = self._planned(plan())
            if self._file is None or self._thread is None:
                for app in difference.updated:
                    record_text(app)  # refuses here what it would refuse with a file
            else:
                await self._thread.run(self._file.write, difference)
            self._swap(table, difference)

    async def _apply_certificates(self, plan: Callable[[], CertificateChange]) -> None:
        async with self._turn:
            if not self._is_open:
                raise ResolverUnavailable("the store is not open")
            change = plan()
            if self._file is not None and self._thread is not None:
                await self._thread.run(self._file.write_certificates, change)
            self.certificates.take_over(change)

    async def _set_document(self, name: str, value: Any) -> None:
        async with self._turn:
            if not self._is_open:
                raise ResolverUnavailable("the store is not open")
            if self._file is not None and self._thread is not None:
                await self._thread.run(self._file.write_document, name, value)
            if value is None:
                self.documents.pop(name, None)
            else:
                self.documents[name] = value

    async def _stop(self) -> None:
        async with self._turn:
            self._is_open = False
            thread, self._thread = self._thread, None
            if thread is not None and self._file is not None and not thread.is_over:
                try:
                    await thread.run(self._file.close)
                finally:
                    thread.stop()


class _StoreThread:
    """One thread, begun when the reactor runs and ended with it at the latest.

    Not adbapi's pool: that connects before the file could be made with its
    mode, and closes, with the disk writes this takes, in the reactor's thread.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, 1, "store")
        # A program that fails before its reactor runs must not be kept alive.
        reactor.callWhenRunning(self._pool.start)
        self._trigger = reactor.addSystemEventTrigger("during", "shutdown", self._pool.stop)

    @property
    def is_over(self) -> bool:
        """Whether it has ended: by :meth:`stop`, or with the reactor."""
        return self._pool.joined

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """What *function* returns or raises there."""
        if self.is_over:  # the pool would drop it without a word
            raise ResolverUnavailable("the store is not open")
        return deferToThreadPool(self._reactor, self._pool, function, *args, **kwargs)

    def stop(self) -> None:
        """End it; waits for what is under way."""
        if not self.is_over:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._pool.stop()


def _shielded(work: Coroutine[Any, Any, None]) -> Deferred[None]:
    """The end of *work*, which goes on when nobody waits for it any more."""
    end: Deferred[None] = Deferred()
    Deferred.fromCoroutine(work).addCallbacks(end.callback, end.errback)
    return end
