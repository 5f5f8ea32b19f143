"""Files appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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
