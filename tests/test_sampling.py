"""Training batches: each pair at most once, none silently dropped, neighbours together."""

import numpy as np

from crossview.sampling import NeighbourBatches


def test_each_pair_is_in_one_batch_or_told():
    position_m = np.random.default_rng(0).uniform(0, 1000, (1001, 2))
    sampler = NeighbourBatches(position_m, 20, radius_m=100)
    batches, left_out = sampler.epoch(4), sampler.left_out(4)
    assert sorted(np.concatenate([*batches, left_out])) == list(range(1001))
    assert {len(batch) for batch in batches} == {20} and len(left_out) == 1
