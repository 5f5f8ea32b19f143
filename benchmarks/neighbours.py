"""The claim of Xia et al. in small: does a loss of neighbours help within a prior?

Equal steps, the same pairs, three seeds; recall among the tiles within 100 m of an unseen town's
places. Global: random batches, all pairs are negatives alike. Neighbours: batches of places within
100 m, with both forms of the Gaussian that weighs them.
"""

import logging

from benchmarks import retrieval_worlds as worlds
from benchmarks.harness import Results
from benchmarks.retrieval import cell, evaluated

logger = logging.getLogger(__name__)

SEEDS = (0, 1, 2)
EPOCHS = 4
SMALL = (
    "--model-options", '{"ground_px": [32, 128], "overhead_px": [32, 128]}', "--batch-size", "32",
    "--learning-rate", "1e-3",
)  # fmt: skip
NEIGHBOURS = ("--loss", "neighbour", "--sampler", "neighbours", "--radius-m", "100")
LOSSES: dict[str, tuple[str, ...]] = {
    "global triplet": ("--loss", "triplet"),
    "neighbours, Gaussian of metres, 10 m": (
        *NEIGHBOURS, "--sigma-m", "10", "--form", "metres",
    ),
    "neighbours, Gaussian of squares, 25": (
        *NEIGHBOURS, "--sigma-m", "25", "--form", "squared",
    ),
}  # fmt: skip
HEAD = (
    "| loss | R@1 within 100 m, mean (seeds) | R@5 within 100 m | R@1 of all | R@1 % of all |\n"
    "|---|---|---|---|---|"
)


def run(*, quick: bool) -> Results:
    """All losses and seeds."""
    rows, numbers = [HEAD], {}
    with worlds.folder() as where:
        test = worlds.test_town(where, quick=quick)
        for name, options in LOSSES.items():
            found = [
                evaluated(
                    test, "--model",
                    str(worlds.trained(
                        where, f"loss-{list(LOSSES).index(name)}-{seed}", *SMALL, *options,
                        "--seed", str(seed), quick=quick, epochs=EPOCHS,
                    )),
                )
                for seed in SEEDS[: 1 if quick else None]
            ]  # fmt: skip
            numbers[name] = found
            local = [one["local_recall_1"] for one in found]
            others = (
                cell([one[key] for one in found])
                for key in ("local_recall_5", "recall_1", "recall_one_percent_floor")
            )
            rows.append(
                f"| {name} | {cell(local)} ({', '.join(f'{one:.3f}' for one in local)}) | "
                + " | ".join(others)
                + " |"
            )
            logger.info("%s", rows[-1])
    return Results("\n".join(rows), numbers)
