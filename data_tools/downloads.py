"""Downloading tiles into a store: what is missing, by all workers, committed as it comes."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field

from crossview.errors import ContentError, ProviderDownError, RefusedError
from crossview.tiles import TileId
from data_tools import fetch
from data_tools.fetch import NOT_MODIFIED, Client, ClosedForNowError, Response, StatusError
from data_tools.providers import Provider, require_permission
from data_tools.tile_store import BATCH_TILES, TileImage, TileStore

logger = logging.getLogger(__name__)

ABSENT_STATUSES = (204, 404, 410)
"""A server's words for: there is no such tile."""
COMMIT_S = 2.0
"""What a killed process may lose, beside what is on its way."""
MAX_FAILURES_IN_A_ROW = 24
"""Without one answer between them: the provider is down."""
MAX_FIRST_FAILURES = 8
"""Without any answer before them."""
WORKER = "crossview-download"
JOIN_S = 2.0
"""For requests on their way when everything ends; they write nothing."""


@dataclass(frozen=True)
class DownloadReport:
    """What became of the tiles.

    Attributes:
        stored: New ones, or new versions.
        already: Stored before; when revalidated: found unchanged.
        absent: Not at the provider, now or as known before.
        failed: (tile, why), of those that could not be had.
        bytes: Received in tiles.
        seconds: It took.
    """

    stored: int
    already: int
    absent: int
    failed: tuple[tuple[TileId, str], ...]
    bytes: int
    seconds: float

    @property
    def is_complete(self) -> bool:
        """Nothing failed; what is absent does not exist."""
        return not self.failed

    def after(self, revalidation: DownloadReport) -> DownloadReport:
        """Of this download and the revalidation of the same tiles before it together."""
        return DownloadReport(
            revalidation.stored + self.stored,
            revalidation.already,
            self.absent,
            revalidation.failed + self.failed,
            revalidation.bytes + self.bytes,
            revalidation.seconds + self.seconds,
        )


def client_for(
    provider: Provider,
    *,
    rate_per_s: float | None = None,
    has_permission: bool = False,
    **options: float | str,
) -> Client:
    """A client at the provider's rate, or a lower one.

    Raises:
        RefusedError: The rate is above the provider's, without its permission.
    """
    rate_per_s = provider.policy.rate_per_s if rate_per_s is None else rate_per_s
    _require_polite(provider, rate_per_s, has_permission=has_permission)
    return Client(rate_per_s, **options)  # type: ignore[arg-type]


def _require_polite(provider: Provider, rate_per_s: float, *, has_permission: bool) -> None:
    polite = provider.policy.rate_per_s
    if rate_per_s > polite and not has_permission:
        raise RefusedError(
            f"{provider.name} is asked at most {polite:g} times a second, not {rate_per_s:g}."
        )


def store_for(provider: Provider, path: str | os.PathLike[str], **options: float) -> TileStore:
    """A store of a provider's tiles, opened for writing; see TileStore.writing."""
    return TileStore.writing(
        path,
        tile_px=provider.tile_px,
        metadata=provider.metadata(),
        placeholders=provider.placeholders,
        **options,
    )


