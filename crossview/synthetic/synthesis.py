"""Synthetic datasets: any world photographed from the street and from above, as a manifest.

The work is cut into blocks that any process can make (see shooting). What is done is written into a
journal, block by block; who was interrupted goes on from there, and the dataset is the same as if
nothing had happened. The tables are written in the end: until then the folder is no manifest.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from crossview import atomic
from crossview.errors import ManifestError
from crossview.grids import Bounds
from crossview.osm import ATTRIBUTION
from crossview.synthetic.processes import Makers, makers
from crossview.synthetic.recipes import Recipe
from crossview.synthetic.shooting import (
    BLOCK,
    TILES_BLOCK,
    Block,
    Made,
    lattice,
    make,
    warm_up,
    world_of,
)
from crossview.synthetic.survey import in_words
from crossview.synthetic.synthesis_tables import Survey, write_tables

RECIPE_FILE = "synthesis.json"
JOURNAL_FOLDER = ".synthesis"
_FOLDERS = (
    "maps", "views", "tiles", "classes", "instances", "depth", "normals", "tile_classes",
    "tile_heights",
)  # fmt: skip
"""That blocks and worlds are written into."""

TRIAL_VIEWS = 4
"""That an estimate takes."""

_MEGABYTE = 1e6
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """What a dataset has become.

    Args:
        out: Its folder.
        num_places: Where photos were taken.
        num_missing: Places fewer than asked for: no route for a drive was as long.
        num_views: Photos.
        num_tiles: Satellite tiles.
        num_pairs: Of both.
        num_drives: Drives with odometry.
        num_files: Images and maps.
        megabytes: Of them.
        refused: Places that were drawn again, by the reason: "building", "thing" (fences, trunks,
            poles), "crown", or "bare" where no building is near.
        splits: Views by split.
        num_made: Places and tiles of the grid that this run has made; the others were there.
        seconds: That it took.
        workers: Processes.
    """

    out: str
    num_places: int
    num_missing: int
    num_views: int
    num_tiles: int
    num_pairs: int
    num_drives: int
    num_files: int
    megabytes: float
    refused: dict[str, int]
    splits: dict[str, int]
    num_made: int
    seconds: float
    workers: int

    def sentences(self) -> str:
        """In words."""
        drives = f" in {self.num_drives:,} drives" if self.num_drives else ""
        tiles = f", {self.num_tiles:,} tiles, {self.num_pairs:,} pairs" if self.num_tiles else ""
        rate = self.num_made / self.seconds if self.seconds else 0.0
        lines = [
            f"{self.out}: {self.num_views:,} views at {self.num_places:,} places{drives}{tiles}; "
            f"{self.num_files:,} files, {self.megabytes:,.1f} MB.",
            f"Made now: {self.num_made:,} in {self.seconds:,.1f} s, {rate:,.1f} a second with "
            f"{self.workers} processes.",
        ]
        if self.refused:
            reasons = ", ".join(f"{number:,} {why}" for why, number in self.refused.items())
            lines.append(
                f"Places that were drawn again, as the camera was in or near: {reasons} (bare: no "
                "building near)."
            )
        if self.num_missing:
            lines.append(
                f"Missing: {self.num_missing:,} frames of drives that found no longer way."
            )
        if self.splits:
            counts = ", ".join(f"{name or 'none'} {n:,}" for name, n in self.splits.items())
            lines.append(f"Splits: {counts}.")
        return "\n".join(lines)


@dataclass(frozen=True)
class Estimate:
    """What a dataset would take, from a trial of a few views.

    Args:
        num_views: Photos.
        num_tiles: Satellite tiles.
        num_files: Images and maps.
        megabytes: Of them.
        minutes: With these processes, worlds included.
        workers: Processes.
    """

    num_views: int
    num_tiles: int
    num_files: int
    megabytes: float
    minutes: float
    workers: int

    def sentences(self) -> str:
        """In words."""
        return (
            f"About {self.num_views:,} views and {self.num_tiles:,} tiles: {self.num_files:,} "
            f"files, {self.megabytes:,.1f} MB, {self.minutes:,.1f} minutes with {self.workers} "
            "processes."
        )


Progress = Callable[[Iterable[Any], int], Iterator[Any]]
"""Passes on what is made, of which there will be so many, and says how far it is."""


def synthesize(
    recipe: Recipe, out: str | Path, *, workers: int = 1, progress: Progress | None = None
) -> Summary:
    """Make a dataset, or go on with one that was interrupted.

    Args:
        recipe: What it is to hold.
        out: Its folder.
        workers: Processes; the dataset does not depend on them.
        progress: Says how far it is; one item for every place and tile of the grid.

    Raises:
        ManifestError: The folder holds a part of a dataset of another recipe, or something else.
        MapError: A world cannot be read, or has no buildings, no streets or no room for a camera.
        FolderBusyError: Another process makes it.
        OSError: The disk is full; what is made is kept.
    """
    _check_workers(workers)
    out = Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    with atomic.alone(out):
        return _synthesized(recipe, out, workers, progress)


def _synthesized(recipe: Recipe, out: Path, workers: int, progress: Progress | None) -> Summary:
    start_s = time.perf_counter()
    state = _begun(recipe, out)
    if state.get("complete"):
        return _summary_of(state, out, 0, time.perf_counter() - start_s, workers)
    journal = _Journal(_journal_file(out))
    done = journal.read(out)
    num_made = 0
    with _explained(out), makers(workers) as pool:
        surveys = _surveys(recipe, out, state, pool)
        blocks = [block for survey in surveys for block in _blocks(recipe, survey)]
        missing = [block for block in blocks if block.key not in done]
        if done:
            _log.warning(
                "%s: going on, %d of %d blocks are done.", out, len(blocks) - len(missing),
                len(blocks),
            )  # fmt: skip
        made_now = _made([(recipe, out, block) for block in missing], pool, journal, done)
        total = sum(block.count for block in missing)
        for _ in made_now if progress is None else progress(made_now, total):
            num_made += 1
    with _explained(out):
        state = _finished(recipe, out, surveys, [done[block.key] for block in blocks], state)
    return _summary_of(state, out, num_made, time.perf_counter() - start_s, workers)


def estimate(recipe: Recipe, *, workers: int = 1) -> Estimate:
    """What a dataset would take; a few views are made in a temporary folder.

    Raises:
        MapError: As synthesize.
    """
    _check_workers(workers)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        start_s = time.perf_counter()
        with makers(1) as pool:
            surveys = _surveys(recipe, out, None, pool)
        worlds_s = time.perf_counter() - start_s
        trial = replace(recipe, num_views=min(recipe.num_views, TRIAL_VIEWS))
        first = next(block for block in _blocks(trial, surveys[0]) if block.what == "places")
        blocks = [block for survey in surveys for block in _blocks(recipe, survey)]
        make(trial, out, first)  # loads what the others find loaded
        made, places_s = _timed(trial, out, first)
        _, one_s = _timed(trial, out, replace(first, count=1))
        # a block has its own traffic, which takes as long for one place as for many
        place_s = max(places_s - one_s, 0.0) / (first.count - 1) if first.count > 1 else one_s
        num_places = recipe.num_views * len(surveys)
        num_blocks = sum(block.what == "places" for block in blocks)
        seconds = num_places * place_s + num_blocks * max(one_s - place_s, 0.0)
        num_files = num_places * len(made.files) / first.count
        num_bytes = num_places * made.num_bytes / first.count
        num_tiles = num_places * (recipe.tiles == "centered")
        tiles = [block for block in blocks if block.what == "tiles"]
        if tiles:
            some = replace(tiles[0], count=min(tiles[0].count, TRIAL_VIEWS))
            make(trial, out, some)  # as above
            made, tiles_s = _timed(trial, out, some)
            num_tiles = sum(block.count for block in tiles)
            num_files += num_tiles * len(made.files) / some.count
            num_bytes += num_tiles * made.num_bytes / some.count
            seconds += num_tiles * tiles_s / some.count
        maps = sum(Path(survey.map_path).stat().st_size for survey in surveys)
    return Estimate(
        num_places * len(recipe.turns_deg),
        num_tiles,
        round(num_files) + len(surveys),
        (num_bytes + maps) / _MEGABYTE,
        (worlds_s + seconds / workers) / 60,
        workers,
    )


def _timed(recipe: Recipe, out: Path, block: Block) -> tuple[Made, float]:
    start_s = time.perf_counter()
    made = make(recipe, out, block)
    return made, time.perf_counter() - start_s


def _check_workers(workers: int) -> None:
    if workers < 1:
        raise ValueError(f"--workers is {workers}; expected 1 or more.")


# ------------------------------------------------------------------ begin and go on


def _begun(recipe: Recipe, out: Path) -> dict[str, Any]:
    """The state of a dataset's folder, made where it is not there."""
    path = out / RECIPE_FILE
    extracts = {
        source.region: _sha256(Path(source.file))
        for source in recipe.sources
        if not source.is_made_up and Path(source.file).is_file()
    }
    if not path.is_file():
        if out.exists() and any(out.iterdir()):
            raise ManifestError(
                f"{out} exists and holds something else than a synthetic dataset. Give another "
                "--out."
            )
        return _new_state(recipe, out, extracts)
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        there = Recipe.from_json(state["recipe"])
        changed = sorted(k for k in extracts if extracts[k] != state["extracts"][k])
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{path} is not what crossview synthesize of this version writes ({error}). Give "
            "another --out."
        ) from error
    difference = recipe.difference(there)
    if not difference and changed:
        difference = f"the extract of {', '.join(changed)} is another file"
    if difference and not state.get("complete") and not _journal_file(out).is_file():
        # nothing was made: a run that was refused must not stand in the way of the corrected one
        for folder in _FOLDERS:
            shutil.rmtree(out / folder, ignore_errors=True)
        return _new_state(recipe, out, extracts)
    if difference:
        raise ManifestError(
            f"{out} holds a dataset of another configuration: {difference}. Give another --out, or "
            "remove that one."
        )
    (out / JOURNAL_FOLDER).mkdir(exist_ok=True)
    return dict(state)


