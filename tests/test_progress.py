"""Progress: a bar on a terminal, nothing of it in a pipe."""

import io

import pytest
from rich.console import Console

from experiments.progress import progress_bar


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_bar_is_for_terminals(is_terminal):
    text = io.StringIO()
    console = Console(file=text, force_terminal=is_terminal, width=100)
    with progress_bar(10, console) as show:
        show(10, "epoch 1/1, loss 0.9000")
    assert ("epoch 1/1, loss 0.9000" in text.getvalue()) == is_terminal
    assert is_terminal or text.getvalue() == ""
