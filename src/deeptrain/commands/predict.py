"""Ask a run's network about pictures: python scripts/predict.py outputs/DATE/RUN photos/"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from deeptrain.commands.cli import answer, in_this_installation
from deeptrain.commands.csv_file import as_csv, csv_file
from deeptrain.runtime import terminal
from deeptrain.runtime.garbage import RARELY, collect_every
from deeptrain.runtime.paths import read_path
from deeptrain.schema import PositiveInt, Range

if TYPE_CHECKING:
    from deeptrain.commands.words import Words
    from deeptrain.inference.predictor import Prediction

USAGE = """\
python scripts/predict.py RUN PICTURE|FOLDER|- [key=value ...]

RUN is a run's folder (then its best weights are taken) or one of its checkpoints. Several pictures and folders may be
named. - reads the names from standard input, one a line.

  top=5                  how many classes are shown for a picture
  coverage=0.9           also the set of classes that holds the true one for 90 % of such pictures
  format=table           or json (an object a line), or csv
  csv=FILE               also write a table: file, label, probability, then the probability of every class
  temperature=1          probabilities as trained, although an evaluation of val has fitted a temperature
  tta=flip               the mean of several views: flip, shift, train, ten_crop, multi_scale or dropout
  strict=true            exit with 1 if a picture cannot be read
  batch_size=64          pictures at a time, where memory is short

Settings of the machine, such as device=cpu, replace those of the run. Pictures that cannot be read are listed at the
end, with the reason. Exit code: 0, or 2 if no picture could be read or the command is wrong.
"""

BAR_SECONDS = 0.1
MAX_NAME = 60  # columns of the table's first column


@dataclass
class Options:
    """What is asked, and how the answer is written."""

    top: PositiveInt = 5
    coverage: Annotated[float, Range(above=0, below=1)] | None = None
    format: Literal["table", "json", "csv"] = "table"
    csv: str | None = None
    temperature: Literal[1] | None = None
    tta: Literal["flip", "shift", "train", "ten_crop", "multi_scale", "dropout"] | None = None
    tta_draws: PositiveInt = field(default=16, metadata={"key": "tta.draws"})
    strict: bool = False
    batch_size: PositiveInt | None = None


@collect_every(RARELY)
def predict(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _predict)


def _predict(arguments: list[str]) -> int:
    from deeptrain.errors import UsageError
    from deeptrain.run import folder

    command = parse(arguments)
    run_dir, checkpoint = folder.find(command.names[0], "run", best=True)
    try:
        pictures = _pictures(command.names[1:])
    except ValueError as error:
        raise UsageError([str(error)]) from error

    from deeptrain.inference.restore import load
    from deeptrain.run.calibration import describe

    network = load(command.names[0], command.overrides)
    views = _views(command, run_dir, network) if command.options.tta else None
    if command.options.temperature:
        network.calibration = None
    terminal.report(*describe(network.loss, network.calibration))
    threshold = _threshold(command, run_dir, checkpoint, network) if command.options.coverage else None
    if views is None:
        answers = network.predict_each(pictures, command.options.batch_size)
    else:
        from deeptrain.inference.averaging import predict_each

        answers = predict_each(network, views, pictures, command.options.batch_size)
    unread = _write(answers, command.options, pictures, network.classes, threshold)
    if len(unread) == len(pictures):
        more = [f"none of the {len(pictures):,} pictures could be read"] if len(pictures) > 1 else unread
        raise UsageError(more)
    return 1 if unread and command.options.strict else 0


def _views(command: "Words", run_dir: Path, network: Any) -> Any:
    """Return the views of tta=, and give the network the temperature of their mean. Hydra composes the run's recipe."""
    from deeptrain.config.compose import compose_run
    from deeptrain.inference import averaging
    from deeptrain.inference.views import check
    from deeptrain.run import calibration, defaults
    from deeptrain.training.checkpoint import digest

    tta = command.options.tta
    assert tta is not None
    run = compose_run([*defaults.load_overrides(run_dir, command.overrides), *command.overrides])
    views = averaging.make_views(tta, run, command.options.tta_draws, averaging.described(network))
    terminal.report(*check(views, network, averaging.written_characters(network)))
    network.calibration = calibration.load(run_dir, digest(network.model.state_dict()), tta)
    return views


def parse(arguments: Sequence[str]) -> "Words[Options]":
    """Take a command line apart; UsageError if a word is none of ours. The first name is the run."""
    from deeptrain.commands import words
    from deeptrain.errors import UsageError
    from deeptrain.run.saved import NETWORK_WORDS

    command = words.parse(arguments, Options, USAGE, "predicting", NETWORK_WORDS)
    if command.options.tta and command.options.coverage:
        raise UsageError(["coverage: goes by the probabilities of one view; leave out tta, or coverage"])
    if len(command.names) < 2:
        usage = in_this_installation(USAGE).splitlines()[0]
        raise UsageError([f"name a picture, a folder, or - for names on standard input: {usage}"])
    return command


def _pictures(names: Sequence[str]) -> list[Path]:
    """Return the pictures that are named, those of folders and of standard input included; ValueError if none are."""
    from deeptrain.data.path_messages import describe_missing, printable
    from deeptrain.inference.pictures import expand

    found = []
    for name in names:
        if name == "-":
            lines = [os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line.strip()]
            if not lines:
                raise ValueError("-: standard input names no pictures")
            found += expand(lines)
            continue
        try:
            path = read_path(name)
        except ValueError as error:
            raise ValueError(f"{printable(name)}: {error}") from error
        if not path.exists():
            raise ValueError(f"{printable(name)}: {describe_missing(path)}")
        found += expand([path])
    return found


