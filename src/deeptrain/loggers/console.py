"""What a person sees while a run runs: a head, one live line, one table row an epoch, an end."""

import io
import re
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich import console as rich_console
from rich.text import Text

from deeptrain.loggers.append_only_file import AppendOnlyFile
from deeptrain.metrics.metric import METRICS, Metric
from deeptrain.report import formatting
from deeptrain.runtime import terminal
from deeptrain.runtime.terminal import printable

HEAD_LINES = 9  # with more than this before the first step nobody reads any
WIDTH = 120  # of a pipe, and the most that the head takes of a terminal
TABLE_WIDTH = 80  # at least; of a wider terminal it takes as much as the head
WARNING = "warning: "
BAR_WIDTH = 30
REDRAW_SECONDS = 0.1


@dataclass(frozen=True)
class Column:
    """One column of the table, there when the first row has all the keys that it is written from."""

    head: str
    width: int
    keys: tuple[str, ...]
    write: Callable[..., str]


FIXED = ("loss", "accuracy")  # metrics that have their place in the table
VAL = Column("val acc", 7, ("accuracy/val",), formatting.percent)  # carries the mark of the best row
GAP = Column(
    "gap", 5, ("accuracy/train_clean", "accuracy/val"), lambda train, val: formatting.format_points(train - val)
)
SPEED = Column("img/s", 6, ("images_per_second",), formatting.speed)
WAIT = Column("wait", 4, ("data_wait",), lambda wait: f"{wait:.0%}")  # its key is there while it is much
WAIT_MEANS = "wait is the share of the time in which steps wait for pictures; more workers= may help"
COLUMNS = (
    Column("train loss", 10, ("loss/train",), formatting.format_loss),
    Column("val loss", 8, ("loss/val",), formatting.format_loss),
    VAL,
    Column("avg acc", 7, ("accuracy/val_average",), formatting.percent),
    GAP,
    Column("lr", 7, ("rate/lr",), formatting.format_lr),
    SPEED,
    Column("left", 6, ("seconds_left",), formatting.duration),
    WAIT,
)
DISPENSABLE = (WAIT, SPEED, GAP)  # left out, in this order, where the table would be too wide


