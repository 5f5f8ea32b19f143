"""Voting: exact against slow sums, headings that turn the right way, and answers that depend on
the question alone."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from crossview import correlation, voting
from crossview.birdseye import BirdsEye
from crossview.errors import GridMismatchError, VolumeTooLargeError
from crossview.voting import Vote, VotingMap, vote, vote_streaming


def bilinear(image, row, col):
    """Four taps at positions where integers are cell centres, zero outside; (..., channels)."""
    result = np.zeros((*np.shape(row), image.shape[2]))
    for tap_row in (np.floor(row), np.floor(row) + 1):
        for tap_col in (np.floor(col), np.floor(col) + 1):
            weight = (1 - np.abs(row - tap_row)) * (1 - np.abs(col - tap_col))
            inside = (tap_row >= 0) & (tap_row < len(image))
            inside &= (tap_col >= 0) & (tap_col < image.shape[1])
            r, c = (
                np.where(inside, tap_row, 0).astype(int),
                np.where(inside, tap_col, 0).astype(int),
            )
            result += np.where(inside, weight, 0)[..., None] * image[r, c]
    return result


def slow_scores(view, map_values, num_headings):
    """The definition, in float64: turn the view with sines and cosines, and add up cell by cell."""
    reach = 2 + int(
        max(
            np.hypot(view.camera_row - row, view.camera_col - col)
            for row in (0, view.seen.shape[0])
            for col in (0, view.seen.shape[1])
        )
    )
    height, width, _ = map_values.shape
    padded = np.pad(map_values.astype(float), ((reach, reach), (reach, reach), (0, 0)))
    south, east = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(float)
    scores = np.zeros((height, width, num_headings))
    for k in range(num_headings):
        heading = 2 * math.pi * k / num_headings
        forward = east * math.sin(heading) - south * math.cos(heading)
        right = east * math.cos(heading) + south * math.sin(heading)
        turned = bilinear(
            view.values.astype(float), view.camera_row - forward, view.camera_col + right
        )
        for i, j in np.argwhere(np.abs(turned).sum(axis=2) > 0):
            scores[:, :, k] += padded[i : i + height, j : j + width] @ turned[i, j]
    return scores


def random_view(rng, *, shape=(5, 6), channels=2, camera=(3, 2)):
    return BirdsEye(rng.standard_normal((*shape, channels)), rng.random(shape) < 0.8, 0.5, *camera)


def random_map(rng, *shape, channels=2):
    """Without a mean, so that only structure can match."""
    values = rng.standard_normal((*shape, channels))
    return (values - values.mean(axis=(0, 1))).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("heading", [0, 5, 8, 13, 16, 18, 24, 31])
@pytest.mark.parametrize("shape", [(48, 48), (40, 57)])
def test_a_view_sampled_from_the_map_votes_for_where_it_was_taken(rng, shape, heading):
    num_headings, row, col = 32, 22, 25
    map_values = random_map(rng, *shape)
    angle = 2 * math.pi * heading / num_headings
    forward, right = np.meshgrid(np.arange(12, -3, -1.0), np.arange(-9, 10.0), indexing="ij")
    south = right * math.sin(angle) - forward * math.cos(angle)
    east = right * math.cos(angle) + forward * math.sin(angle)
    seen = np.abs(right) <= np.abs(forward)
    view = BirdsEye(
        bilinear(map_values, row + south, col + east), seen, 0.5, camera_row=12, camera_col=9
    )
    scores = vote(view, map_values, num_headings=num_headings).scores
    assert np.unravel_index(scores.argmax(), scores.shape) == (row, col, heading)
    best = vote_streaming(view, map_values, num_headings=num_headings).top[0]
    assert (best.row, best.col, best.heading) == (row, col, heading)


@pytest.mark.parametrize(
    ("map_shape", "view_shape", "camera"),
    [
        ((14, 14), (5, 6), (3, 2)),
        ((11, 17), (5, 5), (2, 2)),
        ((9, 8), (4, 7), (4, 3)),  # forward only: the camera is a row below the last
        ((9, 8), (3, 3), (-2, 6)),  # and elsewhere
        ((3, 5), (11, 9), (5, 1)),  # larger than the map
        ((1, 1), (4, 4), (1, 1)),
        ((7, 1), (3, 3), (1, 1)),
    ],
)
def test_scores_are_the_sums_of_the_definition(rng, map_shape, view_shape, camera):
    view = random_view(rng, shape=view_shape, camera=camera, channels=3)
    map_values = random_map(rng, *map_shape, channels=3) + 1
    expected = slow_scores(view, map_values, 12)
    scores = vote(view, map_values, num_headings=12).scores
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("heading_deg", "camera_row", "camera_col"),
    [(0, 8, 5), (90, 5, 2), (180, 2, 5), (270, 5, 8)],
)
def test_heading_90_points_east(heading_deg, camera_row, camera_col):
    # one seen cell 3 ahead, one lit map cell at (5, 5): looking east, the camera is 3 west of it
    view = BirdsEye(np.ones((1, 1, 1)), np.ones((1, 1), bool), 0.5, camera_row=3, camera_col=0)
    lit = np.zeros((11, 11, 1))
    lit[5, 5] = 1
    scores = vote(view, lit, num_headings=4).scores[:, :, heading_deg // 90]
    expected = np.zeros((11, 11))
    expected[camera_row, camera_col] = 1
    np.testing.assert_allclose(scores, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(24, 24), (25, 25), (21, 30)])
def test_turning_map_and_pose_together_turns_the_volume_bit_for_bit(rng, shape):
    view, map_values = random_view(rng), random_map(rng, *shape)
    scores = vote(view, map_values, num_headings=16).scores
    # clockwise by a quarter turn, so headings grow by 90 degrees
    turned = vote(view, np.rot90(map_values, -1), num_headings=16).scores
    assert np.array_equal(turned, np.roll(np.rot90(scores, -1), 4, axis=2))


@given(
    rows=st.lists(st.integers(0, 18), min_size=2, max_size=2, unique=True).map(sorted),
    cols=st.lists(st.integers(0, 23), min_size=2, max_size=2, unique=True).map(sorted),
)
@settings(max_examples=30)
def test_the_volume_of_a_window_is_the_crop_of_the_volume_of_the_map(rows, cols):
    rng = np.random.default_rng(1)
    view, map_values = random_view(rng), random_map(rng, 18, 23)
    whole = vote(view, map_values, num_headings=8).scores
    window = (*rows, *cols)
    scores = vote(view, map_values, num_headings=8, window=window).scores
    np.testing.assert_allclose(
        scores, whole[slice(*rows), slice(*cols)], rtol=0, atol=1e-6 * np.ptp(whole)
    )


def test_a_map_padded_by_the_reach_holds_all_that_a_window_reads(rng):
    view, map_values = random_view(rng, shape=(6, 9), camera=(6, 4)), random_map(rng, 60, 60)
    reach = view.reach_cells
    whole = vote(view, map_values, num_headings=8).scores[25:30, 20:31]
    cut = map_values[25 - reach : 30 + reach, 20 - reach : 31 + reach]
    window = (reach, reach + 5, reach, reach + 11)
    scores = vote(view, cut, num_headings=8, window=window).scores
    np.testing.assert_allclose(scores, whole, rtol=0, atol=1e-6 * np.ptp(whole))
    lacking = vote(view, cut[1:-1, 1:-1], num_headings=8, window=np.subtract(window, 1)).scores
    assert np.abs(lacking - whole).max() > 1e-4 * np.ptp(whole)


def test_the_camera_may_stand_outside_of_the_array(rng):
    ahead = rng.standard_normal((4, 5, 2))
    outside = BirdsEye(ahead, np.ones((4, 5), bool), 0.5, camera_row=4, camera_col=2)
    padded = np.concatenate([ahead, rng.standard_normal((3, 5, 2))])
    seen = np.arange(7)[:, None] < np.full(5, 4)
    inside = BirdsEye(padded, seen, 0.5, camera_row=4, camera_col=2)
    map_values = random_map(rng, 16, 16)
    assert np.array_equal(
        vote(outside, map_values, num_headings=16).scores,
        vote(inside, map_values, num_headings=16).scores,
    )


def test_headings_that_were_not_asked_for_are_skipped(rng):
    view, map_values = random_view(rng), random_map(rng, 15, 19)
    whole = vote(view, map_values, num_headings=32)
    asked = np.array([31, 0, 1, 9, 17])  # different quadrants want different templates
    some = vote(view, map_values, num_headings=32, headings=asked)
    others = np.setdiff1d(np.arange(32), asked)
    np.testing.assert_allclose(
        some.scores[:, :, asked],
        whole.scores[:, :, asked],
        rtol=0,
        atol=1e-6 * np.ptp(whole.scores),
    )
    assert np.isneginf(some.scores[:, :, others]).all()
    assert np.array_equal(some.counts[asked], whole.counts[asked])
    assert (some.counts[others] == 0).all()


@pytest.mark.parametrize("shape", [(20, 20), (13, 22)])
@pytest.mark.parametrize("headings", [None, [0, 3, 21, 40]])
def test_streaming_gives_what_the_volume_gives(rng, shape, headings):
    view, map_values = random_view(rng), random_map(rng, *shape)
    question = {"num_headings": 44, "headings": headings, "window": (1, 12, 0, 13)}
    scaled = 0.3 * vote(view, map_values, **question).scores
    summary = vote_streaming(view, map_values, **question, scale=0.3, top_k=7)
    close = {"rtol": 0, "atol": 1e-5}
    np.testing.assert_allclose(summary.log_sum, logsumexp(scaled, axis=2), **close)
    np.testing.assert_allclose(summary.best_score, scaled.max(axis=2), **close)
    assert np.array_equal(summary.best_heading, scaled.argmax(axis=2))
    assert summary.log_total == pytest.approx(logsumexp(scaled), abs=1e-5)
    order = np.argsort(-scaled, axis=None)[:7]
    places = [tuple(map(int, np.unravel_index(flat, scaled.shape))) for flat in order]
    assert [(pose.row, pose.col, pose.heading) for pose in summary.top] == places
    assert [pose.score for pose in summary.top] == pytest.approx(scaled.ravel()[order], abs=1e-5)
    assert np.array_equal(summary.counts, vote(view, map_values, **question).counts)


def test_the_top_may_hold_several_headings_of_one_cell():
    # a disc looks the same from all sides: every heading of the lit cell comes before any other
    view = BirdsEye(np.ones((1, 1, 1)), np.ones((1, 1), bool), 0.5, 0, 0)
    lit = np.zeros((6, 7, 1))
    lit[2, 5] = 4
    top = vote_streaming(view, lit, num_headings=32, top_k=32).top
    assert {(pose.row, pose.col) for pose in top} == {(2, 5)}
    assert sorted(pose.heading for pose in top) == list(range(32))


def test_equals_in_the_top_come_by_row_column_and_heading(rng):
    view = random_view(rng)
    for top_k in (1, 6, 37, 5 * 7 * 8):
        top = vote_streaming(view, np.zeros((5, 7, 2)), num_headings=8, top_k=top_k).top
        expected = [tuple(map(int, place)) for place in np.ndindex(5, 7, 8)][:top_k]
        assert [(pose.row, pose.col, pose.heading) for pose in top] == expected


@pytest.mark.parametrize("top_k", [1, 3, 10, 50])
def test_equals_at_the_cut_of_the_top_are_those_of_the_volume(rng, top_k):
    volume = rng.integers(0, 4, (5, 7, 16)).astype(np.float32)
    for quadrant in range(4):
        frame = np.rot90(volume, quadrant).transpose(2, 0, 1)
        top = voting._TopPoses(top_k, quadrant, volume.shape)
        for batch in ([3, 1], [0, 2]):  # in any order
            bins = 4 * quadrant + np.array(batch)
            for rows in (slice(2, None), slice(0, 2)):
                planes = frame[bins, rows]
                top.add(bins, rows.start, planes, bound=planes.max())
        elsewhere = np.arange(16) // 4 != quadrant
        scores = np.where(elsewhere, -1, volume).ravel()
        expected = np.argsort(-scores, kind="stable")[:top_k]
        assert top.places.tolist() == expected.tolist()
        assert np.array_equal(top.scores, scores[expected])


def test_a_summary_can_do_without_a_top(rng):
    view, map_values = random_view(rng), random_map(rng, 9, 9)
    assert vote_streaming(view, map_values, num_headings=4, top_k=0).top == ()
    everything = vote_streaming(view, map_values, num_headings=4, top_k=1000).top
    assert len(everything) == 9 * 9 * 4
    assert isinstance(everything[0], Vote)


@pytest.mark.parametrize("workers", [2, 3])
def test_nothing_depends_on_the_number_of_workers(rng, workers, monkeypatch):
    monkeypatch.setattr(correlation, "_COLUMNS_BYTES", 2**14)
    monkeypatch.setattr(correlation, "_ROWS_BYTES", 2**14)
    view, map_values = random_view(rng), random_map(rng, 21, 26)
    map_values[:, 13:] = 0  # ties
    question = {"num_headings": 24, "headings": np.arange(3, 20)}
    one = vote(view, map_values, **question)
    many = vote(view, map_values, **question, workers=workers)
    assert np.array_equal(one.scores, many.scores)
    one = vote_streaming(view, map_values, **question, top_k=3000)
    many = vote_streaming(view, map_values, **question, top_k=3000, workers=workers)
    for name in ("log_sum", "best_score", "best_heading", "counts"):
        assert np.array_equal(getattr(one, name), getattr(many, name)), name
    assert (one.top, one.log_total) == (many.top, many.log_total)


@pytest.mark.parametrize(("batch", "block_bytes"), [(1, 1), (3, 2**13), (5, 2**30)])
def test_nothing_depends_on_the_size_of_blocks_and_batches(rng, batch, block_bytes, monkeypatch):
    view, map_values = random_view(rng), random_map(rng, 21, 26)
    scores = vote(view, map_values, num_headings=28).scores
    summary = vote_streaming(view, map_values, num_headings=28, top_k=9)
    monkeypatch.setattr(voting, "_MIN_BATCH", batch)
    monkeypatch.setattr(voting, "_MAX_BATCH", batch)
    monkeypatch.setattr(correlation, "_COLUMNS_BYTES", block_bytes)
    monkeypatch.setattr(correlation, "_ROWS_BYTES", block_bytes)
    close = {"rtol": 0, "atol": 1e-6 * np.ptp(scores)}
    np.testing.assert_allclose(vote(view, map_values, num_headings=28).scores, scores, **close)
    other = vote_streaming(view, map_values, num_headings=28, top_k=9)
    np.testing.assert_allclose(other.log_sum, summary.log_sum, **close)
    assert np.array_equal(other.best_heading, summary.best_heading)
    assert [(p.row, p.col, p.heading) for p in other.top] == [
        (p.row, p.col, p.heading) for p in summary.top
    ]


def test_nothing_depends_on_what_a_map_was_asked_before(rng):
    views = [random_view(rng), random_view(rng, shape=(9, 9)), random_view(rng)]
    map_values = random_map(rng, 18, 18)
    kept = VotingMap(map_values, 0.5)
    for _ in range(2):
        for view in views:
            for window in (None, (2, 9, 3, 15)):
                fresh = vote(view, map_values, num_headings=8, window=window)
                again = vote(view, kept, num_headings=8, window=window)
                assert np.array_equal(fresh.scores, again.scores)


def test_spectra_are_kept_from_one_query_to_the_next(rng, monkeypatch):
    made = []
    original = voting.turned_spectra
    monkeypatch.setattr(
        voting, "turned_spectra", lambda *a, **k: made.append(1) or original(*a, **k)
    )
    kept = VotingMap(random_map(rng, 18, 18), 0.5)
    for _ in range(3):
        vote(
            BirdsEye(rng.normal(size=(4, 4, 2)), np.ones((4, 4), bool), 0.5, 2, 2),
            kept,
            num_headings=8,
        )
    assert len(made) == 1


def test_scores_are_sums_and_counts_are_separate(rng):
    seen = np.zeros((7, 7), bool)
    seen[1:6, 2:5] = True
    view = BirdsEye(np.ones((7, 7, 1)), seen, 0.5, 3, 3)
    votes = vote(view, np.ones((30, 30, 1)), num_headings=8)
    assert votes.counts[0] == 15
    assert votes.scores[15, 15, 0] == pytest.approx(15, abs=1e-4)
    assert votes.counts.tolist() == votes.counts[:2].tolist() * 4
    assert 0 < votes.counts[1] < 15  # at 45 degrees the border mixes seen with not seen
    # the map's end takes from the score and not from the count
    at_edge = vote(view, np.ones((3, 3, 1)), num_headings=8)
    assert np.array_equal(at_edge.counts, votes.counts)
    assert at_edge.scores.max() < 10


def test_a_view_that_saw_nothing_votes_zero_everywhere(rng):
    view = BirdsEye(np.ones((5, 5, 2)), np.zeros((5, 5), bool), 0.5, 2, 2)
    votes = vote(view, random_map(rng, 8, 9), num_headings=8)
    assert (votes.scores == 0).all()
    assert (votes.counts == 0).all()
    summary = vote_streaming(view, random_map(rng, 8, 9), num_headings=8)
    np.testing.assert_allclose(summary.log_sum, np.log(8), rtol=1e-6)
    assert summary.log_total == pytest.approx(np.log(8 * 8 * 9))


def test_results_are_read_only(rng):
    view, map_values = random_view(rng), random_map(rng, 8, 9)
    votes = vote(view, map_values, num_headings=4)
    summary = vote_streaming(view, map_values, num_headings=4)
    for array in (
        votes.scores,
        votes.counts,
        summary.log_sum,
        summary.best_score,
        summary.best_heading,
        VotingMap(map_values, 1.0).values,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_memory_of_streaming_does_not_grow_with_headings(rng):
    view, map_values = random_view(rng), random_map(rng, 64, 64)

    def peak_bytes(num_headings):
        tracemalloc.start()
        try:
            vote_streaming(view, map_values, num_headings=num_headings)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(64)  # first uses import and cache
    assert peak_bytes(512) < 1.1 * peak_bytes(64) < 64 * 64 * 512 * 4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_headings": 1}, ValueError, "multiple of 4.*got 1"),
        ({"num_headings": 30}, ValueError, "multiple of 4.*got 30"),
        ({"num_headings": 0}, ValueError, "multiple of 4.*got 0"),
        ({"on": np.ones((9, 9, 3))}, GridMismatchError, "view has 2 channels and the map 3"),
        ({"on": np.ones((9, 9))}, GridMismatchError, r"\(rows, cols, channels\).*\(9, 9\)"),
        ({"on": np.full((9, 9, 2), np.nan)}, ValueError, "not finite.*value 0"),
        ({"on": VotingMap(np.ones((9, 9, 2)), 1.0)}, GridMismatchError, "0.5 m and the map of 1.0"),
        ({"window": (0, 10, 0, 9)}, GridMismatchError, r"\(0, 10, 0, 9\).*9 rows and 9 columns"),
        ({"window": (3, 3, 0, 9)}, GridMismatchError, "does not lie in a map"),
        ({"window": (0, 1.5, 0, 9)}, GridMismatchError, r"four whole numbers.*\(0, 1\.5, 0, 9\)"),
        ({"window": (0, 9)}, GridMismatchError, "four whole numbers"),
        ({"headings": []}, ValueError, "at least one integer"),
        ({"headings": [8]}, ValueError, r"0\.\.7; got 8\.\.8.*angles\.bin_of"),
        ({"headings": [-1, 2]}, ValueError, r"0\.\.7; got -1\.\.2"),
        ({"headings": [90.0]}, ValueError, "indices.*float64"),
        ({"headings": np.ones(8, bool)}, ValueError, r"indices.*bool.*numpy\.flatnonzero"),
        ({"workers": 0}, ValueError, "threads, at least 1; got 0"),
    ],
)
@pytest.mark.parametrize("ask", [vote, vote_streaming])
def test_a_question_that_cannot_be_answered_says_why(rng, ask, change, error, message):
    question = {"on": random_map(rng, 9, 9), "num_headings": 8} | change
    with pytest.raises(error, match=message):
        ask(random_view(rng), question.pop("on"), **question)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"scale": 0.0}, "scale must be a positive number; got 0.0"),
        ({"scale": math.inf}, "scale must be a positive number; got inf"),
        ({"top_k": -1}, "top_k must be a whole number, 0 or more; got -1"),
        ({"top_k": 1.5}, "top_k must be a whole number, 0 or more; got 1.5"),
    ],
)
def test_options_of_streaming_are_checked(rng, option, message):
    with pytest.raises(ValueError, match=message):
        vote_streaming(random_view(rng), random_map(rng, 9, 9), num_headings=8, **option)


def test_a_volume_too_large_names_the_way_around(rng):
    with pytest.raises(VolumeTooLargeError, match=r"9 x 9 x 8 scores.*vote_streaming"):
        vote(random_view(rng), random_map(rng, 9, 9), num_headings=8, max_bytes=9 * 9 * 8 * 4 - 1)


def test_a_map_needs_a_cell_size():
    with pytest.raises(ValueError, match="cell_m must be a positive number of metres; got 0"):
        VotingMap(np.ones((2, 2, 1)), 0)
