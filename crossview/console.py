"""How commands speak: data to stdout, words to stderr, a mistake in one line."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import click

from crossview.errors import CrossviewError

LOGGERS = ("crossview", "data_tools")
PROGRESS_DELAY_S = 2.0
"""Work shorter than this shows no progress bar."""

PROGRESS_STEP_S = 1.0
"""Between two looks at the clock, where there is nothing to count."""

_Item = TypeVar("_Item")


def progress(items: Iterable[_Item], *, total: int | None, unit: str) -> Iterator[_Item]:
    """The items, with a bar of rate and time left on a terminal where they take long."""
    from tqdm import tqdm

    # disable=None: only where stderr is a terminal
    yield from tqdm(items, total=total, unit=unit, delay=PROGRESS_DELAY_S, disable=None)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on a terminal how long something takes whose end cannot be counted, if it takes long.

    Args:
        what: What is done, such as "Reading town.osm.pbf".
    """
    if not sys.stderr.isatty():
        yield
        return
    done, start_s = threading.Event(), time.monotonic()
    thread = threading.Thread(target=_count_seconds, args=(what, start_s, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _count_seconds(what: str, start_s: float, done: threading.Event) -> None:
    wait_s, line = PROGRESS_DELAY_S, ""
    while not done.wait(wait_s):
        line = f"{what}: {time.monotonic() - start_s:.0f} s"
        click.echo(f"\r{line}", err=True, nl=False)
        wait_s = PROGRESS_STEP_S
    if line:
        click.echo(f"\r{' ' * len(line)}\r", err=True, nl=False)


class OneLineErrors(click.Group):
    """A group in which a mistake of the user's is one line and exit code 1, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run; the traceback is for those who ask for every word (see words_to_stderr)."""
        try:
            return super().invoke(ctx)
        except (CrossviewError, OSError, ValueError, ArithmeticError) as error:
            logging.getLogger(__name__).debug("Where it happened:", exc_info=error)
            raise click.ClickException(" ".join(str(error).split())) from error


class LazyGroup(OneLineErrors):
    """A group that imports a command when it is called.

    Args:
        lazy: By name, the module whose `command` it is, and what it does: `--help` imports none.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names, in alphabetical order."""
        return sorted(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name, imported now."""
        if cmd_name not in self.lazy:
            return None
        return importlib.import_module(self.lazy[cmd_name][0]).command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of `--help`, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.lazy[name][1]) for name in sorted(self.lazy)])


class _EchoHandler(logging.Handler):
    """Log records as words on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        click.echo(self.format(record), err=True)


def words_to_stderr(level: int) -> None:
    """Log what the packages say from a level on; the caller's own handlers stay."""
    handler = _EchoHandler(level)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(min(level, logging.INFO))
        others = [other for other in logger.handlers if not isinstance(other, _EchoHandler)]
        logger.handlers = [*others, handler]