def _new_state(recipe: Recipe, out: Path, extracts: dict[str, str]) -> dict[str, Any]:
    (out / JOURNAL_FOLDER).mkdir(parents=True, exist_ok=True)
    state = {"recipe": recipe.to_json(), "extracts": extracts, "complete": False}
    _write_json(out / RECIPE_FILE, state)
    return state


def _journal_file(out: Path) -> Path:
    return out / JOURNAL_FOLDER / "journal.jsonl"


def _surveys(recipe: Recipe, out: Path, state: dict[str, Any] | None, pool: Makers) -> list[Survey]:
    """The worlds; their maps are written where they are not there yet."""
    if state is not None and "worlds" in state:
        surveys = [
            Survey(**{**one, "map_path": str(out / one["map_path"])}) for one in state["worlds"]
        ]
        if all(_is_there(Path(survey.map_path), survey.map_sha256) for survey in surveys):
            return surveys
    paths = [source.write_map(out) for source in recipe.sources]
    tasks = [
        (recipe, source.region, str(path), _sha256(path))
        for source, path in zip(recipe.sources, paths, strict=True)
    ]
    # the first one alone: what it compiles, the other processes need not
    surveys = [*pool.map(_survey, tasks[:1]), *pool.map(_survey, tasks[1:])]
    surveys = [replace(survey, attribution=_attribution(recipe, survey)) for survey in surveys]
    for survey in surveys:
        if survey.notes:
            _log.warning("%s: %s.", survey.region, in_words(survey.notes))
    if state is not None:
        state["worlds"] = _plain(recipe, surveys)
        _write_json(out / RECIPE_FILE, state)
    return surveys


