"""What people see while a command works, on stderr: log messages, progress bars, and a training run."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from mlcl_cli.cli.render import new_console, print_markup, safe
from mlcl_cli.formatting import duration
from mlcl_cli.progress import NOTICE, Advance, TrainingDisplay, TrainingStatus

SECONDS_BETWEEN_LINES = 30.0
LONG = 2.0  # seconds; a shorter inner bar would only flicker
SPEED_OVER = 600.0  # seconds over which the time left is estimated: steps and validations alternate


class Terminal:
    """Prints the package's log messages and displays progress.

    Draws live bars if stderr is a terminal, and otherwise prints a plain line every half a minute. With `quiet`, prints
    plain lines on a terminal, too, and leaves out notes.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = new_console(stderr=True)
        self._plain = quiet or not self._console.is_terminal
        self._bars: Progress | None = None
        package = logging.getLogger("mlcl_cli")
        package.handlers = [handler for handler in package.handlers if not isinstance(handler, _ConsoleHandler)]
        package.addHandler(_ConsoleHandler(self._console))
        package.setLevel(NOTICE if quiet else logging.INFO)

    @contextmanager
    def bar(self, label: str, total: int | None) -> Iterator[Advance]:
        """A progress bar. An inner one is drawn below an outer one, or below a training run."""
        if self._plain:
            yield self._plain_bar(label, total)
            return
        if self._bars is None:
            with self._draw(_Bars(self._console)), self.bar(label, total) as advance:
                yield advance
            return
        bars, outermost, began = self._bars, not self._bars.tasks, time.monotonic()
        task = bars.add_task(safe(label), total=total, visible=outermost, status="")

        def draw_advance(count: int, status: str = "") -> None:
            visible = outermost or time.monotonic() - began > LONG
            bars.update(task, advance=count, visible=visible, status=safe(status))

        try:
            yield draw_advance
        finally:
            if not outermost:
                bars.remove_task(task)

    @contextmanager
    def training(self, epochs: int, steps: int, done: int) -> Iterator[TrainingDisplay]:
        """A display of a run: epochs, steps, the loss with its terms, learned scalars, the best epoch."""
        if self._plain:
            yield _PlainRun(self._print, epochs, steps, done)
        else:
            with self._draw(run := _LiveRun(self._console, epochs, steps, done)):
                yield run

    @contextmanager
    def _draw(self, bars: Progress) -> Iterator[None]:
        self._bars = bars
        try:
            with bars:
                yield
        finally:
            self._bars = None

    def _print(self, text: str) -> None:
        print_markup(self._console, f"[dim]·[/dim] {safe(text)}")

    def _plain_bar(self, label: str, total: int | None) -> Advance:
        done, printed, began = 0, time.monotonic(), time.monotonic()

        def print_advance(count: int, status: str = "") -> None:
            """Print a line if the last one was long ago, or a status at the end."""
            nonlocal done, printed
            done += count
            now = time.monotonic()
            if now - printed > SECONDS_BETWEEN_LINES or (done == total and status):
                left, of = "", "" if total is None else f" of {total:,}"
                if total is not None and done < total:
                    left = f", {duration((now - began) * (total - done) / max(1, done))} left"
                self._print(f"{label}: {done:,}{of}{left}{', ' if status else ''}{status}")
                printed = now

        return print_advance


class _ConsoleHandler(logging.Handler):
    """Prints log messages above the progress bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        mark = "[yellow]warning:[/yellow]" if record.levelno >= logging.WARNING else "[dim]·[/dim]"
        print_markup(self._console, f"{mark} {safe(record.getMessage())}")


class _TimeLeft(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        text = super().render(task)
        return text if task.finished or task.total is None else text.append(" left")


class _Bars(Progress):
    def __init__(self, console: Console, refresh_per_second: float = 10) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(separator=" of "),
            _TimeLeft(compact=True, elapsed_when_finished=True),
            TextColumn("[dim]{task.fields[status]}[/dim]"),
            console=console,
            refresh_per_second=refresh_per_second,
            speed_estimate_period=SPEED_OVER,
        )


class _LiveRun(_Bars):
    """A training run on a terminal."""

    def __init__(self, console: Console, epochs: int, steps: int, done: int) -> None:
        super().__init__(console, refresh_per_second=4)
        self._steps, self._done, self._status = steps, done, TrainingStatus()
        self._run = self.add_task("Epochs", total=epochs, status="")
        self._epoch = self.add_task("Steps", total=steps, visible=False, status="")
        self._number, self._began, self._long = 0, time.monotonic(), False

    def move(self, epoch: int, step: int) -> None:
        if epoch != self._number:
            now = time.monotonic()
            self._number, self._began, self._long = epoch, now, self._number > 0 and now - self._began > LONG
        self._done = (epoch - 1) * self._steps + step

    def show(self, status: TrainingStatus) -> None:
        self._status = status

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, and below them the figures."""
        if not self.tasks:  # rich renders once in its own constructor
            return
        self.update(self._run, completed=self._done / self._steps, status=_rate(self._status))
        of_epoch = self._done - max(0, self._number - 1) * self._steps
        long = self._long or time.monotonic() - self._began > LONG
        self.update(self._epoch, completed=of_epoch, visible=long)
        yield from super().get_renderables()
        lines = "\n".join(f"  {line}" for line in _lines(self._status, self._number))
        yield Text(lines, style="dim", no_wrap=False, overflow="fold")


class _PlainRun:
    """A training run as plain lines: one every half a minute, and one at the end."""

    def __init__(self, say: Callable[[str], None], epochs: int, steps: int, done: int) -> None:
        self._print, self._epochs, self._steps = say, epochs, steps
        self._first = self._done = done
        self._began = self._printed = time.monotonic()

    def move(self, epoch: int, step: int) -> None:
        self._done = (epoch - 1) * self._steps + step

    def show(self, status: TrainingStatus) -> None:
        """Print a line if the last one was long ago or the run is done."""
        now, total = time.monotonic(), self._epochs * self._steps
        if self._done < total and now - self._printed < SECONDS_BETWEEN_LINES:
            return
        self._printed = now
        epoch, step = divmod(self._done, self._steps)
        where = f"epoch {epoch:,} of {self._epochs:,}" + (f" and {step:,} of {self._steps:,} steps" if step else "")
        left = (now - self._began) * (total - self._done) / max(1, self._done - self._first)
        ahead = [f"{duration(left)} left"] if self._done < total else []
        rate = [_rate(status)] if status.rate else []
        self._print(" · ".join([f"Training: {where}", *ahead, *rate, *_lines(status, epoch)]))


def _lines(status: TrainingStatus, epoch: int) -> list[str]:
    """The loss as a sum, the learned scalars, the best epoch."""
    lines = []
    if status.loss is not None:
        terms = " + ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in status.terms.items())
        lines.append(f"loss {status.loss:.3f}" + (f" = {terms}" if len(status.terms) > 1 else ""))
    if status.parameters:
        lines.append(" · ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in status.parameters.items()))
    if status.best is not None:
        best = status.best
        since = f", {epoch - best.epoch:,} epochs ago" if epoch > best.epoch + 1 else ""
        lines.append(f"best {best.metric} {best.score:.2f} at epoch {best.epoch:,}{since}")
    return lines


def _rate(status: TrainingStatus) -> str:
    return "" if status.rate is None else f"{status.rate:,.0f} triplets/s"
