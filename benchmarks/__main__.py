"""`python -m benchmarks NAME ...`: measure, print Markdown tables, write a JSON file if asked."""

import argparse
import importlib
import json
import logging
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

BENCHMARKS = {
    "columns": "the column matcher: ray-casting, levelling, evidence, matching, a whole station",
    "encoders": "descriptors and training pairs per second, beside products of matrices",
    "gallery": "galleries: search within a prior and without one, beside brute force and FAISS",
    "manifest": "a manifest of a million views: saving, loading, checking, appending",
    "neighbours": "a loss of neighbours against a global one, within a prior, over three seeds",
    "osm": "maps from files: reading beside osmnx, drawing windows of a town and a city",
    "paris": "real photos with decimetre poses: README's tables of accuracy and coverage",
    "polar": "polar tiles per second beside loops, SciPy and OpenCV; file to file",
    "render": "pictures of worlds: panoramas, photos, tiles and pairs per second; a city's memory",
    "retrieval": "a tiny encoder on rendered towns, beside an untrained one and pixels",
    "tiles": "downloads against a rate limit, the tile store, and resuming",
    "two_stage": "a square kilometre searched: a gallery's five windows, then columns",
    "voting": "exhaustive voting against a plain FFT formulation and scipy.signal.fftconvolve",
    "worlds": "the semantic matcher on rendered worlds: perfect labels, errors, a network's",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, measure, print."""
    names = "\n".join(f"  {name:10} {sentence}" for name, sentence in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--quick", action="store_true", help="a tiny size: does it run at all")
    options = parser.parse_args(arguments)
    if not options.names:
        print(names)
        return 0
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"no benchmark {', '.join(unknown)}: choose from {', '.join(BENCHMARKS)}")
    if options.json is not None and len(options.names) > 1:
        parser.error("--json is of one benchmark: give one name")

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    for name in options.names:
        results = importlib.import_module(f"benchmarks.{name}").run(quick=options.quick)
        print(results.table, flush=True)
        if options.json is not None:
            facts = {"benchmark": name, "machine": machine_facts(), **results.numbers}
            options.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return 0


def machine_facts() -> dict[str, Any]:
    """What the numbers depend on, without saying whose machine it is."""
    return {
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": metadata.version("numpy"),
        "scipy": metadata.version("scipy"),
    }


if __name__ == "__main__":
    sys.exit(main())
