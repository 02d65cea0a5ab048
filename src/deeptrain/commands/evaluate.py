"""Evaluate a run's best weights on the test split: python scripts/evaluate.py outputs/DATE/RUN"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from deeptrain.commands.cli import answer
from deeptrain.commands.csv_file import as_csv, csv_file
from deeptrain.runtime import terminal
from deeptrain.runtime.garbage import RARELY, collect_every
from deeptrain.schema import PositiveInt

if TYPE_CHECKING:
    from deeptrain.commands.words import Words
    from deeptrain.inference.evaluate import Answers, Split
    from deeptrain.inference.mistakes import Mistakes
    from deeptrain.run.calibration import Calibration

USAGE = """\
python scripts/evaluate.py RUN [split=test|val|all] [csv=FILE] [key=value ...]
python scripts/evaluate.py RUN RUN ... [key=value ...]

RUN is a run's folder (then its best weights are taken) or one of its checkpoints. Shows accuracy, top-5, a table of
the classes, how far the probabilities can be believed, and the worst pictures. Writes confusion-<split>.png,
reliability-<split>.png and mistakes-<split>.png, and appends to evaluation.json. csv=FILE gets a row for each image.
Settings of the data and the machine, such as data.root=DIR or device=cpu, replace those that the run was trained with.

