"""What the pages tell people to type is understood: flags, names and settings, without running it."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from clreplay.benchmark import cli as static_tables
from clreplay.benchmark.plan import plan
from clreplay.command.main import command
from clreplay.command.run import SCRIPTS
from clreplay.incremental.rate_accuracy import points
from clreplay.memory.kept import Kept
from clreplay.recipes.recipe import recipe_names
from clreplay.runtime.progress import Reporter

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "results").glob("*.md"))]
]
TYPED = re.compile(r"python (runs/\w+\.py|-m clreplay\.benchmark)([^`\n#]*)")


def typed(script):
    """Every full command of the pages that starts a script: its words after the script."""
    found = []
    for page in PAGES:
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
            found += [(page, match[2].strip()) for match in TYPED.finditer(line) if match[1] == script]
    return [one for one in dict.fromkeys(found) if one[1] and "..." not in one[1] and "OTHER" not in one[1]]


COMMAND = re.compile(r"(?:^|`)clreplay ([a-z][^`\n#]*)")


def commands():
    """Every full line of the pages that starts with the command: its words after it."""
    found = []
    for page in PAGES:
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
            found += [(page, match[1].strip()) for match in COMMAND.finditer(line) if "..." not in match[1]]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(("page", "words"), commands())
def test_commands_are_understood(page, words):
    name, *rest = shlex.split(words)
    if name == "run":
        SCRIPTS[rest[0]][0]().parser("clreplay").parse_args(rest[1:])
    elif name == "tables":
        SCRIPTS["static-tables"][0]().parser("clreplay").parse_args(rest)
    else:
        parsed = command.get_command(None, name).make_context(name, list(rest)).params
        assert parsed.get("memory", "ddm") in recipe_names() or parsed["memory"].endswith(".safetensors")


def test_every_sub_command_is_shown():
    assert {words.split()[0] for page, words in commands() if page == "docs/command_line.md"} >= set(command.table)


def test_the_pages_name_scripts_that_are_there():
    named = {match[1] for page in PAGES for match in TYPED.finditer((ROOT / page).read_text(encoding="utf-8"))}
    scripts = {name for name in named if name.startswith("runs/")}
    assert len(scripts) >= 5
    assert all((ROOT / name).is_file() for name in scripts)


OF_SCRIPTS = [
    (page, name, words)
    for name in SCRIPTS
    if (ROOT / "runs" / f"{name.replace('-', '_')}.py").is_file()
    for page, words in typed(f"runs/{name.replace('-', '_')}.py")
]


@pytest.mark.parametrize(("page", "name", "words"), OF_SCRIPTS)
def test_flags_of_scripts_are_understood(page, name, words):
    options = SCRIPTS[name][0]().parser(name).parse_args(shlex.split(words))
    recipes = [one for one in getattr(options, "memory", None) or [] if one.endswith(".yaml")]
    assert all((ROOT / one).is_file() for one in recipes)


def test_many_scripts_are_shown():
    assert len({name for _, name, _ in OF_SCRIPTS}) >= 7


@pytest.mark.parametrize(("page", "words"), typed("runs/static_tables.py"))
def test_commands_of_static_tables_make_a_plan(page, words):
    options = static_tables.parser().parse_args(shlex.split(words))
    tables = static_tables.TITLES if options.table == ["all"] else options.table
    asked = static_tables._requests(list(tables), options, Reporter(None))
    assert len(asked) == len(tables)
    for one in asked:
        planned = plan(static_tables._grid(options, one, "cpu"))
        assert planned and (len(planned) > 20 or not any(one.problem for one in planned))


def test_there_are_such_commands():
    assert len(typed("runs/static_tables.py")) >= 5


@pytest.mark.parametrize(("page", "words"), typed("runs/rate_accuracy.py"))
def test_commands_of_rates_are_understood(page, words):
    options = runpy.run_path(str(ROOT / "runs" / "rate_accuracy.py"))["parser"]().parse_args(shlex.split(words))
    assert points(options.memory, [Kept.parse(text) for text in options.store], options.mem_bytes, options.updates)
    assert set(options.memory) <= set(recipe_names())
