"""Galleries: search within a prior and without one, beside brute force, a k-d tree and FAISS.

Tiles lie about 36 m apart; descriptors are random, queries noisy copies of some of them, and the
prior is a disc of 500 m whose middle is off by 100 m (standard deviation per axis). Everything runs
on one thread, variants in turns, and times are the processor's, so that other programs do not
count; the clock's are in the JSON. Random descriptors are the worst case of an approximate index.
"""

import importlib.util
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Results
from crossview.frames import LocalFrame
from crossview.gallery import Disc, Gallery
from crossview.gallery_files import GalleryWriter, Index, Model

logger = logging.getLogger(__name__)

SPACING_M = 36.0
RADIUS_M = 500.0
PRIOR_SIGMA_M = 100.0
FOOTPRINT_M = 72.0
QUERY_NOISE = 0.5
"""Length of what is added to a query's tile: its similarity is then about 0.9."""

K = 10
SEED = 6
AIM_MS = 0.3
"""Of the median search within the prior."""

FRAME = LocalFrame(52.5, 13.4)


@dataclass(frozen=True)
class Case:
    """Sizes.

    Args:
        tiles: Of the gallery that is searched within a prior and without one.
        dimensions: Of its descriptors.
        queries: Within a prior; slow variants take the first of them.
        batch_tiles: Of the gallery of the batch.
        batch_dimensions: Of its descriptors.
        batch_queries: Of the batch.
    """

    tiles: int
    dimensions: int
    queries: int
    batch_tiles: int
    batch_dimensions: int
    batch_queries: int


CASE = Case(1_000_000, 512, 1000, 100_000, 1024, 1000)
QUICK_CASE = Case(3_000, 32, 20, 2_000, 32, 20)

_SLOW_QUERIES, _TURN_QUERIES = 20, 100


def run(*, quick: bool) -> Results:
    """Write a gallery, and measure each kind of search in a process of its own."""
    case = QUICK_CASE if quick else CASE
    text = json.dumps(asdict(case))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "gallery"
        numbers = {"written": harness.in_own_process("benchmarks.gallery", "write", folder, text)}
        for step in ("prior", "single", "batch"):
            logger.info("%s", step)
            numbers[step] = harness.in_own_process("benchmarks.gallery", step, folder, text)
    return Results(_table(case, numbers), {"case": asdict(case), "aim_ms": AIM_MS, **numbers})


# ---------------------------------------------------------------- data


def random_descriptors(count: int, dimensions: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of length one, float32, in blocks: a million take no second copy."""
    rows = np.empty((count, dimensions), np.float32)
    for first in range(0, count, 50_000):
        block = rng.standard_normal((min(50_000, count - first), dimensions), dtype=np.float32)
        rows[first : first + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return rows


def lattice(count: int, rng: np.random.Generator) -> np.ndarray:
    """Middles of tiles on a jittered square lattice around the frame's anchor, (count, 2)."""
    side = int(np.ceil(np.sqrt(count)))
    steps = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)[:count]
    return (steps - side / 2) * SPACING_M + rng.uniform(-5, 5, (count, 2))


