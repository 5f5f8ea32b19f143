"""Downloads: whatever the server does and whenever we are killed, every tile arrives once."""

import calendar
import dataclasses
import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes.tile_server import FAULTS, TileServer, tile_bytes

from crossview.errors import NoSpaceError, ProviderDownError, RefusedError, StoreError
from crossview.tiles import TileId
from data_tools import downloads, fetch, providers
from data_tools.fetch import Client, ClosedForNowError, StatusError
from data_tools.tile_store import TileStore

PX = 32
TILES = [TileId(14, 8000 + i % 12, 5000 + i // 12) for i in range(96)]
QUICK = {"timeout_s": 0.6, "backoff_s": 0.01, "default_pause_s": 0.01}
REPOSITORY = Path(__file__).resolve().parents[1]


def quick_client(rate_per_s=5000.0, **options):
    return Client(rate_per_s, **(QUICK | options))


def provider_of(server, **facts):
    return providers.from_template(server.url, **({"tile_px": PX} | facts))


def downloaded(server, path, tiles=TILES, *, client=None, **facts):
    """The report of one run."""
    provider = provider_of(server, **facts)
    with client or quick_client() as asking, downloads.store_for(provider, path) as store:
        return downloads.download(provider, tiles, store, asking)


def assert_whole(path, tiles=TILES):
    """Every tile is there to the bit, nothing else is, and no file beside it."""
    with TileStore(path) as store:
        assert store.missing(tiles) == []
        assert len(store) == len(tiles)
        assert all(store.get(tile) == tile_bytes(*tile) for tile in tiles)
        assert store.damaged() == []
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.mbtiles"


# ---------------------------------------------------------------- what arrives


def test_every_tile_is_fetched_once_and_not_again(path):
    with TileServer() as server:
        first = downloaded(server, path)
        assert (first.stored, first.already, first.absent, first.failed) == (96, 0, 0, ())
        assert first.bytes == sum(len(tile_bytes(*tile)) for tile in TILES)
        assert first.is_complete
        assert sorted(entry.tile for entry in server.log) == sorted(map(tuple, TILES))
        second = downloaded(server, path, TILES + TILES)
        assert (second.stored, second.already, second.bytes) == (0, 96, 0)
        assert len(server.log) == 96
    assert_whole(path)


def test_absent_tiles_are_asked_for_once(path):
    with TileServer(absent=TILES[:5]) as server:
        for _ in range(2):
            report = downloaded(server, path)
            assert report.absent == 5
            assert report.is_complete
        assert len(server.log) == 96
    assert_whole(path, TILES[5:])


def wait_for(condition, *, most_s=30):
    deadline_s = time.monotonic() + most_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def faults_for(seed):
    """One to three faults for half of the tiles, every kind among them."""
    rng = random.Random(seed)
    # what costs a time-out comes once
    quick = [name for name in FAULTS if "stall" not in name and name != "drip"]
    faults = {tile: rng.choices(quick, k=rng.randint(1, 3)) for tile in rng.sample(TILES, 48)}
    for name, tile in zip(FAULTS, rng.sample(TILES, len(FAULTS)), strict=True):
        faults.setdefault(tile, []).append(name)
    return faults


@pytest.mark.parametrize("seed", range(4))
def test_in_spite_of_every_fault_all_tiles_arrive_to_the_bit(path, seed):
    faults = faults_for(seed)
    with TileServer(faults=faults) as server:
        report = downloaded(server, path)
        assert (report.stored, report.failed) == (len(TILES), ())
        assert {entry.outcome for entry in server.log} == {*FAULTS, "200"}
        for tile in TILES:
            # until its first whole answer, and never after it
            assert server.requests(tile) == [*faults.get(tile, []), "200"]
    assert_whole(path)


def test_the_limit_is_never_exceeded(path):
    rate, workers = 60, 4
    quick = ["500", "reset", "truncated", "html"]
    faults = {tile: [quick[k % 4]] for k, tile in enumerate(TILES[:24])}
    with TileServer(faults=faults) as server:
        client = quick_client(rate, num_connections=workers)
        assert downloaded(server, path, TILES[:48], client=client).stored == 48
        assert len(server.log) == 72
        for window_s in (0.2, 0.5, 1.0):
            # as many as there are workers may have been on their way when the window began
            allowed = math.floor(rate * window_s) + 2 + workers
            assert server.most_within(window_s) <= allowed


def test_a_limit_that_is_kept_meets_no_429(path):
    # 8 on their way, and 2 of credit: at most 50 arrive within any second
    with TileServer(limit_per_s=50) as server:
        client = quick_client(40, num_connections=8)
        assert downloaded(server, path, TILES[:60], client=client).stored == 60
        assert {entry.outcome for entry in server.log} == {"200"}


def test_a_limit_that_is_not_known_is_found(path):
    with TileServer(limit_per_s=20) as server:
        client = quick_client(60, num_connections=8)
        report = downloaded(server, path, TILES[:40], client=client)
        assert report.stored == 40
        refused = sum(entry.outcome.startswith("429") for entry in server.log)
        assert 0 < refused <= 24
        assert client.bucket(server.root).current_rate_per_s() < 60
    assert_whole(path, TILES[:40])


def test_a_tile_that_cannot_be_had_is_named_and_fetched_another_day(path):
    with TileServer(faults={TILES[7]: ["wrong size"] * 3}) as server:
        report = downloaded(server, path, client=quick_client(max_attempts=3))
        ((tile, why),) = report.failed
        assert tile == TILES[7]
        assert "(24, 24)" in why
        assert (report.stored, report.is_complete) == (95, False)
        assert downloaded(server, path).stored == 1
    assert_whole(path)


def test_what_a_page_says_is_passed_on(path):
    with TileServer(faults={TILES[0]: ["html"]}) as server:
        report = downloaded(server, path, TILES[:1], client=quick_client(max_attempts=1))
    assert "Please log in" in report.failed[0][1]


def test_a_provider_that_is_down_is_left_alone_and_what_came_is_kept(path):
    faults = {tile: ["503"] * 9 for tile in TILES[40:]}
    with TileServer(faults=faults) as server:
        with pytest.raises(ProviderDownError, match="in a row could not be had"):
            downloaded(server, path, client=quick_client(max_attempts=2))
        assert len(server.log) < 40 + 2 * 40
        with TileStore(path) as store:
            assert store.stored(TILES) == TILES[:40]


def test_a_refusal_ends_everything(path):
    with TileServer(faults={tile: ["403"] for tile in TILES}) as server:
        with pytest.raises(RefusedError, match="status 403"):
            downloaded(server, path, client=quick_client(num_connections=4))
        assert len(server.log) <= 8


def test_a_refusal_of_one_tile_among_others_is_a_failure_of_that_tile(path):
    with TileServer(faults={TILES[50]: ["403"]}) as server:
        report = downloaded(server, path)
        assert [tile for tile, _ in report.failed] == [TILES[50]]
        assert report.stored == len(TILES) - 1


def test_a_server_that_closes_for_today_is_asked_nothing_more(path, monkeypatch):
    monkeypatch.setattr(fetch, "LONGEST_PAUSE_S", 500)
    before_s = time.time()
    with TileServer(faults={tile: ["429 for a while"] for tile in TILES[3:6]}) as server:

        def slow(_):
            # the caller is busy while the others wait for their turns, 50 ms apart
            if not any(entry.outcome[:3] == "429" for entry in server.log):
                wait_for(lambda: any(entry.outcome[:3] == "429" for entry in server.log))
                time.sleep(0.5)

        provider = provider_of(server)
        with (
            downloads.store_for(provider, path) as store,
            quick_client(20) as client,
            pytest.raises(ClosedForNowError, match=r"asks to wait 600 s.*Run again") as end,
        ):
            downloads.download(provider, TILES, store, client, progress=slow)
        closed = next(i for i, entry in enumerate(server.log) if entry.outcome[:3] == "429")
        # one may have been on its way
        assert len(server.log) <= closed + 2
    after_s = calendar.timegm(time.strptime(str(end.value)[-21:], "%Y-%m-%d %H:%M UTC."))
    assert before_s + 600 - 60 <= after_s <= time.time() + 600


def test_the_status_of_a_refusal_is_not_looked_for_in_the_url(path):
    with TileServer(faults={TILES[50]: ["401"]}) as server:
        provider = provider_of(server)
        provider = dataclasses.replace(provider, template=server.root + "/403/{z}/{x}/{y}")
        with (
            downloads.store_for(provider, path) as store,
            quick_client() as client,
            pytest.raises(StatusError) as refused,
        ):
            downloads.download(provider, TILES, store, client)
        assert refused.value.status == 401


def test_an_interrupt_does_not_wait_for_a_pause_and_keeps_what_came(path):
    seen = []

    def interrupted(number):
        seen.append(number)
        if len(seen) == 20:
            # until everybody waits for ten minutes
            wait_for(lambda: any(entry.outcome.startswith("429") for entry in server.log))
            raise KeyboardInterrupt

    with TileServer(faults={TILES[30]: ["429 for a while"]}) as server:
        provider = provider_of(server)
        with downloads.store_for(provider, path) as store, quick_client() as client:
            with pytest.raises(KeyboardInterrupt):
                downloads.download(provider, TILES, store, client, progress=interrupted)
            assert len(store) >= 20
            assert downloads.WORKER not in [thread.name for thread in threading.enumerate()]
            num_asked = len(server.log)
        assert num_asked < len(TILES)
        assert downloaded(server, path).is_complete
    assert_whole(path)


def test_the_terms_are_looked_at_before_anything_is_fetched(path):
    with TileServer() as server:
        policy = dataclasses.replace(providers.UNKNOWN, rate_per_s=1e4)
        provider = provider_of(server, policy=policy)
        many = [TileId(16, x, y) for x in range(40) for y in range(30)]
        with downloads.store_for(provider, path) as store, quick_client() as client:
            with pytest.raises(RefusedError, match="1,200 tiles"):
                downloads.download(provider, many, store, client)
            assert server.log == []


def test_a_client_that_is_faster_than_the_terms_is_refused(path):
    with TileServer() as server:
        provider = provider_of(server, policy=providers.UNKNOWN)
        with downloads.store_for(provider, path) as store, quick_client(20) as client:
            with pytest.raises(RefusedError, match="at most 5 times a second, not 20"):
                downloads.download(provider, TILES, store, client)
            assert server.log == []
            report = downloads.download(provider, TILES[:3], store, client, has_permission=True)
            assert report.stored == 3


def test_a_provider_that_has_nothing_is_said(path, caplog):
    with TileServer(absent=TILES) as server:
        assert downloaded(server, path).absent == len(TILES)
        assert "none of the 96 tiles" in caplog.text


def test_progress_counts_to_the_end(path):
    seen = []
    with TileServer(absent=TILES[:3]) as server:
        provider = provider_of(server)
        with downloads.store_for(provider, path) as store, quick_client() as client:
            downloads.download(provider, TILES, store, client, progress=seen.append)
    assert sum(seen) == len(TILES)


def test_one_picture_everywhere_is_absent(path):
    with TileServer(answer=lambda *tile: tile_bytes(0, 0, 0)) as server:
        report = downloaded(server, path)
        assert (report.stored, report.absent) == (0, len(TILES))
        assert downloaded(server, path).absent == len(TILES)
        assert len(server.log) == len(TILES)


# ---------------------------------------------------------------- again, later


def test_revalidation_fetches_what_has_changed_only(path):
    changed = set(TILES[10:14])
    with TileServer() as server:
        downloaded(server, path)
        provider = provider_of(server)

        def newer(*tile):
            return tile_bytes(tile[0] + 1, *tile[1:]) if tile in changed else tile_bytes(*tile)

        server.answer = newer
        num_before = len(server.log)
        with downloads.store_for(provider, path) as store, quick_client() as client:
            report = downloads.revalidate(provider, [*TILES, TileId(14, 1, 1)], store, client)
            assert (report.stored, report.already, report.failed) == (4, 92, ())
            assert report.bytes == sum(len(newer(*tile)) for tile in changed)
            assert all(store.get(tile) == newer(*tile) for tile in TILES)
        assert len(server.log) == num_before + len(TILES)
        assert all("If-None-Match" in entry.headers for entry in server.log[num_before:])


# ---------------------------------------------------------------- killed, full, two at once

DOWNLOADER = """
import json, resource, sys
from crossview.tiles import TileId
from data_tools import downloads, providers
from data_tools.fetch import Client

url, path, tiles, file_bytes = json.loads(sys.argv[1])
if file_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
# small batches, so that a kill finds commits under way
downloads.BATCH_TILES, downloads.COMMIT_S = 4, 0.02
provider = providers.from_template(url, tile_px=32)
with Client(400, num_connections=4, timeout_s=5) as client:
    with downloads.store_for(provider, path) as store:
        print(downloads.download(provider, [TileId(*t) for t in tiles], store, client).stored)
"""


def start_downloader(server, path, tiles=TILES, *, file_bytes=0):
    given = json.dumps([server.url, str(path), [list(tile) for tile in tiles], file_bytes])
    return subprocess.Popen(
        [sys.executable, "-c", DOWNLOADER, given],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stored_in(path, tiles):
    """What survived; the first kills may come before there is a store."""
    try:
        with TileStore(path) as store:
            assert store.damaged() == []
            return {tuple(tile) for tile in store.stored(tiles)}
    except StoreError:
        return set()


@pytest.mark.slow
def test_killed_thirty_times_it_loses_nothing_and_asks_for_nothing_twice(path):
    rng = random.Random(4)
    tiles = [TileId(15, 16000 + i % 40, 10000 + i // 40) for i in range(1200)]
    num_kills = 30
    safe, moments = set(), []
    with TileServer(delay_s=0.002) as server:
        for _ in range(num_kills):
            process = start_downloader(server, path, tiles)
            num_before = len(server.log)
            most = num_before + rng.randint(1, 36)
            deadline_s = time.monotonic() + 60
            while len(server.log) < most and time.monotonic() < deadline_s:
                time.sleep(rng.uniform(0.0, 0.004))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            asked = {entry.tile for entry in server.log[num_before:]}
            assert not asked & safe
            now = stored_in(path, tiles)
            assert now >= safe
            moments.append(len(now) - len(safe))
            safe = now
        num_before = len(server.log)
        finished = start_downloader(server, path, tiles)
        _, errors = finished.communicate(timeout=120)
        assert finished.returncode == 0, errors
        asked = [entry.tile for entry in server.log[num_before:]]
        assert sorted(asked) == sorted({tuple(tile) for tile in tiles} - safe)
        assert server.most_within(1.0) <= 400 + 2 + 4
    # kills at different moments, or this shows little
    assert len(set(moments)) > 5
    assert_whole(path, tiles)


def test_a_full_disk_is_said_and_the_rest_comes_later(path):
    with TileServer() as server:
        process = start_downloader(server, path, file_bytes=150_000)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "NoSpaceError" in errors
        assert "make room and run again" in errors
        safe = stored_in(path, TILES)
        assert 0 < len(safe) < len(TILES)
        num_before = len(server.log)
        assert downloaded(server, path).already == len(safe)
        assert not {entry.tile for entry in server.log[num_before:]} & safe
    assert_whole(path)


def test_a_full_disk_in_the_middle_stops_the_workers(path, monkeypatch):
    monkeypatch.setattr(downloads, "BATCH_TILES", 8)
    with TileServer(delay_s=0.005) as server:
        provider = provider_of(server)
        with downloads.store_for(provider, path) as store, quick_client() as client:
            connection = store._connection()
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages + 15}")
            with pytest.raises(NoSpaceError):
                downloads.download(provider, TILES, store, client)
            num_stored = len(store)
        assert num_stored > 0
        assert len(server.log) < len(TILES)
        assert downloaded(server, path).already == num_stored
    assert_whole(path)


def test_two_downloads_of_one_store_do_not_fetch_twice(path):
    with TileServer(delay_s=0.002) as server:
        processes = [start_downloader(server, path) for _ in range(2)]
        outputs = [process.communicate(timeout=60) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        assert sorted(int(words) for words, _ in outputs) == [0, len(TILES)]
        assert len(server.log) == len(TILES)
    assert_whole(path)
