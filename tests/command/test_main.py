"""The command itself: sub-commands, what is told of a mistake, exit codes, and the scripts behind ``clreplay run``."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from clreplay.benchmark import cli as tables
from clreplay.command import main as program
from clreplay.command.run import SCRIPTS
from clreplay.incremental.cli import continual_parser
from clreplay.incremental.doors import DOORS

ROOT = Path(__file__).resolve().parents[2]
NO_COMMAND = ("bench_condense", "reference_loop", "streams")
"""Scripts that measure the library itself, not a memory."""


@pytest.fixture
def run(capsys):
    """``run("show", "ddm")``: the exit code, what was printed, and what was said on standard error."""

    def command(*words):
        try:
            code = program.main(words)
        except SystemExit as stopped:  # argparse's, of the scripts
            code = stopped.code
        return code, *capsys.readouterr()

    return command


def completions(words, incomplete):
    """What a shell offers after some words."""
    shell = ShellComplete(program.command, {}, "clreplay", "_CLREPLAY_COMPLETE")
    return [item.value for item in shell.get_completions(list(words), incomplete)]


def test_alone_it_says_what_it_can_do(run):
    code, out, _ = run()
    assert code == 0
    for name, line in program.COMMANDS.items():
        assert name in out and line.split()[0] in out


def test_every_sub_command_has_help(run):
    for name in program.COMMANDS:
        code, out, err = run(name, "--help")
        assert (code, err) == (0, "") and f"clreplay {name}" in out


def test_help_and_version_need_neither_torch_nor_avalanche():
    blocker = (
        "import sys; sys.modules['torch'] = sys.modules['avalanche'] = None\n"
        "from clreplay.command.main import main; sys.exit(main(sys.argv[1:]))"
    )
    for words in (["--version"], ["run"], ["condense", "--help"], ["evaluate", "--help"], ["tables", "--help"]):
        done = subprocess.run([sys.executable, "-c", blocker, *words], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert "clreplay" in done.stdout


def test_python_m_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "clreplay", "--version"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("clreplay, version ") and done.returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["condens"], "no command 'condens'; did you mean 'condense'?"),
        (["run", "cifar100_5step.py"], "no command 'cifar100_5step.py'; did you mean 'cifar100-5step'?"),
        (["run", "zzz"], "no command 'zzz'. There are cifar100-5step, "),
        (["condense"], "Missing argument 'DATASET' (see clreplay condense --help)"),
        (["condense", "digits", "--memry", "dm"], "--memry"),
        (["condense", "cifar11"], "got 'cifar11'; did you mean 'cifar10'?"),
        (["condense", "digits", "--memory", "herdin"], "unknown memory 'herdin'; did you mean 'herding'?"),
        (["condense", "digits", "--set", "iteration=3"], "did you mean 'iterations'?"),
        (["condense", "digits", "--quality", "best"], "'best' is neither a number nor auto"),
        (["show", "dmm"], "no file dmm, and no memory of that name; did you mean 'd"),
        (["evaluate", "nothing.safetensors"], "no memory at nothing.safetensors"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(run, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*words)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_whoever_stops_reading_is_no_error():
    code = (
        "import sys; from clreplay.runtime.command_line import exit_code\n"
        "def work():\n"
        "    for _ in range(100_000): print('a line that nobody reads')\n"
        "sys.exit(exit_code(work))"
    )
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    started.stdout.readline()
    started.stdout.close()
    assert started.stderr.read() == b"" and started.wait() == 141
    started.stderr.close()


# ---------------------------------------------------------------- the scripts


def test_every_script_that_a_user_runs_is_a_command():
    scripts = {path.stem for path in (ROOT / "runs").glob("*.py")} - set(NO_COMMAND)
    assert {name.replace("_", "-") for name in scripts} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_and_its_command_have_the_same_flags(name, run):
    script = str(ROOT / "runs" / f"{name.replace('-', '_')}.py")
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, cwd=ROOT)
    code, out, err = run("run", name, "--help")
    assert (code, err, done.returncode) == (0, "", 0)

    def flags(text):
        return text[text.index("options:") :].split()

    assert flags(out) == flags(done.stdout)
    assert f"usage: clreplay run {name} " in out and f"    clreplay run {name} " in out  # the examples as well
    assert "runs/" not in out


def test_a_run_records_the_command_that_it_was_started_by(run, tmp_path):
    flags = ["--memory", "random", "--preset", "smoke", "--set", "train.updates=1", "--host", "none", "--device", "cpu"]
    code, out, err = run("run", "digits-5step", *flags, "--out", str(tmp_path / "run"))
    assert (code, err) == (0, "") and "1 class order, 1 network a step" in out
    said = (tmp_path / "run" / "settings.yaml").read_text()
    assert "clreplay run digits-5step --memory random --preset smoke" in " ".join(said.split())
    code, _, err = run("run", "digits-5step", "--memory", "dmm")
    assert code == 2 and err.count("\n") == 1 and "did you mean" in err


def test_an_unknown_flag_of_a_script_is_its_parser_s_to_refuse(run):
    code, _, err = run("run", "digits-5step", "--memry", "random")
    assert code == 2 and "usage: clreplay run digits-5step" in err and "unrecognized arguments: --memry" in err


def test_tables_are_the_static_tables(run, tmp_path):
    flags = ["--table", "8", "--preset", "paper", "--device", "cuda", "--status", "--out", str(tmp_path)]
    code, out, _ = run("tables", *flags)
    assert code == 0 and "not measured" in out
    assert run("run", "static-tables", *flags)[1] == out
    assert tables.parser(program="clreplay tables").prog == "clreplay tables"


# ---------------------------------------------------------------- completion


def test_a_shell_is_offered_commands_flags_names_and_data_sets():
    assert completions([], "con") == ["condense"]
    assert completions(["run"], "dig") == ["digits-5step"]
    assert completions(["run", "digits-5step"], "--mem") == ["--memory", "--mem-size", "--mem-bytes"]
    assert completions(["condense", "digits", "--memory"], "dm+s") == ["dm+sm", "dm+sm-second"]
    assert completions(["condense"], "cifar") == ["cifar10", "cifar100"]
    assert completions(["condense"], "./my") == ["./my"]


def test_doors_have_the_flags_of_the_scripts():
    for dataset, description, domains in DOORS.values():
        parser = continual_parser(dataset, description, "clreplay run x", domains)
        assert "clreplay run x --" in parser.format_help()
    assert isinstance(program.command, click.Group)