def _threshold(command: "Words", run_dir: Path, checkpoint: Path, network: Any) -> float:
    """Return the probability that puts a class into the set. The run keeps what that needs of val, or is asked anew."""
    from deeptrain.errors import UsageError
    from deeptrain.inference.calibrate import true_class_probabilities
    from deeptrain.metrics.conformal import threshold

    assert command.options.coverage is not None
    found = true_class_probabilities(run_dir, checkpoint, network, command.overrides)
    try:
        return threshold(found, command.options.coverage)
    except ValueError as error:
        raise UsageError([str(error)]) from error


# --- output ---


def _write(
    answers: "Iterator[Prediction]",
    options: Options,
    pictures: Sequence[Path],
    classes: Sequence[str],
    threshold: float | None,
) -> list[str]:
    """Write the answers as they come; return the reasons of pictures that could not be read, which are listed last."""
    formats = _formats(options, pictures, classes, threshold)
    head, row = formats[options.format]
    csv_head, csv_row = formats["csv"]
    unread: list[str] = []
    bar = Bar(len(pictures))
    with csv_file(options.csv) as file:
        if file is not None:
            print(csv_head, file=file)
        for answer in answers:
            if answer.error:
                unread.append(answer.error)
            else:
                if file is not None:
                    print(csv_row(answer), file=file)
                bar.clear()
                text = "".join(f"{line}\n" for line in (head, row(answer)) if line is not None)
                if (reason := terminal.write(text, sys.stdout)) is not None and file is None:
                    _check_reader(reason)
                    break
                head = None
            bar.advance()
    bar.clear()
    if len(pictures) > 1:
        terminal.report(bar.summary(len(unread)), *(f"  {reason}" for reason in unread))
    return unread


def _check_reader(reason: str) -> None:
    """Raise UsageError if what was written is lost; that nobody reads on is no mistake."""
    from deeptrain.errors import UsageError

    if reason:
        raise UsageError([f"standard output: {reason}"])


Row = Callable[["Prediction"], str]


def _formats(
    options: Options, pictures: Sequence[Path], classes: Sequence[str], threshold: float | None
) -> dict[str, tuple[str | None, Row]]:
    """Return the first line and the writer of a row of each format."""
    from deeptrain.data.path_messages import printable as escaped
    from deeptrain.report.formatting import shorten

    room = shutil.get_terminal_size().columns - 1 if sys.stdout.isatty() else None  # a pipe is read by programs
    width = min(MAX_NAME, max((len(terminal.printable(str(picture))) for picture in pictures), default=0))
    label = max(5, *(len(terminal.printable(name)) for name in classes))
    if room is not None:
        width, label = min(width, max(12, room // 3)), min(label, max(8, room // 4))

    def cell(text: str, width: int) -> str:
        text = terminal.printable(text)
        return f"{text if room is None else shorten(text, lambda part: len(part) <= width):<{width}}"

    def fit(line: str) -> str:
        return line if room is None or len(line) <= room else f"{line[: room - 1].rstrip(', ')}…"

    def table(answer: "Prediction") -> str:
        (name, probability), *others = answer.top(options.top)
        rest = [f"{other} {share:.1%}" for other, share in others]
        sets = "" if threshold is None else f"  {{{', '.join(answer.at_least(threshold))}}}"
        line = f"{cell(answer.name, width)}  {cell(name, label)}  {probability:6.1%}{sets}"
        while room is not None and rest and len(f"{line}  {', '.join(rest)}") > room:
            rest.pop()
        return fit(terminal.printable(f"{line}  {', '.join(rest)}".rstrip()))

    def json_line(answer: "Prediction") -> str:
        top = [{"label": name, "probability": probability} for name, probability in answer.top(options.top)]
        content = {"file": answer.name, "label": answer.label, "probability": answer.probability, "top": top}
        return json.dumps(content | ({} if threshold is None else {"set": answer.at_least(threshold)}))

    def csv_line(answer: "Prediction") -> str:
        sets = [] if threshold is None else [" ".join(answer.at_least(threshold))]
        return as_csv([escaped(answer.name), answer.label, answer.probability, *sets, *answer.probabilities.tolist()])

    set_head = "" if threshold is None else f"  set of {options.coverage:.0%}"
    title = f"{'picture':<{width}}  {'class':<{label}}  {'prob.':>6}{set_head}  next"
    columns = ["file", "label", "probability", *([] if threshold is None else ["set"]), *classes]
    return {"table": (fit(title), table), "json": (None, json_line), "csv": (as_csv(columns), csv_line)}


class Bar:
    """One line on the terminal that says how far it is; without a terminal, nothing."""

    def __init__(self, total: int):
        self.total, self.done, self.started = total, 0, time.perf_counter()
        self.is_live, self.drawn = total > 1 and sys.stderr.isatty(), 0.0

    def advance(self) -> None:
        self.done += 1
        now = time.perf_counter()
        if self.is_live and now - self.drawn > BAR_SECONDS:
            self.drawn = now
            share = 30 * self.done // self.total
            bar = f"{'━' * share}{'─' * (30 - share)} {self.done:,} of {self.total:,} pictures"
            terminal.write(f"\r{bar}, {self._speed():,.0f} a second\x1b[K", sys.stderr)

    def clear(self) -> None:
        if self.is_live and self.drawn:
            terminal.write("\r\x1b[K", sys.stderr)

    def summary(self, unread: int) -> str:
        """Say how many pictures there were and how many could not be read."""
        line = f"{self.done:,} pictures, {self._speed():,.0f} a second"
        return f"{line}; {unread:,} could not be read:" if unread else line

    def _speed(self) -> float:
        return self.done / max(time.perf_counter() - self.started, 1e-9)
