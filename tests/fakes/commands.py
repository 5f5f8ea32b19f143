"""Running the command crossview, and its options as words."""

from click.testing import CliRunner

from crossview.cli import main


def run(*arguments):
    """Run a command; whatever is no mistake of the user's is raised."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def mistake(*arguments, exit_code=1):
    """What a command says on stderr, in one line, about a mistake."""
    result = run(*arguments)
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    assert "Traceback" not in result.stderr
    return last


def words_of(options):
    """Options as words: True is a flag, None leaves one out."""
    for name, value in options.items():
        if value is not None:
            yield "--" + name.replace("_", "-")
            yield from () if value is True else (value,)
