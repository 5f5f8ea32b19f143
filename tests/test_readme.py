"""The documentation is true: its Python runs; commands, options, links and modules exist."""

import argparse
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click
import matplotlib
import pytest
from test_layers import LAYERS

from benchmarks.__main__ import BENCHMARKS
from benchmarks.__main__ import main as run_benchmarks
from crossview import cli
from data_tools import cli as data_cli

REPOSITORY = Path(__file__).resolve().parents[1]
README = REPOSITORY / "README.md"
PAGES = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("**/*.md")])
OURS = {"crossview": cli.main, "crossview-data": data_cli.main}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A command line of ours as a page shows it."""

    page: str
    text: str
    is_whole: bool

    def __str__(self):
        return f"{self.page}: {self.text}"


def blocks_of(page, *languages):
    text = page.read_text(encoding="utf-8")
    return [content for language, content in BLOCK.findall(text) if language in languages]


def prose_of(page):
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def is_ours(text):
    words = text.split()
    return bool(words) and (words[0] in OURS or text.startswith("python -m benchmarks"))


def commands_of(page):
    """Commands in shell blocks, which are whole, and in inline code, which may be a part."""
    lines = [
        line.split(" #")[0].strip()
        for block in blocks_of(page, "bash", "sh", "console")
        for line in block.replace("\\\n", " ").splitlines()
    ]
    inline = re.findall(r"`([^`\n]+)`", prose_of(page))
    parts = [part for part in inline if is_ours(part) and not part.endswith("...")]
    return [
        *(Command(page.name, line, is_whole=True) for line in lines if is_ours(line)),
        *(Command(page.name, part, is_whole=False) for part in parts),
    ]


COMMANDS = [command for page in PAGES for command in commands_of(page)]


def pages_with(*languages):
    return [page for page in PAGES if blocks_of(page, *languages)]


# ----------------------------------------------------------------------- python


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("page", pages_with("python"), ids=lambda page: page.name)
def test_python_on_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(matplotlib.rcParams, "backend", "agg")
    namespace = {"__name__": "__main__"}
    for block in blocks_of(page, "python"):
        exec(compile(block, page.name, "exec"), namespace)


def test_the_readme_shows_python_and_commands():
    assert blocks_of(README, "python")
    assert [command for command in COMMANDS if command.page == README.name]


# --------------------------------------------------------------------- commands


def check_click(command, words, *, is_whole):
    """Follow subcommands and options as click does; raise on what does not exist."""
    context = click.Context(command)
    given, arguments = set(), []
    words = list(words)
    while words:
        word = words.pop(0)
        if word.startswith("-"):
            option, _, value = word.partition("=")
            known = {name: p for p in command.get_params(context) for name in p.opts}
            assert option in known, f"{command.name} has no option {option}"
            given.add(known[option].name)
            if not (value or known[option].is_flag or option == "--help"):
                del words[: known[option].nargs]
        elif isinstance(command, click.Group):
            child = command.get_command(context, word)
            assert child is not None, f"{command.name} has no command {word}"
            command, context, given = child, click.Context(child), set()
        else:
            arguments.append(word)
    takes = [p for p in command.params if isinstance(p, click.Argument)]
    wanted = [p for p in takes if p.required]
    assert len(arguments) <= len(takes), f"{command.name} takes {len(takes)} arguments"
    if is_whole and "help" not in given:
        assert not isinstance(command, click.Group), f"{command.name} needs a subcommand"
        assert len(arguments) >= len(wanted), f"{command.name} needs {len(wanted)} arguments"
        missing = {p.name for p in command.params if p.required} - given - {p.name for p in wanted}
        assert not missing, f"{command.name} needs {missing}"


def check_benchmarks(words):
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS))
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    _, unknown = parser.parse_known_args(words)
    assert not unknown


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_on_a_page_exists_with_its_options(command):
    words = shlex.split(command.text)
    if words[0] in OURS:
        check_click(OURS[words[0]], words[1:], is_whole=command.is_whole)
    else:
        check_benchmarks(words[3:])


@pytest.mark.parametrize(
    "text",
    [
        "crossview locate",
        "crossview localize photo.jpg --map m.osm --out o --radius 3",
        "crossview localize photo.jpg --map m.osm",
        "crossview localize --map m.osm --out o",
        "crossview evaluate",
        "crossview demo extra --out o",
    ],
)
def test_the_check_of_commands_finds_what_does_not_exist(text):
    with pytest.raises(AssertionError):
        check_click(cli.main, text.split()[1:], is_whole=True)


def test_the_benchmark_command_has_the_options_that_the_check_believes(capsys):
    with pytest.raises(SystemExit, match="0"):
        run_benchmarks(["--help"])
    shown = capsys.readouterr().out
    assert {"--json", "--quick"} <= set(re.findall(r"--\w+", shown))


def options_below(command):
    for parameter in command.params:
        yield from parameter.opts
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from options_below(command.get_command(context, name))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_an_option_in_prose_is_one_of_ours(page):
    known = {option for command in OURS.values() for option in options_below(command)}
    known |= {"--help", "--json", "--quick", "--check"}  # every command's, benchmarks', ruff's
    spans = re.findall(r"`([^`\n]+)`", prose_of(page))
    named = {word for span in spans for word in span.split() if re.fullmatch(r"--[a-z-]+", word)}
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_make_target_on_a_page_exists(page):
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    code = "\n".join(blocks_of(page, "bash", "sh", "")) + "\n" + prose_of(page)
    named = set(re.findall(r"(?:^ {4}|^|`)make ([a-z]+)(?=`|\s*$|\s+#)", code, re.MULTILINE))
    assert named <= targets


# ------------------------------------------------------------------------ links


def anchors_of(page):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_on_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        assert REPOSITORY in [there, *there.parents], target
        if anchor:
            assert anchor in anchors_of(there), target


def test_nothing_is_left_to_be_filled_in():
    for page in PAGES:
        placeholders = re.findall(
            r"^[A-Z]+_[A-Z_]+$|\bTODO\b|\bTBD\b", page.read_text(), re.MULTILINE
        )
        assert placeholders == [], page.name


# ------------------------------------------------------------- tests and modules


def test_a_test_that_a_page_names_exists():
    source = "\n".join(path.read_text() for path in (REPOSITORY / "tests").glob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)", source, re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`(test_\w+)`", prose_of(page))) <= defined, page.name


def modules_of(package):
    """Top-level modules and packages, by name."""
    folder = REPOSITORY / package
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    return files | {path.parent.name for path in folder.glob("*/__init__.py")}


def layers_of(text):
    """Layer of each name in the picture of the layers."""
    layers, number = {}, None
    for line in text.splitlines():
        words = line.replace("(keras)", "").split()
        if words[0].isdigit():
            number, words = int(words[0]), words[2:]
        layers |= dict.fromkeys(words, number)
    return layers


def test_the_architecture_puts_every_module_where_the_test_of_layers_has_it():
    page = REPOSITORY / "docs" / "architecture.md"
    (picture,) = (block for block in blocks_of(page, "") if "5  edges" in block)
    layers = layers_of(picture)
    theirs = {f"data_tools.{name}" for name in modules_of("data_tools")}
    assert set(layers) == modules_of("crossview") | theirs
    assert {name: LAYERS[name] for name in layers} == layers
