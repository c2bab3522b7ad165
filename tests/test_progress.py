"""A bar on a terminal, nothing in a pipe."""

import io
import re

import pytest
from rich.console import Console

from experiments.progress import progress_bar


def make_console(**kwargs) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    # Not what the environment says of the terminal that the tests run in.
    return Console(file=written, width=100, _environ={}, **kwargs), written


def test_nothing_is_drawn_where_there_is_no_terminal():
    console, written = make_console()
    with progress_bar(10, console) as show:
        for done in range(11):
            show(done, f"loss {done}")
    assert written.getvalue() == ""


def test_lines_pass_through_a_pipe_unchanged():
    console, written = make_console()
    with progress_bar(10, console) as show:
        show(5, "half")
        console.print("Epoch [1/2]")
    assert written.getvalue() == "Epoch [1/2]\n"


def visible(written: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue())


def test_a_terminal_shows_compiling_then_text_and_percentage():
    console, written = make_console(force_terminal=True)
    with progress_bar(8, console) as show:
        assert "compiling" in visible(written)
        assert "0%" in visible(written)
        show(2, "epoch 1/4, loss 2.1234")
        console.print("a line between")
    shown = visible(written)
    for part in ("25%", "epoch 1/4, loss 2.1234", "left", "a line between"):
        assert part in shown


def test_the_bar_goes_away_when_the_run_ends_or_fails():
    for error in (None, KeyboardInterrupt):
        console, written = make_console(force_terminal=True)
        with pytest.raises(KeyboardInterrupt) if error else _nothing():
            with progress_bar(8, console) as show:
                show(2, "text")
                if error:
                    raise error
        # The cursor is back, and what is drawn last is an erased line.
        assert "\x1b[?25h" in written.getvalue()
        last_drawn = written.getvalue().rindex("text")
        assert "\x1b[2K" in written.getvalue()[last_drawn:]


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *args):
        return None