tta=flip averages the answers to several views of each picture. The views: flip, shift (flips and one pixel), train (16
draws of the run's own augmentation, tta.draws=N), ten_crop, multi_scale, dropout. With split=val a table shows the gain
and the price; there tta=all compares all of them.

split=val takes the images that the run has held out. It also fits the temperature of the probabilities. split=all
takes every picture in the class folders of data.root=DIR, which the run must not have seen.

Several runs are compared on val, image by image: each with the first one.
"""

READ = ("--config-dir", "allow_targets", "cache_dir", "data", "device", "model.test_samples", "precision", "workers")


@dataclass
class Options:
    """What is asked."""

    split: Literal["test", "val", "all"] | None = None  # None: test, or val where runs are compared
    csv: str | None = None
    tta: Literal["flip", "shift", "train", "ten_crop", "multi_scale", "dropout", "all"] | None = None
    tta_draws: PositiveInt = field(default=16, metadata={"key": "tta.draws"})

    @property
    def averaging(self) -> str | None:
        """Return how the answers are averaged that are shown in full: all= shows those of one view."""
        return None if self.tta == "all" else self.tta


@collect_every(RARELY)
def evaluate(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _evaluate)


def _evaluate(arguments: list[str]) -> int:
    command = parse(arguments)
    return _compare(command) if len(command.names) > 1 else _evaluate_one(command)


def parse(arguments: Sequence[str]) -> "Words[Options]":
    """Take a command line apart; UsageError if a word is none of ours."""
    from deeptrain.commands import words

    command = words.parse(arguments, Options, USAGE, "evaluating", READ)
    _check(command.names, command.options, command.overrides)
    return command


def _check(runs: list[str], options: Options, overrides: list[str]) -> None:
    from deeptrain.errors import UsageError

    if len(runs) > 1 and options.split == "test":
        reason = "a comparison chooses, and what is chosen on test is no longer measured by it"
        raise UsageError([f"split=test: {reason}; write split=val, then evaluate the chosen run on test"])
    if len(runs) > 1 and options.csv:
        raise UsageError(["csv: holds the answers of one run; name one run"])
    if options.tta == "all" and options.split != "val":
        raise UsageError(["tta=all: chooses, which is for val; write split=val, then test the one that you take"])
    if len(runs) > 1 and options.tta:
        raise UsageError(["tta: averages the answers of one run; name one run"])
    if options.split == "all" and not any(word.startswith("data.root=") for word in overrides):
        raise UsageError(["split=all: add data.root=DIR, a folder of pictures that the run has not seen"])


def _open(run: str, split: "Split", overrides: list[str]) -> "tuple[Path, Path, Answers]":
    """Return a run's folder, its checkpoint and what its network says of a split."""
    from deeptrain.config.compose import compose_run
    from deeptrain.run import defaults, dry_run, folder

    at, state = folder.find(run, "run", best=True)
    config = compose_run([*defaults.load_overrides(at, overrides), *overrides])
    if split == "test":
        dry_run.check_test_split(config)

    from deeptrain.inference.evaluate import answer

    return at, state, answer(config, state, split, overrides)


def _evaluate_one(command: "Words") -> int:
    with csv_file(command.options.csv) as table:  # a file that cannot be written comes first
        _evaluate_into(table, command)
    return 0


def _evaluate_into(table: TextIO | None, command: "Words") -> None:
    split = command.options.split or "test"
    at, state, answers = _open(command.names[0], split, command.overrides)
    if command.options.tta:
        answers = _averaged(command, answers)

    from deeptrain.inference import evaluate as room
    from deeptrain.inference import mistakes, scores
    from deeptrain.run.saved import times_opened

    evaluation = room.evaluate_answers(answers)
    loss, opened = answers.opened.network.loss, answers.opened
    invalid = scores.check_finite(answers.logits, opened.names)
    calibration = None if invalid else _calibration(at, answers, command.options.averaging)
    if not invalid:
        evaluation.scores = scores.measure(answers.logits, answers.labels, loss, calibration)
    found = mistakes.find(
        answers.logits, answers.labels, opened.names, evaluation.classes, loss, calibration and calibration.temperature
    )
    shown = room.lines(evaluation, times_opened(at, split) + 1)
    terminal.show(*shown, "", *(invalid or mistakes.lines(found, evaluation.confusion)), "")
    if table is not None:
        table.writelines(f"{as_csv(row)}\n" for row in mistakes.table(found))
    _write(at, state, command, evaluation, found, answers)


def _averaged(command: "Words", single: "Answers") -> "Answers":
    """Return the answers of one averaging; on val show what it gains and costs. tta=all leaves the single views."""
    from deeptrain.inference import averaging

    options, opened = command.options, single.opened
    assert options.tta is not None
    if opened.split == "val":
        names = averaging.names_of(options.tta)
        rows, answers = averaging.compare(opened, opened.run, names, options.tta_draws, single)
        terminal.show(*rows, "")
        return single if options.tta == "all" else answers
    views = averaging.make_views(options.tta, opened.run, options.tta_draws, opened.dataset)
    terminal.report(*averaging.warnings(opened, views))
    return averaging.average_split(opened, views).answers


def _calibration(at: Path, answers: "Answers", tta: str | None) -> "Calibration | None":
    """Return the temperature of these answers: on val it is fitted anew and kept, elsewhere the one that was fitted."""
    from deeptrain.inference.scores import calibrate
    from deeptrain.run import calibration

    opened = answers.opened
    trained_on = opened.run.settings.overfit or getattr(opened.source, "val_is_train", False)
    if opened.split != "val":
        found = calibration.load(at, opened.weights, tta)
        if found is None:
            terminal.report("no temperature is known for these probabilities: split=val fits one")
        return found
    try:
        if trained_on:
            raise ValueError("the network has learned these very images")
        fitted = calibrate(answers.logits, answers.labels, opened.network.loss, opened.weights)
    except ValueError as error:
        terminal.report(f"no temperature is fitted: {error}")
        return None
    with suppress(OSError):  # a folder that others may only read
        calibration.save(at, fitted, tta)
    return fitted


def _write(at: Path, state: Path, command: "Words", evaluation: Any, found: "Mistakes", answers: "Answers") -> None:
    """Write the note of the evaluation and the pictures; warn where the folder takes none."""
    from deeptrain.inference import evaluate as room
    from deeptrain.inference import mistakes
    from deeptrain.report.figures import draw_confusion, draw_reliability

    split = evaluation.split
    confusion, reliability, worst = (at / f"{name}-{split}.png" for name in ("confusion", "reliability", "mistakes"))
    try:
        changed = [*command.overrides, *([f"tta={tta}"] if (tta := command.options.averaging) else [])]
        room.append(at, evaluation, state.name, changed)
        draw_confusion(evaluation.confusion, evaluation.classes, confusion)
        terminal.show(f"confusion    {confusion}")
        if evaluation.scores and evaluation.scores.by_temperature:
            draw_reliability(_reliability(answers, evaluation.scores), reliability)
            terminal.show(f"reliability  {reliability}")
        if not answers.logits.isnan().any() and mistakes.draw(found, answers.opened.samples, worst):
            terminal.show(f"mistakes     {worst}")
    except OSError as error:  # a read-only folder, a full disk
        terminal.report(f"warning: the result could not be kept in {at} ({error.strerror})")


def _reliability(answers: "Answers", measured: Any) -> dict[str, Any]:
    """Return the bins of each column of the table of probabilities, by its title."""
    from deeptrain.inference.scores import title
    from deeptrain.metrics.calibration import reliability
    from deeptrain.metrics.probabilities import class_probabilities, ranked_first

    found = {}
    for temperature, table in measured.by_temperature.items():
        predicted, confidence = ranked_first(
            answers.logits, class_probabilities(answers.logits, measured.loss, temperature)
        )
        right = (predicted == answers.labels).double().numpy()
        found[f"{title(temperature)}: ECE {100 * table['ece'].value:.2f}%"] = reliability(confidence.numpy(), right)
    return found


def _compare(command: "Words") -> int:
    """Compare runs with the first one, image by image."""
    split = command.options.split or "val"
    opened = []
    for run in command.names:
        at, _, answers = _open(run, split, command.overrides)
        opened.append((at, answers))

    from deeptrain.inference.paired import compare

    terminal.show(*compare([(str(at), answers) for at, answers in opened]))
    return 0