class Console:
    """Writes to a terminal with colour and a live line, or to a pipe as plain text. run.log gets every finished line.

    Losing the terminal, or the disk under the log, never stops a run. What cannot be shown is dropped; what cannot be
    logged is tried again with the next line. Every line may hold a stranger's words, so `printable` cleans it.
    `quiet` shows nothing (every process but the first).
    """

    def __init__(self, stream: TextIO | None = None, log: Path | None = None, quiet: bool = False):
        self._stream = None if quiet else stream or sys.stdout
        is_terminal = self._stream is not None and self._stream.isatty()
        self._console = rich_console.Console(
            file=io.StringIO(),  # it only renders: on a closed pipe it would end the process
            force_terminal=is_terminal,
            force_jupyter=False,
            width=None if is_terminal else WIDTH,
            legacy_windows=False,
        )
        self._notebook = _NotebookLine.of_kernel() if self._stream is sys.stdout and not is_terminal else None
        self._live = (is_terminal and not self._console.is_dumb_terminal) or self._notebook is not None
        self._bar = False  # whether the live line is on the screen now
        self._drawn = -REDRAW_SECONDS  # when it was drawn last
        self._pass: float = 1  # the epoch being made, and what is known of it
        self._facts: list[str] = []
        self._columns: list[Column] | None = None
        self._all_columns: Sequence[Column] = COLUMNS
        self._epochs = self._steps = 1
        self._log: AppendOnlyFile | None = None
        self._unlogged: list[str] = []
        if log is not None:
            self.open_log(log)

    def open_log(self, path: Path) -> None:
        """Keep every line in this file from now on, those shown before included."""
        self._log = AppendOnlyFile(path, self.warn)
        waiting, self._unlogged = self._unlogged, []
        self._record(*waiting)

    def header(self, lines: Sequence[str], warnings: Sequence[str] = ()) -> None:
        """Show the head: lines of "label  value" (two spaces between) in two aligned columns, then warnings.

        At most HEAD_LINES in all. Where they are more, each gets one line, then each label. The rest is left to the
        log. The last line of the head stays, and as many warnings as there is room for.
        """
        rows, width = _aligned(lines), min(self._console.width, WIDTH)
        warned = [(WARNING, printable(sentence)) for sentence in warnings]
        self._record(*(label + value for label, value in [*rows, *warned]))
        head = [line for row in rows for line in _wrapped(*row, width, "bold")]
        if len(head) + len(warned) > HEAD_LINES:
            is_short = len(rows) + len(warned) <= HEAD_LINES
            head = [_cut(*row, width) for row in ([(*row, "") for row in rows] if is_short else _by_label(rows))]
        room = max(HEAD_LINES - len(warned), HEAD_LINES // 2)
        if len(head) > room:
            head[room - 2 : -1] = [Text(f"and {len(head) - room + 1} more lines, in run.log")]
        left = HEAD_LINES - len(head)
        if len(warned) > left:
            warned[left - 1 :] = [(WARNING, f"and {len(warned) - left + 1} more like these, in run.log")]
        for line in head:
            self._show(line)
        for label, sentence in warned:
            self._show(Text.assemble((label, "yellow"), sentence))

    def message(self, text: str) -> None:
        """Tell something on a line of its own."""
        self._say("", text)

    def warn(self, text: str) -> None:
        """Tell of something that may be wrong, on a line of its own."""
        self._say(WARNING, text)

    def start(
        self, epochs: int, steps_per_epoch: int, first_epoch: int = 0, metrics: Mapping[str, Metric] = METRICS
    ) -> None:
        """Start the table of a run that has done `first_epoch` passes already."""
        self._epochs, self._steps = epochs, max(1, steps_per_epoch)
        more = [_column(name, metric) for name, metric in metrics.items() if name not in FIXED and metric.column != ""]
        after = COLUMNS.index(VAL) + 1
        self._all_columns = [*COLUMNS[:after], *more, *COLUMNS[after:]]
        if self._live:
            self._draw(self._live_line(min(first_epoch + 1, epochs), 0, []))

    def progress(
        self,
        epoch: float,
        step_in_epoch: int,
        loss: float,
        accuracy: float,
        rate: float,
        images_per_second: float,
        seconds_left: float | None = None,
    ) -> None:
        """Tell the live line what has been measured; `epoch` is the pass being made, from 1 on."""
        if not self._live:
            return
        facts = [
            f"loss {formatting.format_loss(loss)}",
            f"acc {100 * accuracy:.1f}%",
            f"lr {formatting.format_lr(rate)}",
        ]
        facts += [f"{formatting.speed(images_per_second)} img/s"]
        facts += [] if seconds_left is None else [f"{formatting.duration(seconds_left)} left"]
        if epoch > self._epochs:  # the last pass has just ended
            epoch, step_in_epoch = self._epochs, self._steps
        self._pass, self._facts = epoch, facts
        self.advance(step_in_epoch)

    def advance(self, step_in_epoch: int) -> None:
        """Move the live line on, at most ten times a second; it shows what `progress` gave last."""
        if not self._live:
            return
        now = time.monotonic()
        if now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._draw(self._live_line(self._pass, step_in_epoch / self._steps, list(self._facts)))

    def status(self, text: str) -> None:
        """Say in the live line what is being done, at most ten times a second."""
        now = time.monotonic()
        if self._live and now - self._drawn >= REDRAW_SECONDS:
            self._drawn = now
            self._draw(Text(printable(text)[: self._console.width - 1]))

    def epoch(self, row: Mapping[str, float], best: bool) -> None:
        """Add a table row: metrics by tag, `epoch`, `images_per_second`, `seconds_left`, `data_wait` if it is much.

        The columns are those that some row had values for. Where one is added (an average that starts late), there is
        a new head. The other values of a row are not shown.
        """
        width = max(5, 2 * len(f"{self._epochs:g}") + 1)
        before = self._columns or []
        columns = [column for column in self._all_columns if column in before or row.keys() >= set(column.keys)]
        columns = _fitting(columns, width, max(TABLE_WIDTH, min(WIDTH, self._console.width)))
        if self._columns is None or not set(columns) <= set(before):
            if WAIT in columns and WAIT not in before:
                self.message(WAIT_MEANS)
            self._columns = columns
            heads = {column: column.head for column in columns}
            self._print(Text(_joined("epoch".rjust(width), heads), "bold"))
        cells = {c: c.write(*(row[k] for k in c.keys)) if row.keys() >= set(c.keys) else "" for c in self._columns}
        line = Text(_joined(f"{row['epoch']:g}/{self._epochs:g}".rjust(width), cells, "*" if best else " "))
        line.highlight_regex(r"\S+ +\*", "green")
        self._print(line)

    def end(self, lines: Sequence[str]) -> None:
        """Show the closing lines in the two columns of the head, never wrapped or cut: they hold commands to paste."""
        for label, value in _aligned(lines):
            self._print(Text.assemble((label, "bold"), value))

    def close(self) -> None:
        """Take the live line off the screen; what follows is shown as before."""
        if self._bar:
            self._show(Text(), end="")

    def _live_line(self, epoch: float, done: float, facts: list[str]) -> Text:
        """Lay out the line in the width there is: position and facts, and a bar of up to 30 columns."""
        room = self._console.width - 1  # a full line wraps on some terminals
        position = f"{epoch:g}/{self._epochs:g}"
        while facts and len(position) + sum(len(fact) + 2 for fact in facts) > room:
            facts.pop(2 if len(facts) > 2 else -1)  # the rate goes first, the loss last
        room -= len(position) + sum(len(fact) + 2 for fact in facts)
        if room > 24:
            position, room = f"epoch {position}", room - len("epoch ")
        length = min(BAR_WIDTH, room - 1)
        filled = round(min(1.0, max(0.0, done)) * length)
        bar = [] if length < 4 else [" ", ("━" * filled, "cyan"), ("─" * (length - filled), "dim")]
        return Text.assemble(position[: self._console.width - 1], *bar, *(f"  {fact}" for fact in facts))

    def _say(self, label: str, text: str) -> None:
        text = printable(text)
        self._record(label + text)
        width = self._console.width if self._live else len(label + text)  # a pipe is searched by lines
        for line in _wrapped(label, text, width, "yellow"):
            self._show(line)

    def _print(self, line: Text) -> None:
        self._record(line.plain)
        self._show(line)

    def _record(self, *lines: str) -> None:
        if self._log is None:
            self._unlogged += lines
        else:
            self._log.add("".join(f"{line.rstrip()}\n" for line in lines).encode())

    def _draw(self, line: Text) -> None:
        """Show the live line in place of the one that is there."""
        if self._notebook is None:
            self._show(line, end="")
        else:
            self._notebook.update(line.plain)
        self._bar = True

    def _show(self, line: Text, end: str = "\n") -> None:
        """Take the live line away and write this one."""
        if self._stream is None:
            return
        with self._console.capture() as captured:
            self._console.print(line, end=end, soft_wrap=True)
        erase = "\r\x1b[2K" if self._bar and self._notebook is None else ""
        if self._bar and self._notebook is not None:
            self._notebook.update("")
        self._bar = False
        if terminal.write(erase + captured.get(), self._stream) is not None:  # the run is worth more than its terminal
            self._stream, self._live = None, False


class _NotebookLine:
    """A line of a notebook's output that is replaced in place; rows stand below it.

    Notebooks do not erase a line (`\\x1b[2K`), and a page that executes them keeps every text after `\\r`.
    """

    def __init__(self, handle: Any):
        self._handle, self._is_shown, self._text = handle, False, ""

    @classmethod
    def of_kernel(cls) -> "_NotebookLine | None":
        """Return a line of the running notebook, None outside of one."""
        ipython = sys.modules.get("IPython")
        if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):
            return None
        from IPython.display import DisplayHandle  # pyright: ignore[reportMissingImports]

        return cls(DisplayHandle())

    def update(self, text: str) -> None:
        self._text = text
        (self._handle.update if self._is_shown else self._handle.display)(self)
        self._is_shown = True

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self._text)


