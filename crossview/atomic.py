"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from crossview.errors import FolderBusyError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside the target that takes its name once the block has succeeded.

    An exception, or a killed process, leaves the target as it was. Permissions follow the umask.

    Example:
        with atomic.replacing(path) as temporary:
            temporary.write_text(text)
    """
    target = Path(path)
    # the suffix stays, because some writers choose their format by it
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: str | os.PathLike[str]) -> Iterator[None]:
    """The right to write into a folder that is there, until the block or the process ends.

    Only those who ask here are kept out. Where the system has no such locks, nobody is.

    Raises:
        FolderBusyError: Another process has it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderBusyError(
                f"Another process writes into {folder}. Try again when it has finished, or use a "
                "folder of its own."
            ) from error
        yield
    finally:
        os.close(handle)
