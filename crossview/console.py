"""How commands speak: data to stdout, words to stderr, a mistake in one line."""

from __future__ import annotations

import logging
from typing import Any

import click

from crossview.errors import CrossviewError

LOGGERS = ("crossview", "data_tools")


class OneLineErrors(click.Group):
    """A group in which a mistake of the user's is one line and exit code 1, not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run; the traceback is for those who ask for every word (see words_to_stderr)."""
        try:
            return super().invoke(ctx)
        except (CrossviewError, OSError, ValueError, ArithmeticError) as error:
            logging.getLogger(__name__).debug("Where it happened:", exc_info=error)
            raise click.ClickException(" ".join(str(error).split())) from error


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
