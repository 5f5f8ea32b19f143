"""What is known of a query's camera in an evaluation, and what of it an encoder is shown."""

from crossview.preprocessing import Preprocessing
from crossview.retrieval import Seeing

WHOLE = Preprocessing((16, 64), (16, 64))
NARROW = Preprocessing((16, 16), (16, 64), fov_deg=90.0)


def test_an_encoder_of_a_limited_field_of_view_is_told_of_no_heading():
    seeing = Seeing(5.0, 360.0, seed=3)
    assert seeing.for_encoder(WHOLE) == seeing
    assert seeing.for_encoder(NARROW) == Seeing(180.0, 360.0, seed=3)
    assert seeing.needs_heading(WHOLE) and not seeing.needs_heading(NARROW)
    assert not Seeing(180.0).needs_heading(WHOLE)