def _column(name: str, metric: Metric) -> Column:
    head = metric.column or f"val {name}"
    return Column(head, max(7, len(head)), (f"{name}/val",), formatting.metric_format(metric.as_percent))


def _fitting(columns: list[Column], first: int, room: int) -> list[Column]:
    for column in DISPENSABLE:
        if first + 2 + sum(2 + column.width for column in columns) > room and column in columns:
            columns.remove(column)
    return columns


def _joined(first: str, cells: dict[Column, str], mark: str = " ") -> str:
    """Set the cells right-aligned in their columns, the mark behind the validation accuracy."""
    parts = [f"  {cell:>{column.width}}" + (f" {mark}" if column is VAL else "") for column, cell in cells.items()]
    return "".join([first, *parts]).rstrip()


def _aligned(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Split "label  value" at the first two spaces and pad the labels to one width; a line without has no label."""
    pairs = [re.split(r" {2,}", printable(line.rstrip()), maxsplit=1) for line in lines]
    width = max((len(pair[0]) for pair in pairs if len(pair) == 2), default=0)
    return [(f"{pair[0]:<{width}}  ", pair[1]) if len(pair) == 2 else ("", pair[0]) for pair in pairs]


def _by_label(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return label and value of the first row of each label, and how many more there are."""
    counts, first = Counter(label for label, _ in rows), {}
    for label, value in rows:
        first.setdefault(label, value)
    more = {label: f"; {count - 1} more in run.log" if count > 1 else "" for label, count in counts.items()}
    return [(label, value, more[label]) for label, value in first.items()]


def _wrapped(label: str, value: str, width: int, style: str) -> list[Text]:
    """Break a row between words; a word longer than the line (a path) is left whole."""
    parts = textwrap.wrap(value, max(20, width - len(label)), break_long_words=False, break_on_hyphens=False)
    first, *rest = parts or [""]
    return [Text.assemble((label, style), first), *(Text(" " * len(label) + part) for part in rest)]


def _cut(label: str, value: str, more: str, width: int) -> Text:
    """Shorten a row to one line at the end of a word, unless its value is one word: half a path is of no use."""
    room = width - len(label) - len(more) - 1
    if len(value) > room and " " in value:
        value = value[:room].rsplit(" ", 1)[0] + "…"
    return Text.assemble((label, "bold"), value + more)
