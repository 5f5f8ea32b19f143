"""Moments: what is drawn, what is always the same, and what is refused."""

from dataclasses import fields

import numpy as np
import pytest
from pytest import approx

from crossview.synthetic.appearance import SEASONS, Appearance
from crossview.synthetic.light import AMBIENT, FOG, HORIZON, SUN, ZENITH, Light


def test_randomness_0_is_one_clear_noon_whatever_the_seed():
    assert {Appearance.drawn(seed, 0.0) for seed in range(5)} == {Appearance()}
    noon = Appearance()
    assert (noon.sun_azimuth_deg, noon.cloud_cover, noon.snow, noon.wetness) == (180, 0, 0, 0)
    assert (noon.noise_levels, noon.jpeg_quality, noon.color_cast) == (0, None, (1, 1, 1))


def test_a_seed_draws_the_same_moment_again_and_another_seed_another():
    assert Appearance.drawn(3) == Appearance.drawn(3)
    assert len({Appearance.drawn(seed) for seed in range(50)}) == 50


def test_full_randomness_draws_every_season_night_snow_rain_and_fog():
    moments = [Appearance.drawn(seed) for seed in range(400)]
    assert {moment.season for moment in moments} == set(SEASONS)
    assert all(moment.season == "winter" for moment in moments if moment.snow)
    shares = {
        "night": np.mean([moment.sun_elevation_deg < 6 for moment in moments]),
        "snow": np.mean([moment.snow > 0 for moment in moments]),
        "wet": np.mean([moment.wetness > 0 for moment in moments]),
        "fog": np.mean([moment.visibility_m <= 2000 for moment in moments]),
        "clouds": np.mean([moment.cloud_cover > 0 for moment in moments]),
    }
    expected = {"night": 0.1, "snow": 0.1, "wet": 0.25, "fog": 0.12, "clouds": 0.6}
    assert shares == approx(expected, abs=0.07)


def test_less_randomness_is_nearer_to_noon_and_has_less_weather():
    def spread(randomness):
        moments = [Appearance.drawn(seed, randomness) for seed in range(200)]
        azimuths = [abs(moment.sun_azimuth_deg - 180) for moment in moments]
        weather = [moment.wetness > 0 or moment.visibility_m <= 2000 for moment in moments]
        return max(azimuths), max(moment.noise_levels for moment in moments), np.mean(weather)

    some, full = spread(0.3), spread(1.0)
    assert some[0] == approx(27, abs=1)
    assert full[0] == approx(90, abs=3)
    assert some[1] < 1.51 < full[1]
    assert some[2] < 0.5 * full[2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"season": "rain"}, "one of spring, summer, autumn, winter"),
        ({"snow": 1.5}, "snow is from 0 to 1, got 1.5"),
        ({"cloud_cover": float("nan")}, "cloud_cover is from 0 to 1"),
        ({"jpeg_quality": 100}, "jpeg_quality is from 1 to 95"),
        ({"color_cast": (1.0, -1.0, 1.0)}, "three positive gains"),
        ({"visibility_m": 0.0}, "visibility_m is from 1 to inf"),
    ],
)
def test_values_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Appearance(**wrong)


@pytest.mark.parametrize("randomness", [-0.1, 1.1, float("nan")])
def test_randomness_is_a_share(randomness):
    with pytest.raises(ValueError, match="randomness is from 0 to 1"):
        Appearance.drawn(1, randomness)


def test_every_value_is_explained():
    for field in fields(Appearance):
        assert f"{field.name}: " in Appearance.__doc__


# ---------------------------------------------------------------------- light


def test_the_sun_stands_where_it_is_said_to():
    light = Light.of(Appearance(sun_azimuth_deg=90.0, sun_elevation_deg=30.0))
    assert light.sun_direction == approx([np.cos(np.pi / 6), 0, 0.5])


def test_a_low_sun_is_redder_and_none_is_left_at_night():
    noon, low, night = (
        Light.of(Appearance(sun_elevation_deg=e)).colors[SUN] for e in (60.0, 5.0, -8.0)
    )
    assert low[0] / low[2] > 2 * noon[0] / noon[2]
    assert low.sum() < noon.sum()
    assert not night.any()


def test_clouds_take_the_sun_and_the_blue():
    clear, overcast = (Light.of(Appearance(cloud_cover=c)).colors for c in (0.0, 1.0))
    assert overcast[SUN] == approx([0, 0, 0])
    assert overcast[AMBIENT].sum() > clear[AMBIENT].sum()
    blueness = [colors[ZENITH, 2] / colors[ZENITH, 0] for colors in (clear, overcast)]
    assert blueness[0] > 2
    assert blueness[1] < 1.2


def test_the_exposure_makes_up_for_most_of_the_dark():
    noon, night = (Light.of(Appearance(sun_elevation_deg=e)) for e in (50.0, -14.0))
    assert night.gain > 10 * noon.gain
    white = [
        light.gain * (light.colors[AMBIENT] + light.colors[SUN]).mean() for light in (noon, night)
    ]
    assert white[1] < 0.7 * white[0]
    brighter = Light.of(Appearance(exposure_ev=1.0))
    assert brighter.gain == approx(2 * noon.gain)


def test_fog_is_as_thick_as_its_visibility_says():
    light = Light.of(Appearance(visibility_m=100.0))
    assert np.exp(-light.extinction * 100.0) == approx(0.02, rel=1e-3)
    assert light.colors[FOG] == approx(light.colors[HORIZON], rel=0.8)
