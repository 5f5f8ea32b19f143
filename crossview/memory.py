"""How much memory can be had."""

from __future__ import annotations

from pathlib import Path


def available_bytes(root: Path = Path("/")) -> int | None:
    """Memory that can be had without swapping; None where the system does not say.

    What the machine has left, or the control groups of this process (version 2, or 1 as containers
    see it) where they allow less.

    Args:
        root: Where /proc and /sys are.
    """
    left = [
        proc_bytes(root / "proc/meminfo", "MemAvailable"),
        *(
            _left_bytes(group, "memory.max", "memory.current", "inactive_file")
            for group in _groups(root)
        ),
        _left_bytes(
            root / "sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ]
    return min((each for each in left if each is not None), default=None)


def proc_bytes(file: Path, name: str) -> int | None:
    """A line of a file such as /proc/meminfo, which counts in kB; None without file or line."""
    if not file.is_file():
        return None
    for line in file.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _groups(root: Path) -> list[Path]:
    """The control group of this process and those that it is in, version 2."""
    file = root / "proc/self/cgroup"
    if not file.is_file():
        return []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("0::/"):
            inside = Path(line.removeprefix("0::/"))
            return [root / "sys/fs/cgroup" / each for each in (inside, *inside.parents)]
    return []


def _left_bytes(folder: Path, limit: str, used: str, cached: str) -> int | None:
    """What a control group has left; files that it keeps in memory without need do not count."""
    try:
        most = int((folder / limit).read_text(encoding="ascii"))
        now = int((folder / used).read_text(encoding="ascii"))
        stated = (folder / "memory.stat").read_text(encoding="ascii")
    except (OSError, ValueError):  # there is none, or its limit is "max"
        return None
    fields = dict(line.split(maxsplit=1) for line in stated.splitlines())
    return max(most - now + int(fields.get(cached, 0)), 0)