def _plain(recipe: Recipe, surveys: list[Survey]) -> list[dict[str, Any]]:
    """Surveys for JSON, with the maps' paths below the dataset's folder."""
    return [
        {**asdict(survey), "map_path": source.map_file}
        for survey, source in zip(surveys, recipe.sources, strict=True)
    ]


def _attribution(recipe: Recipe, survey: Survey) -> str:
    source = next(one for one in recipe.sources if one.region == survey.region)
    return "" if source.is_made_up else survey.attribution or ATTRIBUTION


def _survey(task: tuple[Recipe, str, str, str]) -> Survey:
    recipe, region, map_path, map_sha256 = task
    world = world_of(region, map_path, map_sha256)
    warm_up(recipe, world)
    return Survey(
        region,
        world.frame.lat_deg,
        world.frame.lon_deg,
        world.bounds_m,
        world.attribution,
        map_path,
        map_sha256,
        world.square_km,
        len(world.scene.buildings),
        world.streets.lanes.total_m / 1000,
        dict(world.scene.notes),
    )


def _blocks(recipe: Recipe, survey: Survey) -> Iterator[Block]:
    """The parts of a world's share of the dataset, in the order of the tables."""
    place = survey.region, survey.map_path, survey.map_sha256
    if recipe.frames:
        for drive, first in enumerate(range(0, recipe.num_views, recipe.frames)):
            count = min(recipe.frames, recipe.num_views - first)
            yield Block(*place, "places", first, count, drive)
    else:
        for first in range(0, recipe.num_views, BLOCK):
            yield Block(*place, "places", first, min(BLOCK, recipe.num_views - first))
    if recipe.tiles == "grid":
        _, _, num_cols, num_rows = lattice(recipe, Bounds(*survey.bounds_m))
        num_tiles = num_cols * num_rows
        for first in range(0, num_tiles, TILES_BLOCK):
            yield Block(*place, "tiles", first, min(TILES_BLOCK, num_tiles - first))


