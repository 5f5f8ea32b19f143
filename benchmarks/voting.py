"""Exhaustive voting three ways: the streaming engine, one large FFT, and fftconvolve.

Every variant runs in a process of its own, on one thread, from the same random view and map to
the same answers: per cell the log-sum-exp over headings and the best score. `vote` alone stops
at the volume of scores.
"""

import json
import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Results
from crossview.birdseye import BirdsEye, template
from crossview.memory import available_bytes
from crossview.voting import VotingMap, vote, vote_streaming

logger = logging.getLogger(__name__)

SCALE = 0.01
"""Scores of random features are hundreds; scaled by this they are log-likelihoods of a few."""
SPARE_MEMORY = 0.8
"""A variant may take this share of the memory that is free; it is skipped rather than swapped."""


@dataclass(frozen=True)
class Case:
    """Sizes of one comparison.

    Attributes:
        map_cells: Rows, and columns, of the map.
        num_headings: Heading bins.
        channels: Channels of map and view.
        reach_cells: Radius of the view, a sector of 90 degrees; templates have 2 * reach + 1 rows.
    """

    map_cells: int
    num_headings: int
    channels: int = 8
    reach_cells: int = 64


CASES = (Case(256, 64), Case(256, 256), Case(512, 64), Case(512, 256))
QUICK_CASES = (Case(48, 8, channels=2, reach_cells=8),)


def run(*, quick: bool) -> Results:
    """Measure every variant of every case."""
    rows = []
    for case in QUICK_CASES if quick else CASES:
        rows += measured(case, repeats=1 if quick else 2)
    return Results(_table(rows), {"scale": SCALE, "threads": 1, "rows": rows})


def measured(case: Case, *, repeats: int) -> list[dict[str, Any]]:
    """One row of numbers per variant, with ratios to the plain formulation."""
    rows: list[dict[str, Any]] = []
    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant in VARIANTS:
            row: dict[str, Any] = {**asdict(case), "variant": variant}
            reason = shortage(case, variant, available_bytes())
            if reason is None:
                logger.info("%s: %d x %d", variant, case.map_cells, case.num_headings)
                answer = Path(folder) / f"{variant}.npz"
                row |= harness.in_own_process(
                    "benchmarks.voting", variant, answer, repeats, json.dumps(asdict(case))
                )
                with np.load(answer) as arrays:
                    answers[variant] = {name: arrays[name] for name in arrays.files}
            else:
                logger.info("%s is skipped: %s", variant, reason)
                row["skipped"] = reason
            rows.append(row)
    _compare(rows, answers)
    return rows


def shortage(case: Case, variant: str, available: int | None) -> str | None:
    """Why a variant cannot run in so many free bytes, None if it can."""
    needed = plain_bytes(case) if variant == "plain FFT" else 0
    if available is None or needed <= SPARE_MEMORY * available:
        return None
    return f"needs about {needed / 1e9:.1f} GB and {available / 1e9:.1f} GB are free"


