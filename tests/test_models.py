"""Model folders: what is written is read, and what is no model is refused with a way out."""

import json

import numpy as np
import pytest
from pytest import approx

from crossview import models
from crossview.column_model import COUNTS_SHAPE, NUM_RANGES, Calibration, ColumnModel
from crossview.errors import WeightsError
from crossview.models import load_model, model_names, save_model


def made_up():
    counts = np.random.default_rng(0).uniform(0, 1000, COUNTS_SHAPE).round(1)
    calibration = Calibration(pixel_scale=0.02, scale=0.3, correlation_m=7.0)
    return ColumnModel(counts, np.full(NUM_RANGES, 1 / NUM_RANGES), 15.0, 3.0, calibration)


def test_a_saved_model_is_the_same_model(tmp_path):
    model = made_up()
    path = save_model(model, tmp_path / "mine")
    assert path == tmp_path / "mine" / "model.json"
    again = load_model(tmp_path / "mine")
    assert np.array_equal(again.counts, model.counts)
    assert again.range_shares == approx(model.range_shares, abs=1e-6)
    assert again.calibration == model.calibration
    assert (again.height_mean_m, again.height_std_m) == (15.0, 3.0)


def test_a_saved_model_replaces_the_one_that_is_there(tmp_path):
    save_model(made_up(), tmp_path)
    save_model(made_up().calibrated(Calibration(scale=0.125)), tmp_path)
    assert load_model(tmp_path).calibration.scale == 0.125


def test_models_that_come_with_the_package_load_by_name():
    assert model_names() == ["columns-class-image", "columns-espnetv2"]
    for name in model_names():
        model = load_model(name)
        assert model.range_shares.sum() == approx(1.0, abs=1e-3)
        assert model.provenance["segmenter"]
        assert len(model.provenance["stations"]) >= 6


def test_the_paris_model_has_seen_only_the_stations_for_tables_and_names_its_source():
    provenance = load_model("columns-espnetv2").provenance
    assert provenance["stations"] == [str(number) for number in range(482, 495)]
    assert "IGN" in provenance["attribution"]
    assert provenance["licence"] == "CC BY-NC-ND 3.0"


def test_a_model_that_is_not_there_is_refused_with_the_ones_that_are(tmp_path):
    with pytest.raises(WeightsError, match="columns-espnetv2"):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no description of a model"),
        ("[]", "no description of a model"),
        ('{"name": "x"}', "no description of a model"),
        ('{"kind": "bev"}', "kind 'bev'; expected 'columns'"),
        ('{"kind": "columns"}', "crossview fit semantic"),
    ],
)
def test_what_is_no_column_model_is_refused(tmp_path, text, message):
    (tmp_path / models.FILE_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path)


def test_tables_of_other_groups_of_classes_are_refused(tmp_path):
    content = json.loads(made_up().to_json())
    content["groups"]["water"] = ["water"]
    (tmp_path / models.FILE_NAME).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"its groups are .*crossview fit semantic"):
        load_model(tmp_path)
