"""What is said comes out as it is, or costs nothing; a bar on a terminal alone."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from experiments import benchmark, cifar, cli, report, study, terminal
from experiments.terminal import progress_bar
from tests.programs import end

COMMANDS = (cifar, study, report, benchmark)
# To rich, a style, the end of none, and a picture.
TYPED = "w[lr=0.1] [/b] 1:100:"


def make_console(**kwargs) -> tuple[Console, io.StringIO]:
    written = io.StringIO()
    # Not what the environment says of the terminal that the tests run in.
    return Console(file=written, width=100, _environ={}, **kwargs), written


def test_lines_pass_through_a_pipe_unchanged_and_nothing_is_drawn():
    console, written = make_console()
    with progress_bar(10, console) as show:
        show(5, "half")
        console.print("Epoch [1/2]")
    assert written.getvalue() == "Epoch [1/2]\n"


def visible(written: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue())


def test_what_users_typed_is_printed_as_they_typed_it(capsys):
    console = terminal.make_console()
    table = Table(title=TYPED)
    table.add_column(TYPED)
    table.add_row(TYPED)
    line = f"Results: {TYPED} {'long ' * 100}end"
    console.print(line)
    console.print(table)
    shown = capsys.readouterr().out
    assert shown.startswith(f"{line}\n")
    assert shown.count(TYPED) == 4
    console, written = make_console(force_terminal=True)
    with progress_bar(8, console) as show:
        show(2, TYPED)
    assert TYPED in visible(written)


# Streams that cannot take everything, or anything


@contextlib.contextmanager
def shell(
    patch: pytest.MonkeyPatch, out: str | None = None, encoding: str = "utf-8"
) -> Iterator[None]:
    """Opens stdout as a shell and Python do: None closes it, "|" is a pipe unread."""
    saved = os.dup(0), os.dup(1)
    stream = None
    if out is None:
        os.closerange(0, 2)  # stdin as well
    else:
        reader, file = os.pipe()
        os.close(reader)
        if out != "|":
            os.close(file)
            file = os.open(out, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.close(file)
        stream = open(1, "w", encoding=encoding, closefd=False)
    patch.setattr(sys, "stdout", stream)
    patch.setattr(sys, "__stdout__", stream)
    try:
        yield
        if stream is not None:
            stream.flush()  # as Python does in the end
    finally:
        for fd, file in enumerate(saved):
            os.dup2(file, fd)
            os.close(file)


def say(lines: list[str]) -> None:
    with terminal.sheltered():
        console = terminal.make_console()
        for line in lines:
            print(line)
            console.print(line)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", r"0.5 +- 0.1, -3, 1-2 \xb5s..., w\udcff"),
        ("cp1252", r"0.5 ± 0.1, -3, 1–2 µs…, w\udcff"),
        ("utf-8", r"0.5 ± 0.1, −3, 1–2 µs…, w\udcff"),
    ],
)
def test_what_an_encoding_lacks_is_spelt(encoding, expected, tmp_path, monkeypatch):
    path = tmp_path / "log"
    with shell(monkeypatch, str(path), encoding):
        say(["0.5 ± 0.1, −3, 1–2 µs…, w\udcff"])
    assert path.read_text(encoding).splitlines() == [expected] * 2


def test_a_bar_and_a_table_are_drawn_with_what_the_encoding_has(tmp_path, monkeypatch):
    path = tmp_path / "log"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with shell(monkeypatch, str(path), "ascii"), terminal.sheltered():
        console = terminal.make_console()
        with progress_bar(8, console) as show:
            show(4, "half")
        console.print(Table("µs"))
    shown = path.read_text("ascii")
    assert "half" in shown and "\\u" not in shown


@pytest.mark.parametrize("out", [None, "|", "/dev/full"])
def test_nobody_needs_to_take_what_is_said(out, monkeypatch, capfd):
    with shell(monkeypatch, out):
        say(["a line"] * 1_000)
    told = ["warning: stdout cannot be written (No space left on device)"]
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(";")[0] for line in lines] == told * (out == "/dev/full")


def test_what_is_closed_is_not_taken_by_the_next_file(tmp_path, monkeypatch):
    with shell(monkeypatch, None), terminal.sheltered():
        with open(tmp_path / "result.json", "w", encoding="utf-8"):
            os.write(1, b"what a library prints")
    assert (tmp_path / "result.json").read_bytes() == b""


def test_a_full_pipe_that_does_not_block_is_waited_for():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    content = b"x" * 1_000_000  # more than a pipe holds
    with ThreadPoolExecutor() as pool, open(reader, "rb") as file:
        read = pool.submit(file.read)
        with io.BufferedWriter(terminal._Standing(writer, "w")) as stream:
            stream.write(content)
        assert read.result() == content


def test_streams_of_a_notebook_stay_as_they_are(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with terminal.sheltered():
        assert sys.stdout is stream
        print("±")
    assert stream.getvalue() == "±\n"
    assert sys.stdout is stream


@pytest.mark.parametrize("command", COMMANDS, ids=lambda module: module.__name__)
def test_every_command_says_its_help_to_nobody(command, monkeypatch, capfd):
    with shell(monkeypatch, "/dev/full", "ascii"):
        assert end(command.main, "--help") == 0
    assert "Traceback" not in capfd.readouterr().err


# Flags, and a home or none


@pytest.mark.parametrize("command", COMMANDS, ids=lambda module: module.__name__)
def test_an_empty_value_is_refused_by_every_command(
    command, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert end(command.main, "--out=") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --out") and "give a value" in line
    assert not list(tmp_path.iterdir())


def test_a_tilde_stands_for_the_home_wherever_a_path_may_stand(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    typed = ["--out=~/x=y", "~", "--audio", "~/a b", "--rate=~nobody_here/x", "a~"]
    monkeypatch.setattr(sys, "argv", ["command", *typed])
    assert terminal.arguments() == [
        *("--out=/home/someone/x=y", "/home/someone", "--audio", "/home/someone/a b"),
        *("--rate=~nobody_here/x", "a~"),
    ]


def test_whoever_has_no_home_has_the_root(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("HOME", "to be restored")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "home", fail)
    with terminal.sheltered():
        assert os.environ["HOME"] == "/"


def test_what_would_steer_a_terminal_is_spelt(capsys):
    hostile = "x\x1b[2J\x1b[31mforged"
    terminal.warn(hostile)
    with pytest.raises(SystemExit), cli.exit_codes(interrupted=""):
        raise cli.UsageError(f"--out={hostile}: no")
    printed = capsys.readouterr().err
    assert "\x1b" not in printed and printed.count("x\\x1b[2J\\x1b[31mforged") == 2