def queries_of(
    descriptors: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of some tiles, and noisy copies of their descriptors."""
    rows = rng.integers(0, len(descriptors), count)
    noise = random_descriptors(count, descriptors.shape[1], rng)
    queries = descriptors[rows] + QUERY_NOISE * noise
    return rows, queries / np.linalg.norm(queries, axis=1, keepdims=True)


# ---------------------------------------------------------------- steps


def write(folder: Path, case: Case) -> dict[str, float]:
    """Write the gallery as a build would, and read it."""
    import pandas as pd

    rng = np.random.default_rng(SEED)
    x_m, y_m = lattice(case.tiles, rng).T
    tiles = pd.DataFrame(
        {"tile_id": [f"t{k}" for k in range(case.tiles)], "x_m": x_m, "y_m": y_m, "image": ""}
    )
    descriptors = random_descriptors(case.tiles, case.dimensions, rng)
    index = Index(FRAME, FOOTPRINT_M, Model("random", "0" * 64), scale=20.0)
    start_s = time.perf_counter()
    with GalleryWriter(folder, index, tiles, block_tiles=4096) as writer:
        for block in writer.blocks():
            writer.write(block, descriptors[block.index[0] : block.index[-1] + 1])
        writer.finish()
    written_s = time.perf_counter()
    Gallery.load(folder)
    loaded_s = time.perf_counter()
    return {
        "write_s": written_s - start_s,
        "load_s": loaded_s - written_s,
        "megabytes": (folder / "descriptors.npy").stat().st_size / 1e6,
    }


def prior(folder: Path, case: Case) -> list[dict[str, Any]]:
    """Searches within a disc, each variant's milliseconds and share of the exact answer."""
    from scipy.spatial import cKDTree

    gallery = Gallery.load(folder)
    rows, positions_m = np.array(gallery.descriptors), np.array(gallery.positions_m)
    half = Gallery.of(
        FRAME, positions_m, rows.astype(np.float16), footprint_m=FOOTPRINT_M, model=gallery.model
    )
    rng = np.random.default_rng(SEED + 1)
    of_tile, queries = queries_of(rows, case.queries, rng)
    middles = positions_m[of_tile] + rng.normal(0, PRIOR_SIGMA_M, (case.queries, 2))
    tree = cKDTree(positions_m)

    def ranked(among: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        best = np.argsort(-similarity, kind="stable")[:K]
        return among[best]

    def masked(k: int) -> np.ndarray:
        inside = np.flatnonzero(np.hypot(*(positions_m - middles[k]).T) <= RADIUS_M)
        return ranked(inside, rows[inside] @ queries[k])

    def brute(k: int) -> np.ndarray:
        similarity = rows @ queries[k]
        similarity[np.hypot(*(positions_m - middles[k]).T) > RADIUS_M] = -np.inf
        return np.argsort(-similarity, kind="stable")[:K]

    def by_tree(k: int) -> np.ndarray:
        inside = np.array(tree.query_ball_point(middles[k], RADIUS_M))
        return ranked(inside, rows[inside] @ queries[k])

    def ours(of: Gallery) -> Callable[[int], np.ndarray]:
        return lambda k: of.search(queries[k], K, prior=_disc(middles[k])).rows

    variants: dict[str, Callable[[int], np.ndarray]] = {
        "crossview, memory-mapped": ours(gallery),
        "crossview, float16 in memory": ours(half),
        "k-d tree, then NumPy": by_tree,
        "NumPy: distances to all tiles, then similarity": masked,
        "NumPy: similarity to all tiles, then distances": brute,
        **_faiss_filters(gallery, rows, queries, middles),
    }
    return _timed(variants, case.queries, exact=brute)


def _disc(middle_m: np.ndarray) -> Disc:
    x_m, y_m = middle_m.tolist()
    return Disc(x_m, y_m, RADIUS_M)


def _faiss_filters(
    gallery: Gallery, rows: np.ndarray, queries: np.ndarray, middles: np.ndarray
) -> dict[str, Callable[[int], np.ndarray]]:
    """FAISS flat with the rows that our strips find inside of the disc."""
    if importlib.util.find_spec("faiss") is None:
        return {}
    import faiss

    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)

    def filtered(selector: Any) -> Callable[[int], np.ndarray]:
        def search(k: int) -> np.ndarray:
            inside = gallery.rows_inside(_disc(middles[k]))
            chosen = faiss.SearchParameters(sel=selector(inside))  # type: ignore[call-arg]
            return flat.search(queries[k : k + 1], K, params=chosen)[1][0]

        return search

    return {
        "FAISS flat, IDSelectorBatch": filtered(faiss.IDSelectorBatch),
        "FAISS flat, IDSelectorArray": filtered(faiss.IDSelectorArray),
    }


def single(folder: Path, case: Case) -> list[dict[str, Any]]:
    """One query after the other without a prior."""
    gallery = Gallery.load(folder)
    rng = np.random.default_rng(SEED + 2)
    count = min(case.queries, 2 * _SLOW_QUERIES)
    queries = queries_of(gallery.descriptors, count, rng)[1]
    rows = np.array(gallery.descriptors)

    def brute(k: int) -> np.ndarray:
        return np.argsort(-(rows @ queries[k]), kind="stable")[:K]

    variants: dict[str, Callable[[int], np.ndarray]] = {
        "crossview": lambda k: gallery.search(queries[k], K).rows,
        "NumPy: one product, a full sort": brute,
    }
    if importlib.util.find_spec("faiss") is not None:
        import faiss

        from crossview.faiss_search import FaissIndex

        flat = faiss.IndexFlatIP(rows.shape[1])
        flat.add(rows)
        small = FaissIndex.of(gallery)
        variants["FAISS flat"] = lambda k: flat.search(queries[k : k + 1], K)[1][0]
        variants["crossview, FAISS SQ8 then exact"] = lambda k: small.search(
            queries[k : k + 1], K
        ).rows[0]
    return _timed(variants, count, exact=brute)


def batch(folder: Path, case: Case) -> list[dict[str, Any]]:  # noqa: ARG001 (a step like others)
    """Many queries at once without a prior."""
    rng = np.random.default_rng(SEED + 3)
    rows = random_descriptors(case.batch_tiles, case.batch_dimensions, rng)
    gallery = Gallery.of(
        FRAME, lattice(case.batch_tiles, rng), rows, footprint_m=FOOTPRINT_M,
        model=Model("random", "0" * 64),
    )  # fmt: skip
    rows = np.array(gallery.descriptors)
    queries = queries_of(rows, case.batch_queries, rng)[1]

    def plain() -> np.ndarray:
        similarity = queries @ rows.T
        among = np.argpartition(-similarity, K, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(similarity, among, axis=1), axis=1)
        return np.take_along_axis(among, order, axis=1)

    variants: dict[str, Callable[[], np.ndarray]] = {
        "crossview": lambda: gallery.search_many(queries, K).rows,
        "NumPy: one product, argpartition": plain,
        "the product alone": lambda: (queries @ rows.T)[:, :K],
    }
    if importlib.util.find_spec("faiss") is not None:
        import faiss

        flat = faiss.IndexFlatIP(rows.shape[1])
        flat.add(rows)
        variants["FAISS flat"] = lambda: flat.search(queries, K)[1]
    expected, found = plain(), []
    for name, variant in variants.items():
        answer, seconds = harness.cheapest(variant, repeats=3)
        row = {"variant": name, "ms": 1e3 * seconds["cpu_s"], "wall_ms": 1e3 * seconds["wall_s"]}
        if name != "the product alone":
            row["recall"] = _recall(answer, expected)
        found.append(row)
    return found


def _timed(
    variants: dict[str, Callable[[int], np.ndarray]],
    count: int,
    exact: Callable[[int], np.ndarray],
) -> list[dict[str, Any]]:
    """Milliseconds of every variant, in turns; those above 10 ms take a few queries only."""
    expected = {k: exact(k) for k in range(min(count, _SLOW_QUERIES))}
    slow = set()
    for name, variant in variants.items():
        start_s = time.perf_counter()
        for k in range(2):
            variant(k)
        if time.perf_counter() - start_s > 0.02:
            slow.add(name)
    seconds: dict[str, list[np.ndarray]] = {name: [] for name in variants}
    answers: dict[str, dict[int, np.ndarray]] = {name: {} for name in variants}
    # in turns of more queries than caches hold tiles of: nobody finds what another one has read
    for first in range(0, count, _TURN_QUERIES):
        for name, variant in variants.items():
            last = min(first + _TURN_QUERIES, _SLOW_QUERIES if name in slow else count)
            for k in range(first, last):
                before = np.array([time.thread_time(), time.perf_counter()])
                answer = variant(k)
                after = np.array([time.thread_time(), time.perf_counter()])
                seconds[name].append(after - before)
                if k in expected:
                    answers[name][k] = answer
    return [
        {
            "variant": name,
            "queries": len(seconds[name]),
            **_percentiles(np.array(seconds[name])),
            "recall": float(np.mean([_recall(answers[name][k], expected[k]) for k in expected])),
        }
        for name in variants
    ]


def _percentiles(seconds: np.ndarray) -> dict[str, float]:
    """Median and 95th percentile of (queries, 2) seconds, by the processor and by the clock."""
    return {
        f"p{percent}_{name}": 1e3 * float(np.percentile(seconds[:, i], percent))
        for i, name in enumerate(("ms", "wall_ms"))
        for percent in (50, 95)
    }


def _recall(found: np.ndarray, expected: np.ndarray) -> float:
    """Share of the exact answer that is found."""
    pairs = zip(np.atleast_2d(found), np.atleast_2d(expected), strict=True)
    return float(np.mean([np.isin(b, a).mean() for a, b in pairs]))


# ---------------------------------------------------------------- table


def _table(case: Case, numbers: dict[str, Any]) -> str:
    written = numbers["written"]
    lines = [
        f"{case.tiles:,} x {case.dimensions} descriptors ({written['megabytes']:,.0f} MB) are "
        f"written in {written['write_s']:.0f} s and opened in {written['load_s']:.1f} s. One "
        f"thread; top {K}.",
        "",
        "| search | variant | p50 | p95 | found |",
        "|---|---|---:|---:|---:|",
    ]
    for step, what in (
        ("prior", f"{RADIUS_M:.0f} m around, of {case.tiles:,}"),
        ("single", f"no prior, of {case.tiles:,}"),
    ):
        lines += [
            f"| {what} | {row['variant']} | {row['p50_ms']:.3g} ms | {row['p95_ms']:.3g} ms | "
            f"{row['recall']:.1%} |"
            for row in numbers[step]
        ]
    what = f"{case.batch_queries:,} at once, of {case.batch_tiles:,} x {case.batch_dimensions:,}"
    for row in numbers["batch"]:
        found = f"{row['recall']:.1%}" if "recall" in row else ""
        lines.append(f"| {what} | {row['variant']} | {row['ms']:.4g} ms |  | {found} |")
    return "\n".join(lines)


_STEPS: dict[str, Callable[[Path, Case], Any]] = {
    "write": write,
    "prior": prior,
    "single": single,
    "batch": batch,
}


if __name__ == "__main__":
    step_name, folder_name, case_text = sys.argv[1:]
    print(json.dumps(_STEPS[step_name](Path(folder_name), Case(**json.loads(case_text)))))
