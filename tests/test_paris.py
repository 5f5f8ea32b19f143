"""The whole way on real photos: the stations of the Paris drive, against their poses."""

import math

import numpy as np
import pytest

from crossview.evaluation import pose_summary
from crossview.manifest import Manifest
from crossview.pose_evaluation import PriorRule, map_sources, queries, trial
from crossview.semantic import SemanticMatcher
from data_tools.importers.itowns import import_itowns

WEIGHTS = "weights/espnetv2_s_2.0_city_1024x512.pth"
COMPASS = PriorRule(seed=0, compass_sigma_deg=5.0)


@pytest.fixture(scope="module")
def paris(data_dir, tmp_path_factory):
    """The manifest, its matcher, and every station seen from above."""
    from crossview.nn.checkpoints.espnetv2 import load_espnetv2
    from crossview.nn.segmentation import CityscapesSegmenter

    folder = tmp_path_factory.mktemp("itowns") / "paris"
    import_itowns(data_dir / "paris_itowns", folder)
    manifest = Manifest.load(folder)
    matcher = SemanticMatcher(CityscapesSegmenter(load_espnetv2(data_dir / WEIGHTS)))
    views = [(query, matcher.observe(query.read())) for query in queries(manifest)]
    return manifest, matcher, views


def results(paris, rule):
    manifest, matcher, views = paris
    maps = map_sources(manifest)
    return [
        trial(query, view, manifest.frame(query.region), matcher, maps[query.region], rule=rule)
        for query, view in views
    ]


@pytest.mark.slow
def test_real_rigs_are_placed_better_than_by_the_published_untrained_baseline(paris):
    """Its median is 5.0 m with 26 % within 2 m; the middle of the prior is 12 m off."""
    found = pose_summary(done.result for done in results(paris, PriorRule(seed=0)))
    assert found["n"] == 27
    assert found["median_position_error_m"] < 5.0
    assert found["within_2m"] > 0.26


@pytest.mark.slow
def test_with_a_compass_real_rigs_beat_the_published_untrained_baseline(paris):
    """Its median is 3.9 m with 32 % within 2 m."""
    found = pose_summary(done.result for done in results(paris, COMPASS))
    assert found["median_position_error_m"] < 3.9
    assert found["within_2m"] > 0.32


@pytest.mark.slow
def test_the_truth_is_far_more_probable_than_under_the_prior(paris):
    flat_nll = math.log(math.pi * 25.0**2 * 360.0)
    nll = np.mean([done.result.nll for done in results(paris, PriorRule(seed=0))])
    assert nll < flat_nll - 5.0


@pytest.mark.slow
def test_a_compass_leaves_no_flips_along_the_street(paris):
    turns_deg = [done.result.heading_error_deg for done in results(paris, COMPASS)]
    assert max(turns_deg) < 20.0
