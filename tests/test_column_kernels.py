"""Sums over columns: with a compiler, without one, and of a loop."""

import numpy as np
import pytest
from pytest import approx

from crossview import column_evidence, column_kernels
from crossview.semantic import column_sums, sums_without_compiler


def made_up_sums(*, num_cells=150, num_azimuths=16, num_codes=40, num_headings=8):
    rng = np.random.default_rng(0)
    log_ratio = rng.normal(size=(num_azimuths, num_codes)).astype(np.float32)
    codes = rng.integers(0, num_codes, (num_cells, num_azimuths)).astype(np.uint16)
    used = np.array([0, 3, 4, 11, 15])
    turns = np.arange(num_headings) * (num_azimuths // num_headings)
    return log_ratio, codes, used, turns


def literal_sums(log_ratio, codes, used, turns):
    total = np.zeros((len(codes), len(turns)))
    for cell in range(len(codes)):
        for k, turn in enumerate(turns):
            for column in used:
                seen = codes[cell, (column + turn) % codes.shape[1]]
                total[cell, k] += log_ratio[column, seen]
    return total


@pytest.mark.parametrize("num_headings", [4, 8, 16])
def test_sums_without_a_compiler_are_those_of_a_loop(num_headings):
    arguments = made_up_sums(num_headings=num_headings)
    assert sums_without_compiler(*arguments) == approx(literal_sums(*arguments), abs=1e-5)


def test_compiled_sums_are_those_of_a_loop():
    kernel = column_kernels.compiled()
    if kernel is None:
        pytest.skip("numba is not installed: pip install crossview[fast]")
    arguments = made_up_sums()
    assert kernel(*arguments) == approx(literal_sums(*arguments), abs=1e-5)


def test_without_numba_there_is_no_kernel_and_the_sums_are_the_same(monkeypatch):
    log_ratio, codes, _, _ = made_up_sums(num_cells=700)
    evidence = column_evidence.ColumnEvidence(log_ratio)
    headings = np.array([0, 2, 5])
    found = column_sums(evidence, codes, headings, num_headings=8)
    monkeypatch.setattr(column_kernels, "compiled", lambda: None)
    slow = column_sums(evidence, codes, headings, num_headings=8)
    assert found.shape == slow.shape == (3, 700)
    assert found == approx(slow, abs=1e-4)


def test_columns_that_say_nothing_are_left_out_of_the_sums():
    log_ratio, codes, _, turns = made_up_sums()
    log_ratio[1::2] = 0.0
    evidence = column_evidence.ColumnEvidence(log_ratio)
    assert evidence.active.tolist() == [True, False] * 8
    expected = literal_sums(log_ratio, codes, range(16), turns)
    found = column_sums(evidence, codes, np.arange(8), num_headings=8)
    assert found == approx(expected.T, abs=1e-4)
