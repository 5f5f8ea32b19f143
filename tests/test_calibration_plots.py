import numpy as np
import pytest
from matplotlib.figure import Figure
from pytest import approx

from crossview import plots
from crossview.evaluation import coverage_interval


def new_axes():
    return Figure(figsize=(8, 5), layout="constrained", dpi=72).subplots()


def line_of(ax, label):
    (line,) = (line for line in ax.lines if line.get_label().startswith(label))
    return line.get_data()


def band_of(ax, stated, index=0):
    """(low, high) of a band at a stated probability."""
    corners = ax.collections[index].get_paths()[0].vertices
    at = corners[np.isclose(corners[:, 0], stated), 1]
    return at.min(), at.max()


def test_the_curve_is_the_share_of_levels_up_to_the_stated_probability():
    ax = new_axes()
    assert plots.reliability({"ours": [0.1, 0.4, 0.4, 0.9]}, ax) is ax
    stated, share = line_of(ax, "ours")
    found = dict(zip(np.round(stated, 2).tolist(), share.tolist(), strict=True))
    assert (found[0.0], found[0.09], found[0.1], found[0.39]) == (0, 0, 0.25, 0.25)
    assert (found[0.4], found[0.89], found[0.9], found[1.0]) == (0.75, 0.75, 1, 1)
    assert "n = 4" in [line.get_label() for line in ax.lines][1]


def test_the_diagonal_and_the_axes():
    ax = new_axes()
    plots.reliability({"ours": [0.5]}, ax)
    x, y = line_of(ax, "as stated")
    assert (list(x), list(y)) == ([0, 1], [0, 1])
    assert (ax.get_xlim(), ax.get_ylim(), ax.get_aspect()) == ((0, 1), (0, 1), 1)
    assert "stated probability" in ax.get_xlabel()
    assert "share of truths" in ax.get_ylabel()


def test_the_band_is_the_interval_of_the_count():
    ax = new_axes()
    plots.reliability({"ours": [0.1, 0.4, 0.4, 0.9]}, ax, confidence=0.8)
    assert band_of(ax, 0.5) == approx(coverage_interval(3, 4, 0.8))
    assert "80% interval" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_band_holds_the_diagonal_for_honest_answers_only():
    levels = np.random.default_rng(0).random(300)
    ax = new_axes()
    series = {"honest": levels, "over-confident": levels**0.2, "under-confident": levels**5}
    plots.reliability(series, ax, confidence=0.99)
    for stated in (0.25, 0.5, 0.75, 0.9):
        low, high = band_of(ax, stated, 0)
        assert low <= stated <= high
        assert band_of(ax, stated, 1)[1] < stated
        assert band_of(ax, stated, 2)[0] > stated


def test_every_series_has_a_look_and_a_name():
    ax = new_axes()
    plots.reliability({name: [0.5] for name in "abcdefg"}, ax)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [*(f"{name} (n = 1)" for name in "abcdefg"), "as stated", "90% interval"]
    styles = {(line.get_color(), str(line.get_linestyle())) for line in ax.lines[1:6]}
    assert len(styles) == 5


@pytest.mark.parametrize("levels", [[], [0.5, 1.5], [-0.1], [0.2, float("nan")]])
def test_what_is_not_a_probability_is_refused(levels):
    with pytest.raises(ValueError, match=r"Levels of 'ours' are expected in \[0, 1\]"):
        plots.reliability({"ours": levels}, new_axes())


def test_the_curve_of_errors_is_the_share_of_answers_up_to_a_distance():
    ax = new_axes()
    assert plots.errors({"ours": [4.0, 0.5, 1.5, 0.5]}, ax) is ax
    x_m, share = line_of(ax, "ours")
    assert (x_m[1:5].tolist(), share[1:5].tolist()) == ([0.5, 0.5, 1.5, 4.0], [0.25, 0.5, 0.75, 1])
    # it goes on at 1 beyond the picture
    assert x_m[-1] > ax.get_xlim()[1] > 4.0
    assert share[-1] == 1
    assert "(m)" in ax.get_xlabel()
    legend = " ".join(text.get_text() for text in ax.get_legend().get_texts())
    assert " ".join(legend.split()) == "ours (n = 4), median 1.00 m"


def test_the_axis_of_errors_holds_the_largest_of_all_series():
    ax = new_axes()
    plots.errors({"good": [0.0, 0.2], "bad": [30.0]}, ax)
    assert ax.get_xlim()[1] > 30.0
    assert len({line.get_color() for line in ax.lines[:2]}) == 2


@pytest.mark.parametrize("errors_m", [[], [-0.1], [float("inf")], [1.0, float("nan")]])
def test_what_is_no_error_is_refused(errors_m):
    with pytest.raises(ValueError, match="Errors of 'ours' are expected in metres"):
        plots.errors({"ours": errors_m}, new_axes())
