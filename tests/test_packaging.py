"""What is installed: the lists of dependencies agree, and nothing names one machine."""

import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import crossview

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
CONDA_NAMES = {"matplotlib-base": "matplotlib", "pyosmium": "osmium"}
NOT_DEPENDENCIES = {"python", "pip"}


def requirements(lines):
    """name -> Requirement, canonical names."""
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def extra(name):
    return requirements(PROJECT["project"]["optional-dependencies"][name])


CORE = requirements(PROJECT["project"]["dependencies"])


# ---------------------------------------------------------------- environment.yml


def conda_environment():
    path = REPOSITORY / "environment.yml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    listed = [entry for entry in content["dependencies"] if isinstance(entry, str)]
    by_pip = [
        line
        for entry in content["dependencies"]
        if isinstance(entry, dict)
        for line in entry["pip"]
    ]
    return listed, by_pip


def conda_requirements():
    listed, by_pip = conda_environment()
    found = requirements(listed + [line for line in by_pip if not line.startswith("-e")])
    return {canonicalize_name(CONDA_NAMES.get(name, name)): value for name, value in found.items()}


def test_environment_yml_names_the_core_dependencies_and_no_others():
    assert set(conda_requirements()) - NOT_DEPENDENCIES == set(CORE)


@pytest.mark.parametrize("name", sorted(CORE))
def test_environment_yml_has_the_same_floor(name):
    assert conda_requirements()[name].specifier == CORE[name].specifier


def test_environment_yml_has_the_same_python():
    expected = PROJECT["project"]["requires-python"]
    assert str(conda_requirements()["python"].specifier) == expected


def test_environment_yml_installs_the_project_with_extras_that_exist():
    _, by_pip = conda_environment()
    (editable,) = [line for line in by_pip if line.startswith("-e")]
    extras = re.fullmatch(r"-e \.\[(.+)\]", editable).group(1).split(",")
    assert set(extras) <= set(PROJECT["project"]["optional-dependencies"])


# ---------------------------------------------------------------- constraints.txt


def constraints():
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return requirements(line for line in lines if line.strip() and not line.startswith("#"))


def extras_of_the_makefile():
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    return re.search(r'"\.\[([\w,]+)\]"', text).group(1).split(",")


def test_constraints_pin_one_version_each():
    for name, requirement in constraints().items():
        operators = [specifier.operator for specifier in requirement.specifier]
        assert operators == ["=="], f"{name} is not pinned: {requirement}"


def test_every_direct_dependency_of_the_tested_extras_is_pinned_at_or_above_its_floor():
    wanted = dict(CORE)
    for name in extras_of_the_makefile():
        wanted |= extra(name)
    pins = constraints()
    assert set(wanted) - set(pins) == set()
    for name, requirement in wanted.items():
        (pin,) = pins[name].specifier
        assert requirement.specifier.contains(pin.version, prereleases=True), name


def test_every_dependency_of_a_dependency_is_pinned():
    pins = set(constraints())
    waiting = [*CORE, *(name for used in extras_of_the_makefile() for name in extra(used))]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that is not installed here
        environment = {**default_environment(), "extra": ""}
        waiting += [
            canonicalize_name(requirement.name)
            for requirement in map(Requirement, lines)
            if requirement.marker is None or requirement.marker.evaluate(environment)
        ]
    assert len(seen) > 50
    assert seen - pins - {"setuptools", "wheel", "pip"} == set()


def test_a_network_framework_is_an_extra_and_not_core():
    assert not {"tensorflow", "tensorflow-cpu", "jax", "torch"} & set(CORE)
    assert "tensorflow-cpu" in extra("cpu")
    assert "tensorflow" in extra("gpu")
    assert "jax" in extra("jax")


# ---------------------------------------------------------------- versions and files


def test_the_version_is_the_same_everywhere():
    assert crossview.__version__ == PROJECT["project"]["version"]
    assert str(Version(crossview.__version__)) == crossview.__version__


def test_the_oldest_python_is_the_same_everywhere():
    (floor,) = re.findall(r"3\.\d+", PROJECT["project"]["requires-python"])
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + floor.replace(".", "")
    assert PROJECT["tool"]["mypy"]["python_version"] == floor


def test_every_command_that_is_installed_exists():
    for target in PROJECT["project"]["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_licence_is_apache_2():
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")


def project_files():
    """What git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout, so there is no list of the project's files")
    return [REPOSITORY / line for line in listed.splitlines()]


TOP_FOLDERS = "|".join(["work", "home", "root", "Users", "mnt", "scratch"])
MACHINE_PATH = re.compile(rf"(?<![\w./<-])/(?:{TOP_FOLDERS})/\w|(?<!\w)[A-Z]:\\[A-Z]")
# split so that this file does not match itself
PACKAGE_INDEX = re.compile("|".join(["index-" + "url", "find-" + "links", "trusted-" + "host"]))


@pytest.mark.parametrize("pattern", [MACHINE_PATH, PACKAGE_INDEX], ids=["paths", "indexes"])
def test_no_file_names_a_place_on_one_machine(pattern):
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue  # binary, or deleted and not yet committed
        found += [
            f"{path.relative_to(REPOSITORY)}: {line.strip()[:100]}"
            for line in text.splitlines()
            if pattern.search(line)
        ]
    assert found == []


def test_the_search_for_machine_paths_finds_them():
    for place in ("work/main", "home/me/x", "root/x"):
        assert MACHINE_PATH.search(f"open('/{place}')"), place
    assert MACHINE_PATH.search("C:" + r"\Users")
    for text in ("../shared/data", "https://example.org/home/x", "a/root/b"):
        assert not MACHINE_PATH.search(text), text
