"""What both command lines say and return when the work ends well, is stopped, or fails."""

import os
import signal
import threading
import time

import pytest

from clreplay.runtime.command_line import exit_code, signals_as_ctrl_c


@pytest.fixture
def default_handlers():
    """As a script finds them; a library that another test used may have put its own in this process."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_signals_are_taken_as_ctrl_c_and_only_within_the_block(number, default_handlers, capsys):
    def work():
        with signals_as_ctrl_c():
            os.kill(os.getpid(), number)
            for _ in range(1000):
                time.sleep(0.01)
        return 0

    assert exit_code(work) == 128 + number
    assert capsys.readouterr().err == f"\nStopped by {number.name}. The same command goes on from here.\n"
    assert signal.getsignal(number) == signal.SIG_DFL


def test_a_handler_of_the_caller_s_own_is_left_alone():
    taken = []
    before = signal.signal(signal.SIGTERM, lambda *_: taken.append(1))
    try:
        with signals_as_ctrl_c():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert taken == [1]


def test_in_another_thread_nothing_changes(default_handlers):
    seen = []

    def work():
        with signals_as_ctrl_c():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