def download(
    provider: Provider,
    tiles: Iterable[TileId],
    store: TileStore,
    client: Client,
    *,
    has_permission: bool = False,
    progress: Callable[[int], None] | None = None,
) -> DownloadReport:
    """Fetch the tiles that the store has not, and store them as they come.

    Stopped or killed at any moment, what was committed stays, and the next call fetches the rest:
    no tile is asked for again once it is stored, or known to be absent. After an error the client
    is closed.

    Args:
        provider: Whose tiles.
        tiles: Which ones.
        store: Opened for writing (`store_for`).
        client: At the provider's rate (`client_for`).
        has_permission: See providers.require_permission.
        progress: Called with the number of tiles that are done since the last call.

    Raises:
        RefusedError: The terms do not allow it, the client is too fast, or the server refuses.
        ProviderDownError: Nothing but failures, or the server asks to wait for very long
            (ClosedForNowError); what came before is stored.
        KeyMissingError: The provider needs a key.
        NoSpaceError: The disk is full; what came before is stored.
    """
    wanted = list(dict.fromkeys(TileId(*tile) for tile in tiles))
    missing = store.missing(wanted)
    _require_polite(provider, client.rate_per_s, has_permission=has_permission)
    require_permission(provider, len(store) + len(missing), has_permission=has_permission)
    before = len(store.stored(wanted))
    job = _Job(provider, store, client, progress)
    seconds = job.run(missing)
    if missing and not job.num_images and not job.failures:
        logger.warning(
            "%s has none of the %d tiles: look at its address, its zooms and the area; when they "
            "are right later, --ask-absent-again (TileStore.forget_absent) asks for them again",
            provider.name,
            len(missing),
        )
    stored, absent = len(store.stored(wanted)), len(store.absent(wanted))
    # a placeholder that was recognised late takes stored tiles away
    return DownloadReport(
        max(0, stored - before), min(before, stored), absent, job.failures, job.num_bytes, seconds
    )


def revalidate(
    provider: Provider,
    tiles: Iterable[TileId],
    store: TileStore,
    client: Client,
    *,
    progress: Callable[[int], None] | None = None,
) -> DownloadReport:
    """Ask whether stored tiles have changed (conditional requests), and fetch those that have.

    Arguments and errors are those of `download`; tiles that are not stored are left out.
    """
    stored = store.stored(dict.fromkeys(TileId(*tile) for tile in tiles))
    _require_polite(provider, client.rate_per_s, has_permission=False)
    job = _Job(provider, store, client, progress, validators=store.validators)
    seconds = job.run(stored)
    failed, changed = len(job.failures), job.num_images
    return DownloadReport(
        changed, len(stored) - changed - failed, 0, job.failures, job.num_bytes, seconds
    )


@dataclass(frozen=True)
class _Outcome:
    """Of one tile: an image, or a reason why it is absent, or why it failed, or nothing new."""

    tile: TileId
    image: TileImage | None = None
    absent: str | None = None
    failed: str | None = None
    error: BaseException | None = None