def plain_bytes(case: Case) -> int:
    """What the plain formulation holds at its peak: all spectra of all templates, twice."""
    size = case.map_cells + 2 * case.reach_cells
    spectrum = size * (size // 2 + 1) * 8
    template_bytes = (2 * case.reach_cells + 1) ** 2 * 4
    return case.num_headings * (case.channels * (2 * spectrum + template_bytes) + spectrum)


def inputs(case: Case) -> tuple[BirdsEye, np.ndarray]:
    """A view of a 90 degree sector and a map, of normal random numbers; and always the same."""
    rng = np.random.default_rng(0)
    reach = case.reach_cells
    ahead = np.arange(reach, 0, -1)[:, None]
    aside = np.arange(-reach, reach + 1)[None, :]
    # one cell less, so that bilinear weights stay inside of the plain formulation's canvas
    seen = (np.abs(aside) <= ahead) & (np.hypot(ahead, aside) <= reach - 1)
    values = rng.standard_normal((*seen.shape, case.channels), dtype=np.float32)
    view = BirdsEye(values, seen, cell_m=0.5, camera_row=reach, camera_col=reach)
    map_shape = (case.map_cells, case.map_cells, case.channels)
    return view, rng.standard_normal(map_shape, dtype=np.float32)


Answer = dict[str, np.ndarray]


def crossview_streaming(case: Case, view: BirdsEye, map_values: np.ndarray) -> Answer:
    """The engine, reductions only."""
    summary = vote_streaming(
        view, VotingMap(map_values, view.cell_m), num_headings=case.num_headings, scale=SCALE
    )
    return {"log_sum": summary.log_sum, "best_score": summary.best_score}


def crossview_dense(case: Case, view: BirdsEye, map_values: np.ndarray) -> Answer:
    """The engine, the volume of scores only."""
    on = VotingMap(map_values, view.cell_m)
    return {"scores": vote(view, on, num_headings=case.num_headings).scores}


def plain_fft(case: Case, view: BirdsEye, map_values: np.ndarray) -> Answer:
    """All templates at once, after OrienterNet (Sarlin et al., 2023), with zeros around the map.

    A quarter of the templates is sampled and turned by quarter turns, map and templates are padded
    to one size, transformed, multiplied, summed over channels, transformed back and cropped.
    """
    from scipy import fft
    from scipy.special import logsumexp

    reach, cells = case.reach_cells, case.map_cells
    quarter = _canvases(case, view)
    templates = np.concatenate([np.rot90(quarter, -turns, axes=(2, 3)) for turns in range(4)])
    padded = np.pad(map_values.transpose(2, 0, 1), ((0, 0), (reach, reach), (reach, reach)))
    size = padded.shape[1:]
    map_spectra = fft.rfft2(padded)
    template_spectra = fft.rfft2(templates, s=size)
    product = np.einsum("chw,kchw->khw", map_spectra, np.conj(template_spectra))
    del template_spectra
    scores = SCALE * fft.irfft2(product, s=size)[:, :cells, :cells]
    return {
        "log_sum": logsumexp(scores, axis=0),
        "best_score": scores.max(axis=0),
        "best_heading": scores.argmax(axis=0),
    }


def fftconvolve_loop(case: Case, view: BirdsEye, map_values: np.ndarray) -> Answer:
    """One template at a time through scipy.signal, reduced on the way."""
    from scipy.signal import fftconvolve

    by_channel = np.ascontiguousarray(map_values.transpose(2, 0, 1))
    log_sum = np.full(map_values.shape[:2], -np.inf, dtype=np.float32)
    best = log_sum.copy()
    best_heading = np.zeros(best.shape, dtype=np.int32)
    for index, canvas in enumerate(_canvases(case, view)):
        for turns in range(4):
            kernel = np.rot90(canvas, 2 - turns, axes=(1, 2))
            scores = SCALE * fftconvolve(by_channel, kernel, mode="same", axes=(1, 2)).sum(axis=0)
            np.logaddexp(log_sum, scores, out=log_sum)
            best_heading[scores > best] = index + turns * case.num_headings // 4
            np.maximum(best, scores, out=best)
    return {"log_sum": log_sum, "best_score": best, "best_heading": best_heading}


VARIANTS: dict[str, Callable[[Case, BirdsEye, np.ndarray], Answer]] = {
    "plain FFT": plain_fft,
    "fftconvolve": fftconvolve_loop,
    "crossview": crossview_streaming,
    "crossview, volume": crossview_dense,
}


def _canvases(case: Case, view: BirdsEye) -> np.ndarray:
    """First-quadrant templates, (headings / 4, channels, rows, cols), camera in the middle."""
    side = 2 * case.reach_cells + 1
    canvases = np.zeros((case.num_headings // 4, case.channels, side, side), dtype=np.float32)
    for index, canvas in enumerate(canvases):
        turned = template(view, index * 360.0 / case.num_headings)
        row, col = case.reach_cells + turned.first_row, case.reach_cells + turned.first_col
        rows, cols, _ = turned.values.shape
        canvas[:, row : row + rows, col : col + cols] = turned.values.transpose(2, 0, 1)
    return canvases


def _measure(variant: str, answer: str, repeats: str, sizes: str) -> None:
    """What a process of its own does: print the cheapest of some calls, and save its answer."""
    case = Case(**json.loads(sizes))
    _import_all()
    baseline = harness.resident_bytes()
    view, map_values = inputs(case)
    arrays, numbers = harness.cheapest(
        lambda: VARIANTS[variant](case, view, map_values), repeats=int(repeats)
    )
    print(json.dumps(numbers | harness.peak(baseline)))
    if "scores" in arrays:
        scaled = SCALE * arrays["scores"]
        best_score = scaled.max(axis=2)
        log_sum = best_score + np.log(np.exp(scaled - best_score[:, :, None]).sum(axis=2))
        arrays = {"log_sum": log_sum, "best_score": best_score}
    np.savez(answer, log_sum=arrays["log_sum"], best_score=arrays["best_score"])


def _import_all() -> None:
    """Bring in what any variant uses, so that the baseline is one for all."""
    import scipy.fft
    import scipy.signal
    import scipy.sparse
    import scipy.special  # noqa: F401


def _compare(rows: list[dict[str, Any]], answers: dict[str, Answer]) -> None:
    """Add ratios to the plain formulation, and the difference to the engine's own answer."""
    reference = answers["crossview"]
    largest = float(np.abs(reference["best_score"]).max())
    plain = next(row for row in rows if row["variant"] == "plain FFT")
    for row in rows:
        if "skipped" in row:
            continue
        answer = answers[row["variant"]]
        row["max_relative_difference"] = max(
            float(np.abs(answer[name] - reference[name]).max()) / largest for name in reference
        )
        if "skipped" not in plain:
            row["cpu_ratio"] = plain["cpu_s"] / row["cpu_s"]
            row["memory_ratio"] = (
                plain["peak_above_imports_bytes"] / row["peak_above_imports_bytes"]
            )


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| map | headings | formulation | CPU s (user + system) | wall s | peak MB above imports "
        "| CPU, times less | memory, times less | difference from crossview |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['map_cells']} x {row['map_cells']} | {row['num_headings']} "
        start += f"| {row['variant']} "
        if "skipped" in row:
            lines.append(start + f"| skipped: {row['skipped']} | | | | | |")
            continue
        cpu = harness.cpu_cell(row)
        ratios = [f"{row[name]:.1f}" if name in row else "" for name in RATIOS]
        lines.append(
            start + f"| {cpu} | {row['wall_s']:.2f} | {row['peak_above_imports_bytes'] / 1e6:.0f} "
            f"| {ratios[0]} | {ratios[1]} | {row['max_relative_difference']:.0e} |"
        )
    return "\n".join(lines)


RATIOS = ("cpu_ratio", "memory_ratio")

if __name__ == "__main__":
    _measure(*sys.argv[1:])
