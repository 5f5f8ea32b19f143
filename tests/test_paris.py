"""The whole way on real photos: a drive in Paris that the shipped model was not fitted on."""

import math
from dataclasses import replace

import numpy as np
import pytest

from crossview.drive_evaluation import drive_trial, drives, with_odometry
from crossview.evaluation import COVERAGE_LEVELS, coverage_interval, pose_summary
from crossview.evidence import ENCLOSED
from crossview.manifest import Manifest
from crossview.models import load_model
from crossview.pose_evaluation import DRIVE_HEADINGS, Evaluation
from crossview.pose_queries import without_heights
from crossview.pose_trials import PriorRule, trial
from crossview.semantic import SemanticMatcher
from data_tools.importers.itowns import import_itowns

WEIGHTS = "weights/espnetv2_s_2.0_city_1024x512.pth"
HELD_OUT = "495-508"
RULE = PriorRule(seed=0, enclosed=ENCLOSED)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def paris(data_dir, tmp_path_factory):
    """The stations that nothing was fitted on, and what the network makes of them."""
    from crossview.nn.checkpoints.espnetv2 import load_espnetv2
    from crossview.nn.segmentation import CityscapesSegmenter

    folder = tmp_path_factory.mktemp("itowns") / "paris"
    import_itowns(data_dir / "paris_itowns", folder)
    segmenter = CityscapesSegmenter(load_espnetv2(data_dir / WEIGHTS))
    matcher = SemanticMatcher(segmenter, load_model("columns-espnetv2"))
    evaluation = Evaluation(Manifest.load(folder), matcher, stations=HELD_OUT)
    return evaluation, list(evaluation.views())


def results(paris, maps_of=lambda maps: maps):
    evaluation, views = paris
    maps = evaluation.maps()
    return [
        trial(
            query,
            view,
            evaluation.manifest.frame(query.region),
            evaluation.matcher,
            maps_of(maps[query.region]),
            rule=RULE,
        ).result
        for query, view in views
    ]


@pytest.fixture(scope="module")
def rigs(paris):
    return results(paris)


def test_real_rigs_are_placed_within_a_metre_without_a_compass(rigs):
    """The issue's aim: median of at most 0.9 m, at least 80 % within 2 m; the vote had 8.7 m."""
    found = pose_summary(rigs)
    assert found["n"] == 14
    assert found["median_position_error_m"] <= 0.9
    assert found["within_2m"] >= 0.8


def test_no_real_rig_is_turned_along_the_street(rigs):
    assert max(result.heading_error_deg for result in rigs) < 20.0


def test_stated_regions_hold_the_truth_about_as_often_as_they_say(rigs):
    for level, covered in zip(
        COVERAGE_LEVELS, zip(*(r.covered for r in rigs), strict=True), strict=True
    ):
        low, high = coverage_interval(sum(covered), len(covered), confidence=0.95)
        assert low <= level <= high


def test_the_truth_is_far_more_probable_than_under_the_prior(rigs):
    flat_nll = math.log(math.pi * 25.0**2 * 360.0)
    assert np.mean([result.nll for result in rigs]) < flat_nll - 8.0


def test_footprints_without_heights_are_enough(paris):
    found = pose_summary(results(paris, without_heights))
    assert found["median_position_error_m"] <= 1.0
    assert found["within_2m"] >= 0.7


def test_a_drive_stays_within_two_metres_after_a_rough_start(paris):
    evaluation, views = paris
    matcher = replace(evaluation.matcher, num_headings=DRIVE_HEADINGS)
    seen = {query.name: view for query, view in views}
    (drive,) = drives(evaluation.manifest, [query for query, _ in views])
    frames = with_odometry([(query, seen[query.name]) for query in drive], seed=0)
    region = drive[0].region
    found = drive_trial(
        frames,
        evaluation.manifest.frame(region),
        matcher,
        evaluation.maps()[region],
        rule=RULE,
        tracker=replace(evaluation, matcher=matcher).tracker,
    )
    errors_m = [result.position_error_m for result in found.filtered]
    assert max(errors_m[1:]) < 2.0
    assert np.median([result.position_error_m for result in found.smoothed]) <= 0.6