@dataclass
class _Job:
    """One run over some tiles: workers fetch and decode, the caller's thread commits."""

    provider: Provider
    store: TileStore
    client: Client
    progress: Callable[[int], None] | None = None
    validators: Callable[[TileId], tuple[str | None, str | None]] | None = None

    num_bytes: int = 0
    num_images: int = 0
    _failures: list[tuple[TileId, str]] = field(default_factory=list)
    _images: list[TileImage] = field(default_factory=list)
    _absent: dict[TileId, str] = field(default_factory=dict)
    _in_a_row: int = 0
    _num_answers: int = 0

    @property
    def failures(self) -> tuple[tuple[TileId, str], ...]:
        return tuple(self._failures)

    def run(self, tiles: list[TileId]) -> float:
        """Seconds that it took."""
        started_s = committed_s = time.monotonic()
        if tiles:
            self.provider.url(tiles[0])  # a missing key, or a wrong zoom, before anything starts
        try:
            with contextlib.closing(self._outcomes(tiles)) as outcomes:
                for outcome in outcomes:
                    if outcome is not None:
                        self._note(outcome)
                    num_waiting = len(self._images) + len(self._absent)
                    late = time.monotonic() - committed_s > COMMIT_S
                    if num_waiting >= BATCH_TILES or (late and num_waiting):
                        self._commit()
                        committed_s = time.monotonic()
        finally:
            # also when interrupted: what has come is worth keeping
            self._commit()
        return time.monotonic() - started_s

    def _note(self, outcome: _Outcome) -> None:
        if outcome.error is not None:
            raise outcome.error
        if outcome.failed is not None:
            self._failures.append((outcome.tile, outcome.failed))
            self._in_a_row += 1
            if self._in_a_row >= (
                MAX_FAILURES_IN_A_ROW if self._num_answers else MAX_FIRST_FAILURES
            ):
                raise ProviderDownError(
                    f"{self.provider.name}: {self._in_a_row} tiles in a row could not be had, the "
                    f"last because: {outcome.failed} What came before is stored; run again later."
                )
        else:
            self._in_a_row = 0
            self._num_answers += 1
        if outcome.image is not None:
            self._images.append(outcome.image)
            self.num_images += 1
            self.num_bytes += len(outcome.image.body)
        if outcome.absent is not None:
            self._absent[outcome.tile] = outcome.absent
        if self.progress is not None:
            self.progress(1)

    def _commit(self) -> None:
        # taken out first: after an error they are not tried again
        images, self._images = self._images, []
        absent, self._absent = self._absent, {}
        if images:
            self.store.put_many(images)
        if absent:
            self.store.put_absent(absent)

    def _outcomes(self, tiles: list[TileId]) -> Generator[_Outcome | None, None, None]:
        """Outcomes as they come; None now and then, while there is none."""
        waiting = collections.deque(tiles)
        done: queue.Queue[_Outcome] = queue.Queue(maxsize=2 * BATCH_TILES)
        is_over, is_finished = threading.Event(), False

        def work() -> None:
            while not is_over.is_set():
                try:
                    tile = waiting.popleft()
                except IndexError:
                    return
                outcome = self._outcome(tile)
                if outcome.error is not None:
                    # nobody begins another tile
                    waiting.clear()
                while not is_over.is_set():
                    with contextlib.suppress(queue.Full):
                        done.put(outcome, timeout=0.5)
                        break

        num_workers = min(self.client.num_connections, len(tiles))
        workers = [
            threading.Thread(target=work, daemon=True, name=WORKER) for _ in range(num_workers)
        ]
        for worker in workers:
            worker.start()
        try:
            for _ in tiles:
                while True:
                    try:
                        yield done.get(timeout=COMMIT_S / 2)
                        break
                    except queue.Empty:
                        yield None
            is_finished = True
        finally:
            is_over.set()
            waiting.clear()
            if not is_finished:
                # a pause of minutes is not waited for
                self.client.close()
            for worker in workers:
                worker.join(JOIN_S)

    def _outcome(self, tile: TileId) -> _Outcome:
        """Everything that one tile may come to; errors of one tile are not errors of all."""
        images: list[TileImage] = []
        etag, last_modified = (None, None) if self.validators is None else self.validators(tile)

        def check(response: Response) -> None:
            if response.status in (*ABSENT_STATUSES, NOT_MODIFIED):
                return
            if response.status != 200:
                raise ContentError(f"Status {response.status}. {_words(response)}".strip())
            images[:] = [self._image(tile, response)]

        try:
            response = self.client.get(
                self.provider.url(tile),
                headers=self.provider.headers,
                etag=etag,
                last_modified=last_modified,
                check=check,
            )
        except BaseException as error:
            if self._is_of_one_tile(error):
                return _Outcome(tile, failed=fetch.redacted(str(error)))
            # raised where the caller is
            return _Outcome(tile, error=error)
        if response.status in ABSENT_STATUSES:
            return _Outcome(tile, absent=str(response.status))
        return _Outcome(tile, image=images[0] if images else None)

    def _is_of_one_tile(self, error: BaseException) -> bool:
        if isinstance(error, StatusError):
            # some object stores say 403 for a tile that is not there
            return error.status == 403 and self._num_answers > 0
        if isinstance(error, ClosedForNowError):
            return False
        return isinstance(error, ContentError | ProviderDownError)

    def _image(self, tile: TileId, response: Response) -> TileImage:
        try:
            return TileImage(
                tile, response.body, self.provider.tile_px, response.etag, response.last_modified
            )
        except ContentError as error:
            said = _words(response)
            raise ContentError(f"{error}{f' The server says: {said}' if said else ''}") from None


def _words(response: Response) -> str:
    return fetch.words(response.body, response.content_type)
