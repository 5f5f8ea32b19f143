"""Encoders: descriptors and training pairs per second, beside what the machine multiplies.

Every encoder runs in a process of its own with random weights, on all cores, turn by turn with a
large product of matrices of the same precision: the share of that rate is what is left to gain.
Seconds are CPU seconds divided by the number of cores, of the cheapest of some equal calls, which
is what a quiet machine takes. Where Keras finds a GPU, seconds are those of the clock, and batches
and matrices are larger; images are in the memory of the host before each call.
"""

import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Results

logger = logging.getLogger(__name__)

MATRIX_SIZE, GPU_MATRIX_SIZE, QUICK_MATRIX_SIZE = 3072, 8192, 256
GPU_BATCH = 16
"""How many times as large batches are on a GPU."""

TRAINING_AIM_PAIRS = 300
"""Pairs per second that tiny is to train with on two cores."""

FLOAT, HALF = "float32", "mixed_bfloat16"


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        architecture: Of the encoder.
        policy: Of its precision.
        options: Of the architecture.
        batch: Images of a call, or pairs of a step.
        trains: Whether both branches take a training step, else ground images are described.
        as_keras: Whether trunks keep Keras's own grouped convolutions.
    """

    architecture: str
    policy: str = FLOAT
    options: dict[str, Any] = field(default_factory=dict)
    batch: int = 8
    trains: bool = False
    as_keras: bool = False


CASES = (
    *(Case("safa", policy) for policy in (FLOAT, HALF)),
    *(Case("vigor", policy, batch=4) for policy in (FLOAT, HALF)),
    *(Case("dsm", policy) for policy in (FLOAT, HALF)),
    *(Case("convnext", policy, {"size": "Tiny"}) for policy in (FLOAT, HALF)),
    Case("convnext", FLOAT, {"size": "Tiny"}, as_keras=True),
    *(Case("trunk", policy) for policy in (FLOAT, HALF)),
    Case("trunk", FLOAT, {"trunk": "ResNet50"}),
    *(Case("tiny", policy, batch=64) for policy in (FLOAT, HALF)),
    Case("safa", HALF, trains=True),
    *(Case("tiny", policy, batch=128, trains=True) for policy in (FLOAT, HALF)),
)
QUICK_CASES = (
    Case("tiny", options={"width": 2, "ground_px": [16, 32], "overhead_px": [16, 32]}, batch=2),
    Case(
        "tiny",
        HALF,
        {"width": 2, "ground_px": [16, 32], "overhead_px": [16, 32]},
        batch=2,
        trains=True,
    ),
)


def run(*, quick: bool) -> Results:
    """Measure every case."""
    rows = []
    for case in QUICK_CASES if quick else CASES:
        logger.info("%s", case)
        given = json.dumps({**asdict(case), "quick": quick})
        rows.append(asdict(case) | harness.in_own_process("benchmarks.encoders", given))
    return Results(_table(rows), {"rows": rows})


def measure(case: Case, *, repeats: int, matrix_size: int | None = None) -> dict[str, Any]:
    """Rates of one case, in this process."""
    import keras

    from crossview.nn import backbones
    from crossview.nn.encoders import encoder

    on_gpu = any(not name.startswith("cpu") for name in keras.distribution.list_devices())
    batch = case.batch * (GPU_BATCH if on_gpu else 1)
    matrix_size = matrix_size or (GPU_MATRIX_SIZE if on_gpu else MATRIX_SIZE)
    keras.config.set_dtype_policy(case.policy)
    keras.utils.set_random_seed(0)
    if case.as_keras:
        backbones.FastConv2D.convolution_op = keras.layers.Conv2D.convolution_op  # type: ignore[method-assign]
    made = encoder(case.architecture, **case.options)
    rng = np.random.default_rng(0)
    rules = made.preprocessing
    images = {
        side: rng.integers(0, 256, (batch, *size, 3), dtype=np.uint8)
        for side, size in (("ground", rules.ground_px), ("overhead", rules.overhead_px))
    }
    if case.trains:
        call = training_step(made, images)
        # forth, and back to the weights and to the features
        sides = (made.ground, images["ground"]), (made.overhead, images["overhead"])
        flops = 3 * sum(flops_of(branch, image) for branch, image in sides)
    else:
        call = lambda: made.ground_descriptors(images["ground"])  # noqa: E731
        flops = flops_of(made.ground, images["ground"])
    product = product_of(matrix_size, "bfloat16" if case.policy == HALF else FLOAT)
    for warm_up in (call, call, product):
        warm_up()
    call_s, product_s = (
        min(seconds) for seconds in zip(*turns(call, product, repeats, on_gpu=on_gpu), strict=True)
    )
    return {
        "parameters": made.ground.count_params(),
        "input": [*rules.ground_px],
        "gflop": flops / 1e9,
        "per_s": batch / call_s,
        "gflop_per_s": batch * flops / 1e9 / call_s,
        "product_gflop_per_s": 2 * matrix_size**3 / 1e9 / product_s,
    }


def turns(
    call: Callable[[], Any], product: Callable[[], Any], repeats: int, *, on_gpu: bool
) -> Iterator[tuple[float, float]]:
    """Seconds of both, turn by turn: of the clock on a GPU, else of all cores."""
    unit, share = ("wall_s", 1) if on_gpu else ("cpu_s", os.cpu_count() or 1)
    for _ in range(repeats):
        seconds = [harness.cheapest(each, repeats=1)[1][unit] for each in (call, product)]
        yield seconds[0] / share, seconds[1] / share


def product_of(size: int, dtype: str) -> Callable[[], Any]:
    """A product of two square matrices."""
    from keras import ops

    rng = np.random.default_rng(0)
    left, right = (ops.cast(rng.standard_normal((size, size)), dtype) for _ in range(2))
    return lambda: ops.convert_to_numpy(ops.cast(ops.matmul(left, right)[0], FLOAT))


def training_step(made: Any, images: dict[str, np.ndarray]) -> Callable[[], Any]:
    """A step of AdamW with a symmetric InfoNCE, as `crossview train retrieval` takes it."""
    import keras

    from crossview.nn import losses, trainer

    contrast = losses.contrastive_loss("infonce")
    contrast.build((None, made.descriptor_size))
    model = trainer.PairTrainer(made, contrast)
    is_compiled = keras.backend.backend() == "jax"  # as in training
    model.compile(optimizer=keras.optimizers.AdamW(1e-3), jit_compile=is_compiled)
    return lambda: model.step(images, {})


def flops_of(model: Any, images: np.ndarray) -> float:
    """Multiplications and additions of convolutions, dense layers and heads, for one image."""
    total = [0.0]

    def counted(layer: Any) -> Callable[..., Any]:
        original = layer.call

        @functools.wraps(original)  # Keras looks at the signature
        def call(inputs: Any, *arguments: Any, **options: Any) -> Any:
            outputs = original(inputs, *arguments, **options)
            total[0] += _flops(layer, tuple(inputs.shape), tuple(outputs.shape))
            return outputs

        return call

    leaves = [each for each in _leaves(model) if hasattr(each, "kernel") or _is_spatial(each)]
    for layer in leaves:
        layer.call = counted(layer)
    model(images[:1])
    for layer in leaves:
        del layer.call
    return total[0]


def _flops(layer: Any, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> float:
    """Of one call: two for each weight and place."""
    if _is_spatial(layer):  # two layers from place to place, then sums over places
        weights = np.prod(layer.weights1.shape) + np.prod(layer.weights2.shape)
        return float(2 * weights + 2 * np.prod(inputs[1:]) * layer.num_heads)
    # a kernel is (..., channels of a group, filters), a depth-wise one the other way around
    return float(2.0 * np.prod(layer.kernel.shape) * np.prod(outputs[1:-1]))


def _is_spatial(layer: Any) -> bool:
    return hasattr(layer, "num_heads")


def _leaves(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield from _leaves(layer) if hasattr(layer, "layers") else [layer]


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| encoder | input | precision | parameters | GFLOP each | per second | GFLOP/s | product "
        "of matrices | share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        options = ", ".join(str(value) for value in row["options"].values())
        name = row["architecture"] + (f" ({options})" if options else "")
        name += ", as Keras has it" if row["as_keras"] else ""
        unit = " pairs trained" if row["trains"] else " descriptors"
        lines.append(
            f"| {name} | {row['input'][0]} x {row['input'][1]} | {row['policy']} "
            f"| {row['parameters'] / 1e6:.2f} M | {row['gflop']:.3g} | {row['per_s']:.3g}{unit} "
            f"| {row['gflop_per_s']:.0f} | {row['product_gflop_per_s']:.0f} "
            f"| {row['gflop_per_s'] / row['product_gflop_per_s']:.0%} |"
        )
    return "\n".join(lines)


def _measure(text: str) -> None:
    given = json.loads(text)
    quick = given.pop("quick")
    size = QUICK_MATRIX_SIZE if quick else None
    print(json.dumps(measure(Case(**given), repeats=1 if quick else 7, matrix_size=size)))


if __name__ == "__main__":
    _measure(*sys.argv[1:])
