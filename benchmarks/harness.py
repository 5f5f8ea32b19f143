"""What the benchmarks share: a process for every variant, its seconds and its memory."""

import contextlib
import io
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crossview.memory import proc_bytes

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Results:
    """A Markdown table and all numbers behind it."""

    table: str
    numbers: dict[str, Any]


def in_own_process(module: str, *arguments: Any) -> Any:
    """What `python -m module arguments` prints as JSON; libraries below NumPy get one thread."""
    finished = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | ONE_THREAD,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(finished.stdout)


def run_command(name: str, *arguments: str | Path) -> None:
    """Run one of our commands in this process; what it prints is dropped."""
    from crossview.cli import main as crossview
    from data_tools.cli import main as crossview_data

    main = {"crossview": crossview, "crossview-data": crossview_data}[name]
    with contextlib.redirect_stdout(io.StringIO()):
        main([str(argument) for argument in arguments], standalone_mode=False)


def cheapest(call: Callable[[], _Answer], *, repeats: int) -> tuple[_Answer, dict[str, float]]:
    """The answer of some equal calls, and seconds of the one with the least CPU time."""
    best: dict[str, float] = {"cpu_s": math.inf}
    answers: list[_Answer] = []
    for _ in range(repeats):
        # memory is that of one answer
        answers.clear()
        before, start = _cpu_s(), time.perf_counter()
        answers.append(call())
        wall_s = time.perf_counter() - start
        user_s, system_s = np.subtract(_cpu_s(), before).tolist()
        if user_s + system_s < best["cpu_s"]:
            best = {"cpu_s": user_s + system_s, "user_s": user_s, "system_s": system_s}
            best["wall_s"] = wall_s
    return answers[0], best


def peak(baseline_bytes: int) -> dict[str, int]:
    """The most memory that this process has had, and how much of it came after a baseline."""
    most = _peak_bytes()
    return {"peak_bytes": most, "peak_above_imports_bytes": most - baseline_bytes}


def resident_bytes() -> int:
    """Memory that this process has now."""
    resident = proc_bytes(Path("/proc/self/status"), "VmRSS")
    return _peak_bytes() if resident is None else resident


def cpu_cell(row: dict[str, Any]) -> str:
    """CPU seconds in a table: both kinds, and their parts."""
    return f"{row['cpu_s']:.2f} ({row['user_s']:.2f} + {row['system_s']:.2f})"


def _cpu_s() -> tuple[float, float]:
    """User and system seconds of this process and its children."""
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + children.ru_utime, own.ru_stime + children.ru_stime


def _peak_bytes() -> int:
    """Largest resident size so far."""
    # ru_maxrss also counts what the parent had when it forked
    most = proc_bytes(Path("/proc/self/status"), "VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if most is None else most
