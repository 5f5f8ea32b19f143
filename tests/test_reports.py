"""A report: the best and the worst queries of a dataset as pictures, and all of them in a table."""

import re
from dataclasses import replace

import numpy as np
import pytest
from fakes.towns import town_dataset
from PIL import Image

from crossview import pictures, reports
from crossview.birdseye_matcher import BirdsEyeMatcher
from crossview.column_tables import samples_of, tables
from crossview.errors import ManifestError
from crossview.evaluation import PoseResult, pose_summary
from crossview.manifest import Manifest
from crossview.pose_evaluation import Evaluation
from crossview.pose_trials import PriorRule
from crossview.reports import Case, Report, Row
from crossview.semantic import SemanticMatcher
from crossview.synthetic.palette import PaletteSegmenter

NEAR = PriorRule(radius_m=8.0, shift_m=4.0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return Manifest.load(town_dataset(tmp_path_factory.mktemp("dataset"), num_stations=3))


@pytest.fixture(scope="module")
def matcher(manifest):
    segmenter = PaletteSegmenter()
    model = tables(samples_of(manifest, segmenter))
    return SemanticMatcher(segmenter, model, num_headings=64, block_cells=32)


@pytest.fixture(scope="module")
def evaluation(manifest, matcher):
    return Evaluation(manifest, matcher)


@pytest.fixture(scope="module")
def report(evaluation):
    return Report.of(evaluation, NEAR, count=1)


@pytest.fixture(scope="module")
def written(report, tmp_path_factory):
    out = tmp_path_factory.mktemp("reports") / "made" / "here"
    return out, report.write(out)


def result(error_m, nll=1.0):
    return PoseResult(error_m, 0.5, 0.0, error_m, nll, (True, True, True))


def made_up(monkeypatch, evaluation, errors_m, *, count):
    """A report of queries with these errors: q0, q1, ..."""
    cases = [
        Case(Row(f"q{i}", result(error_m), 0.5, 0.9), None, None, None)
        for i, error_m in enumerate(errors_m)
    ]
    monkeypatch.setattr(reports, "_cases", lambda *_: iter(cases))
    return Report.of(evaluation, NEAR, count=count)


def names(cases):
    return [case.row.name for case in cases]


# --------------------------------------------------------------------- which ones


def test_successes_are_the_smallest_errors_and_failures_the_largest(monkeypatch, evaluation):
    found = made_up(monkeypatch, evaluation, [3.0, 0.1, 20.0, 1.0, 0.2, 9.0], count=2)
    assert names(found.successes) == ["q1", "q4"]
    assert names(found.failures) == ["q2", "q5"]
    assert [row.name for row in found.rows] == [f"q{i}" for i in range(6)]


@pytest.mark.parametrize(
    ("num_queries", "successes", "failures"),
    [
        (1, ["q0"], []),
        (2, ["q0"], ["q1"]),
        (3, ["q0", "q1"], ["q2"]),
        (4, ["q0", "q1"], ["q3", "q2"]),
    ],
)
def test_few_queries_are_not_shown_twice(monkeypatch, evaluation, num_queries, successes, failures):
    found = made_up(monkeypatch, evaluation, range(num_queries), count=5)
    assert names(found.successes) == successes
    assert names(found.failures) == failures


def test_equal_errors_are_ranked_by_probability():
    sure, unsure = (Row("a", result(1.0, nll), 0.5, 0.9) for nll in (2.0, 9.0))
    assert sure.rank < unsure.rank


def test_posteriors_that_will_not_be_drawn_are_let_go(monkeypatch, evaluation):
    alive = []

    class Watched:
        def __init__(self):
            alive.append(self)

        def __del__(self):
            dropped.append(1)

    dropped = []

    def cases(*_):
        for i in range(20):
            yield Case(Row(f"q{i}", result(float(i)), 0.5, 0.9), None, None, Watched())
            alive.clear()

    monkeypatch.setattr(reports, "_cases", cases)
    found = Report.of(evaluation, NEAR, count=2)
    assert len(found.rows) == 20
    assert len(dropped) >= 15


# ------------------------------------------------------------------------ figures


def test_figures_are_those_of_the_evaluation(evaluation, report):
    expected = {name: one.result for _, one in evaluation.trials([NEAR]) for name in [one.name]}
    assert {row.name: row.result for row in report.rows} == expected
    assert report.summary() == pose_summary(expected.values())


def test_levels_do_not_depend_on_the_other_queries(evaluation, report):
    alone = Report.of(replace(evaluation, stations="s2"), NEAR)
    assert [row for row in report.rows if row.name == "s2"] == list(alone.rows)
    # stated probabilities are sums in float32
    assert all(0 <= row.level <= 1 and 0 <= row.stated < 1 + 1e-5 for row in report.rows)


def test_without_heights_is_another_answer(evaluation, report):
    other = Report.of(replace(evaluation, heights=False), NEAR, count=1)
    assert other.summary()["nll"] != report.summary()["nll"]


# -------------------------------------------------------------------------- files


def test_a_folder_has_the_report_and_its_pictures(report, written):
    out, paths = written
    best, worst = report.successes[0].row.name, report.failures[0].row.name
    expected = ["report.md", f"success-1-{best}.png", f"failure-1-{worst}.png"]
    assert [path.name for path in paths] == [*expected, "reliability.png", "errors.png"]
    assert sorted(out.iterdir()) == sorted(paths)


def test_every_picture_shows_something(written):
    for path in written[1][1:]:
        with Image.open(path) as image:
            assert min(image.size) > 500, path.name
            assert len(image.convert("RGB").getcolors(maxcolors=1 << 24)) > 20, path.name


def test_the_text_links_every_picture_and_has_every_query(report, written):
    out, paths = written
    text = (out / "report.md").read_text(encoding="utf-8")
    assert {out / name for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)} == set(paths[1:])
    for row in report.rows:
        (line,) = re.findall(rf"^\| {row.name} \|.*$", text, re.MULTILINE)
        assert f"| {row.result.position_error_m:.2f} |" in line
        assert f"| {row.result.nll:.2f} |" in line
    for name in report.summary():
        assert f"| `{name}` |" in text


