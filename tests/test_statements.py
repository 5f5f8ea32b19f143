"""What an answer says of itself: from when on it is one, and what many say on average."""

import pytest
from pytest import approx

from crossview.statements import Statement, statement_summary


@pytest.mark.parametrize(("probability", "is_answer"), [(0.0, False), (0.499, False), (0.5, True)])
def test_even_odds_to_be_within_5_m_make_an_answer(probability, is_answer):
    assert Statement(probability, 0.1).is_answer is is_answer


def test_the_summary_of_four_statements_by_hand():
    stated = [Statement(0.9, 0.0), Statement(0.7, 0.1), Statement(0.5, 0.3), Statement(0.1, 0.8)]
    assert statement_summary(stated) == {
        "probability_elsewhere": approx(0.3),
        "answered": approx(0.75),
    }


def test_no_statements_have_no_average():
    assert statement_summary([]) == {"probability_elsewhere": None, "answered": None}
