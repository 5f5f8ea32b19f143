"""Files that appear whole or not at all, and folders that one process writes into."""

import subprocess
import sys

import pytest

from crossview import atomic
from crossview.errors import FolderBusyError


def test_what_is_interrupted_leaves_the_target_as_it_was(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as temporary:
        temporary.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic.replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_two_do_not_write_into_one_folder(tmp_path):
    with atomic.alone(tmp_path), pytest.raises(FolderBusyError, match="writes into"):
        atomic.alone(tmp_path).__enter__()
    with atomic.alone(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_killed_process_lets_the_folder_go(tmp_path):
    code = (
        "import os, sys\nfrom crossview import atomic\n"
        "atomic.alone(sys.argv[1]).__enter__()\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -9
    with atomic.alone(tmp_path):
        pass
