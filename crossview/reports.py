"""A folder that shows how a matcher does on a dataset: successes and failures, and every query."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossview import atomic, pictures, plots
from crossview.columns import ColumnView
from crossview.evaluation import PoseResult, credible_level, pose_summary
from crossview.frames import LocalFrame
from crossview.pose_evaluation import Evaluation
from crossview.pose_queries import Query, map_sources, without_heights
from crossview.pose_trials import PriorRule, Trial, trial
from crossview.semantic import SemanticMatcher
from crossview.statements import STATED_WITHIN_M
from crossview.vectors import VectorMap

FILE_NAME = "report.md"

_CASE_INCHES = (14.0, 13.0)
_CASE_HEIGHTS = (0.36, 0.64)
_FIGURE_INCHES = (9.0, 6.0)


@dataclass(frozen=True)
class Row:
    """What the table says of one query.

    Args:
        name: Of the query.
        result: Errors and nll.
        level: Credible level of the truth, drawn within its cell (evaluation.credible_level).
        stated: Probability that the answer states to be within STATED_WITHIN_M.
    """

    name: str
    result: PoseResult
    level: float
    stated: float

    @property
    def rank(self) -> tuple[float, float, str]:
        """Smallest for the best: by position error; ties by probability."""
        return self.result.position_error_m, self.result.nll, self.name


@dataclass(frozen=True, eq=False)
class Case:
    """One query in full, for its picture.

    Args:
        row: What the table says of it.
        query: The query.
        view: Its columns.
        trial: Prior and answer.
    """

    row: Row
    query: Query
    view: ColumnView
    trial: Trial


@dataclass(frozen=True)
class Report:
    """How a matcher does on a dataset, with the cases to look at.

    Args:
        evaluation: Dataset and matcher.
        rule: How rough the priors were.
        sources: The map of every region.
        rows: One for each query, in the order of the dataset.
        successes: The cases with the smallest errors, smallest first.
        failures: Those with the largest, largest first; none of them is a success.
    """

    evaluation: Evaluation
    rule: PriorRule
    sources: Mapping[str, VectorMap]
    rows: tuple[Row, ...]
    successes: tuple[Case, ...]
    failures: tuple[Case, ...]

    @classmethod
    def of(cls, evaluation: Evaluation, rule: PriorRule, *, count: int = 5) -> Report:
        """Localize every query of a dataset from a rough prior, and keep what is to be drawn.

        Args:
            evaluation: Dataset and a column matcher.
            rule: How rough the priors are.
            count: Successes, and failures, to keep. Where queries are few, each is one of both
                at most, and successes go first.

        Raises:
            ManifestError: A region has no map.
            ValueError: No query has a known pose, or the matcher looks at no columns.
        """
        if count < 1:
            raise ValueError(f"count must be 1 or more, got {count}.")
        matcher = evaluation.column_matcher()
        sources = map_sources(evaluation.manifest)
        rows: list[Row] = []
        best: list[Case] = []
        worst: list[Case] = []
        for case in _cases(evaluation, matcher, sources, rule):
            rows.append(case.row)
            # posteriors are large: only what can still be drawn is kept
            best = sorted([*best, case], key=lambda one: one.row.rank)[:count]
            worst = sorted([*worst, case], key=lambda one: one.row.rank, reverse=True)[:count]
        num_best = min(count, math.ceil(len(rows) / 2))
        return cls(
            evaluation,
            rule,
            sources,
            tuple(rows),
            tuple(best[:num_best]),
            tuple(worst[: min(count, len(rows) - num_best)]),
        )

    def summary(self) -> dict[str, float | int | None]:
        """The figures that papers print (evaluation.pose_summary).

        Raises:
            ValueError: There is no query.
        """
        return pose_summary(row.result for row in self.rows)

    def write(self, out: Path) -> list[Path]:
        """Write report.md and its pictures.

        Args:
            out: Folder; made where it is not there. Files of the same names are replaced.

        Returns:
            The files: report.md, then its pictures.
        """
        summary = self.summary()
        out.mkdir(parents=True, exist_ok=True)
        paths = [self._write_case(kind, i, case, out) for kind, i, case in self._shown()]
        paths += [self._write_reliability(out), self._write_errors(out)]
        text = self._text(summary)
        with atomic.replacing(out / FILE_NAME) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return [out / FILE_NAME, *paths]

    def _shown(self) -> Iterator[tuple[str, int, Case]]:
        for kind, cases in (("success", self.successes), ("failure", self.failures)):
            for i, case in enumerate(cases, start=1):
                yield kind, i, case

    @property
    def _attribution(self) -> str:
        """Of the dataset and of all its maps."""
        manifest = self.evaluation.manifest
        texts = dict.fromkeys(pictures.sources(manifest, one) for one in self.sources.values())
        return " ".join(texts)

    def _write_case(self, kind: str, number: int, case: Case, out: Path) -> Path:
        """The columns with best and true pose, above the heat map."""
        manifest, source = self.evaluation.manifest, self.sources[case.query.region]
        localization = case.trial.localization
        figure = pictures.new_figure(_CASE_INCHES, pictures.sources(manifest, source))
        above, below = figure.subplots(2, 1, height_ratios=_CASE_HEIGHTS)
        figure.suptitle(f"{kind} {number}: {case.row.name}, {_told(case.row)}")
        pictures.draw_columns(
            case.view,
            self.evaluation.column_matcher().model,
            above,
            maps=source if self.evaluation.heights else without_heights(source),
            frame=self._frame(case),
            poses={"best": localization.best.peak(), "true": case.query.truth},
        )
        plots.heatmap(
            localization,
            below,
            background=source,
            truth=case.query.truth,
        )
        return pictures.write_figure(figure, out / _file_name(kind, number, case.row.name))

    def _frame(self, case: Case) -> LocalFrame:
        return self.evaluation.manifest.frame(case.query.region)

    def _write_reliability(self, out: Path) -> Path:
        figure = pictures.new_figure(_FIGURE_INCHES, self._attribution)
        plots.reliability({self._name: [row.level for row in self.rows]}, figure.add_subplot())
        return pictures.write_figure(figure, out / "reliability.png")

    def _write_errors(self, out: Path) -> Path:
        figure = pictures.new_figure(_FIGURE_INCHES, self._attribution)
        errors_m = [row.result.position_error_m for row in self.rows]
        plots.errors({self._name: errors_m}, figure.add_subplot())
        return pictures.write_figure(figure, out / "errors.png")

    @property
    def _name(self) -> str:
        return "single photos" if self.evaluation.single else "stations"

    def _text(self, summary: Mapping[str, float | int | None]) -> str:
        manifest = self.evaluation.manifest
        parts = [
            f"# {manifest.name}: successes and failures",
            f"**Licence of the photos: {manifest.licence}.** {self._attribution}. The pictures in "
            "this folder were made from the dataset's photos: do not publish them unless that "
            "licence allows it.",
            self._setting(),
            "## All queries together",
            _table(("figure", "value"), _summary_cells(summary)),
            "Shares are fractions, thresholds are strict, nll is minus the natural log of the "
            "probability density at the truth per square metre and degree; `coverage_50` says how "
            "often the truth lies in the stated 50 % region and should be 0.50. `answered` is the "
            "share of queries that are sure enough to be answered, `selective_accuracy_5m` how "
            "many of those are within 5 m.",
            "![How often the truth was in regions of a stated probability](reliability.png)",
            "![Share of queries by position error](errors.png)",
        ]
        for kind, cases, title in (
            ("success", self.successes, "Smallest errors"),
            ("failure", self.failures, "Largest errors"),
        ):
            if cases:
                parts.append(f"## {title}")
            for i, case in enumerate(cases, start=1):
                name = _written(case.row.name)
                parts.append(f"**{kind} {i}: {name}**: {_told(case.row)}")
                parts.append(f"![{kind} {i}: {name}]({_file_name(kind, i, case.row.name)})")
        parts += [
            "## Every query",
            _table(_HEADER, map(_row_cells, self.rows)),
            "Lateral is across the true heading, positive to the right; longitudinal along it, "
            "positive ahead. The level is how much probability the smallest region holds that "
            "reaches the truth: uniform between 0 and 1 over many honest answers.",
        ]
        return "\n\n".join(parts) + "\n"

    def _setting(self) -> str:
        rule = self.rule
        compass = (
            "without a compass"
            if rule.compass_sigma_deg is None
            else f"with a compass of {rule.compass_sigma_deg:g} degrees"
        )
        heights = "with" if self.evaluation.heights else "without"
        return (
            f"{len(self.rows)} {self._name}, each searched in a disc of {rule.radius_m:g} m that "
            f"is off the truth by up to {rule.shift_m:g} m per axis (seed {rule.seed}), {compass}, "
            f"{heights} the map's building heights. Probabilities are stated as if the camera were "
            f"in the disc with probability {1 - rule.outside:g}."
        )


_HEADER = (
    "query",
    "position (m)",
    "heading (°)",
    "lateral (m)",
    "longitudinal (m)",
    "nll",
    "level",
    f"stated within {STATED_WITHIN_M:g} m",
)


def _cases(
    evaluation: Evaluation,
    matcher: SemanticMatcher,
    sources: Mapping[str, VectorMap],
    rule: PriorRule,
) -> Iterator[Case]:
    """Every query, localized, one at a time."""
    for query, views in evaluation.views():
        source = sources[query.region]
        maps = source if evaluation.heights else without_heights(source)
        frame = evaluation.manifest.frame(query.region)
        answer = trial(query, views, frame, matcher, maps, rule=rule)
        # a draw of its own, so that levels do not depend on the other queries
        rng = np.random.default_rng([rule.seed, zlib.crc32(query.name.encode())])
        row = Row(
            query.name,
            answer.result,
            credible_level(answer.localization.best, query.truth, rng=rng),
            answer.localization.stated().probability_within_5m,
        )
        yield Case(row, query, views[0], answer)


def _told(row: Row) -> str:
    """Errors and probabilities in words."""
    result = row.result
    heading = "no heading" if (turn := result.heading_error_deg) is None else f"{turn:.1f}°"
    return (
        f"{result.position_error_m:.2f} m and {heading} off; stated within "
        f"{STATED_WITHIN_M:g} m: {row.stated:.0%}; nll {_number(result.nll)}"
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if math.isfinite(value) else "infinite (truth excluded)"


def _row_cells(row: Row) -> list[str]:
    result = row.result
    numbers = (
        result.position_error_m,
        result.heading_error_deg,
        result.lateral_m,
        result.longitudinal_m,
        result.nll,
        row.level,
        row.stated,
    )
    return [_written(row.name), *map(_number, numbers)]


def _summary_cells(summary: Mapping[str, float | int | None]) -> Iterator[list[str]]:
    for name, value in summary.items():
        yield [f"`{name}`", str(value) if isinstance(value, int) else _number(value)]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _written(name: str) -> str:
    """A name as Markdown shows it, without being read as Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", name)


def _file_name(kind: str, number: int, name: str) -> str:
    return f"{kind}-{number}-{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}.png"
