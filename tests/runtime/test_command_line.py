"""What both command lines say and return when the work ends well, is stopped, or fails."""

import pytest

from clreplay.runtime.command_line import exit_code


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize("code", [0, 1])
def test_the_work_s_own_code_is_passed_on(code, capsys):
    assert exit_code(lambda: code) == code
    assert capsys.readouterr().err == ""


def test_ctrl_c_says_how_to_go_on(capsys):
    assert exit_code(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "\nStopped. The same command goes on from here.\n"


@pytest.mark.parametrize("kind", [ValueError, OSError, FloatingPointError, FileNotFoundError])
def test_an_error_is_one_line(kind, capsys):
    assert exit_code(raising(kind("steps must divide the 10 classes"))) == 2
    assert capsys.readouterr().err == "error: steps must divide the 10 classes\n"


def test_a_fault_of_the_program_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: 1 // 0)
