"""Progress of a run: a bar on a terminal, plain lines in a pipe."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def progress_bar(total: int, console: Console) -> Iterator[Callable[[int, str], None]]:
    """Shows how far a run has come, where someone looks at a terminal.

    Args:
        total: number of steps of the whole run.
        console: where to draw; nothing is drawn if it is quiet or no terminal.

    Yields:
        A function of the steps done so far and a short text beside the bar.
    """
    columns = (
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=console.quiet or not console.is_terminal,
    ) as bar:
        task = bar.add_task("compiling", total=total)

        def show(done: int, text: str) -> None:
            bar.update(task, completed=done, description=text)

        yield show
