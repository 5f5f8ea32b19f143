"""How much memory can be had: of the machine, and of the control groups that allow less."""

from pathlib import Path

import pytest

from crossview.memory import available_bytes, proc_bytes

MACHINE = "MemTotal:       32000 kB\nMemAvailable:   20000 kB\n"


@pytest.fixture
def root(tmp_path):
    """A machine with 20,000 kB left."""
    written(tmp_path, {"proc/meminfo": MACHINE})
    return tmp_path


def written(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def group(folder, limit, used, cached):
    return {
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": f"anon 5\ninactive_file {cached}\n",
    }


def test_a_machine_has_what_is_available(root):
    assert available_bytes(root) == 20_000 * 1024


def test_a_system_that_says_nothing_has_nothing_to_say(tmp_path):
    assert available_bytes(tmp_path) is None
    assert proc_bytes(tmp_path / "none", "MemAvailable") is None
    written(tmp_path, {"proc/meminfo": "MemTotal: 32000 kB\n"})
    assert available_bytes(tmp_path) is None


def test_a_group_that_allows_less_decides(root):
    written(root, {"proc/self/cgroup": "0::/users/job\n"})
    written(root, group("sys/fs/cgroup/users/job", "max", 700, 0))
    assert available_bytes(root) == 20_000 * 1024
    written(root, group("sys/fs/cgroup/users/job", 5_000, 1_700, 200))
    assert available_bytes(root) == 5_000 - 1_700 + 200
    written(root, group("sys/fs/cgroup/users", 2_000, 1_900, 50))
    assert available_bytes(root) == 2_000 - 1_900 + 50
    written(root, group("sys/fs/cgroup/users", 2_000, 2_100, 0))
    assert available_bytes(root) == 0


def test_groups_of_the_first_version_count_too(root):
    folder = "sys/fs/cgroup/memory"
    written(
        root,
        {
            f"{folder}/memory.limit_in_bytes": "9000\n",
            f"{folder}/memory.usage_in_bytes": "4000\n",
            f"{folder}/memory.stat": "cache 900\ntotal_inactive_file 100\n",
        },
    )
    assert available_bytes(root) == 9_000 - 4_000 + 100


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="needs Linux")
def test_this_machine_has_some():
    assert 0 < available_bytes() < 2**50