def test_tables_have_as_many_cells_as_heads(written):
    text = (written[0] / "report.md").read_text(encoding="utf-8")
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_the_text_says_whose_photos_they_are_and_what_their_licence_asks(written):
    text = (written[0] / "report.md").read_text(encoding="utf-8")
    assert "Licence of the photos: CC0-1.0." in text
    assert "do not publish them unless that licence allows it" in text
    assert "Photos: nobody (CC0-1.0)" in text


def test_a_picture_tells_errors_and_probability_and_names_its_sources(
    report, monkeypatch, tmp_path
):
    shown = {}

    def write_figure(figure, path):
        shown[path.name] = [figure.get_suptitle(), figure.get_supxlabel()]
        return path

    monkeypatch.setattr(pictures, "write_figure", write_figure)
    report.write(tmp_path)
    (case,) = report.successes
    title, below = shown[f"success-1-{case.row.name}.png"]
    error_m, nll = case.row.result.position_error_m, case.row.result.nll
    assert title.startswith(f"success 1: {case.row.name}, {error_m:.2f} m and ")
    assert f"stated within 5 m: {case.row.stated:.0%}; nll {nll:.2f}" in title
    assert all("Photos: nobody (CC0-1.0)" in text for _, text in shown.values())
    assert below


def test_columns_without_heights_have_no_skyline(evaluation, monkeypatch, tmp_path):
    handed = []
    monkeypatch.setattr(
        pictures.plots, "columns", lambda view, ax, *, poses, explained: handed.append(poses)
    )
    one = replace(evaluation, heights=False, stations="s0")
    Report.of(one, NEAR).write(tmp_path)
    (poses,) = handed
    walls, skyline_deg = poses["true"]
    assert np.isfinite(walls).any()
    assert not np.any(skyline_deg[np.isfinite(walls)] > 0)


def test_an_answer_that_excludes_the_truth_is_told_in_words(monkeypatch, evaluation):
    row = Row("a|b", result(3.0, np.inf), 1.0, 0.5)
    assert "nll infinite (truth excluded)" in reports._told(row)
    assert reports._row_cells(row)[0] == r"a\|b"


@pytest.mark.parametrize("name", ["images/140616/front", "../front", "a b|c"])
def test_a_name_that_is_no_file_name_becomes_one(name):
    found = reports._file_name("success", 1, name)
    assert re.fullmatch(r"success-1-[A-Za-z0-9._-]+\.png", found)
    assert "/" not in found


# ----------------------------------------------------------------------- mistakes


def test_a_matcher_without_columns_is_refused(manifest):
    evaluation = Evaluation(manifest, BirdsEyeMatcher(PaletteSegmenter()))
    with pytest.raises(ValueError, match="BirdsEyeMatcher looks at none"):
        Report.of(evaluation, NEAR)


def test_no_cases_are_refused(evaluation):
    with pytest.raises(ValueError, match="count must be 1 or more, got 0"):
        Report.of(evaluation, NEAR, count=0)


def test_an_unknown_station_is_refused(evaluation):
    with pytest.raises(ManifestError, match="'s9' names no station"):
        Report.of(replace(evaluation, stations="s9"), NEAR)


def test_nothing_is_written_where_nothing_was_localized(monkeypatch, evaluation, tmp_path):
    empty = made_up(monkeypatch, evaluation, [], count=1)
    with pytest.raises(ValueError, match="no photo with a known pose"):
        empty.write(tmp_path / "out")
    assert not (tmp_path / "out").exists()