class _Journal:
    """Blocks that are done, one line each; what a killed process left of a line is cut off."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, out: Path) -> dict[str, Made]:
        """What is done and still there, by key; broken and foreign files are made again."""
        if not self._path.is_file():
            return {}
        body = self._path.read_bytes()
        whole = body[: body.rfind(b"\n") + 1]
        done = {}
        for line in whole.splitlines():
            made = Made(**json.loads(line))
            if all(_is_there(out / file, sha256) for file, sha256 in made.files.items()):
                done[made.key] = made
        with atomic.replacing(self._path) as temporary:
            temporary.write_text("".join(_line(made) for made in done.values()), encoding="utf-8")
        for left in out.rglob(".*.part*"):
            left.unlink(missing_ok=True)
        return done

    def add(self, made: Made) -> None:
        """Write one more."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(made))


def _line(made: Made) -> str:
    return json.dumps(asdict(made), ensure_ascii=False) + "\n"


def _is_there(path: Path, sha256: str) -> bool:
    try:
        return _sha256(path) == sha256
    except FileNotFoundError:
        return False


def _made(
    tasks: list[tuple[Recipe, Path, Block]],
    pool: Makers,
    journal: _Journal,
    done: dict[str, Made],
) -> Iterator[str]:
    """Make blocks; yields a name for each place and tile of the grid."""
    for (_, _, block), made in zip(tasks, pool.map(_make, tasks), strict=True):
        journal.add(made)
        done[block.key] = made
        for number in range(block.count):
            yield f"{block.key} {number}"


def _make(task: tuple[Recipe, Path, Block]) -> Made:
    return make(*task)


@contextlib.contextmanager
def _explained(out: Path) -> Iterator[None]:
    """A full disk, or an interrupt, says what to do."""
    try:
        yield
    except KeyboardInterrupt:
        _log.warning("%s: what is made is kept. Run the same command again to go on.", out)
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"The disk of {out} is full. What is made is kept: make room, and run the same command "
            "again to go on.",
        ) from error


# ------------------------------------------------------------------ the end


def _finished(
    recipe: Recipe, out: Path, surveys: list[Survey], parts: list[Made], state: dict[str, Any]
) -> dict[str, Any]:
    """Write the tables; the state of a complete dataset."""
    state = {
        "recipe": state["recipe"],
        "extracts": state["extracts"],
        "complete": True,
        "worlds": _plain(recipe, surveys),
        **write_tables(recipe, out, surveys, parts),
    }
    _write_json(out / RECIPE_FILE, state)
    shutil.rmtree(out / JOURNAL_FOLDER)
    return state


def _summary_of(
    state: dict[str, Any], out: Path, num_made: int, seconds: float, workers: int
) -> Summary:
    names = (
        "num_places",
        "num_missing",
        "num_views",
        "num_tiles",
        "num_pairs",
        "num_drives",
        "num_files",
    )
    return Summary(
        out=str(out),
        **{name: state[name] for name in (*names, "megabytes", "refused", "splits")},
        num_made=num_made,
        seconds=round(seconds, 3),
        workers=workers,
    )


def _write_json(path: Path, values: dict[str, Any]) -> None:
    with atomic.replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
