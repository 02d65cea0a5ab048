"""Take several runs as one network: python scripts/ensemble.py outputs/DATE/RUN outputs/DATE/RUN"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deeptrain.commands.cli import answer
from deeptrain.runtime import terminal
from deeptrain.runtime.garbage import RARELY, collect_every
from deeptrain.schema import PositiveInt

if TYPE_CHECKING:
    from deeptrain.commands.words import Words
    from deeptrain.inference.ensemble import Member
    from deeptrain.inference.evaluate import Answers, Split

USAGE = """\
python scripts/ensemble.py RUN RUN ... [key=value ...]

Averages the probabilities of several runs, of any models and input sizes, on the images that they have held out. Shows
each member, the ensemble before and after calibration, the paired gain over the best member, and who disagrees.

  choose=greedy          takes the best run, then each that lowers the NLL on val
  top=5                  of a sweep's folder: the five runs with the best values on val
  snapshots=5            the five snapshots of each run (checkpoint.snapshots=5 schedule=cyclic) in place of its best
  split=test             opens test with the runs that are named; the temperature still comes from val
  average=weights        one network with the mean of the weights, of runs with a common start; into=DIR gets it
  into=DIR               the new folder for average=weights, which predict, evaluate and export take as a run

Settings of the machine and of the data, such as device=cpu or data.root=DIR, replace those of the runs.
"""

READ = ("--config-dir", "allow_targets", "cache_dir", "data", "device", "model.test_samples", "precision", "workers")


@dataclass
class Options:
    """What is asked."""

    choose: Literal["all", "greedy"] = "all"
    average: Literal["probabilities", "weights"] = "probabilities"
    split: Literal["val", "test"] = "val"
    top: PositiveInt | None = None
    snapshots: PositiveInt | None = None
    into: str | None = None


@collect_every(RARELY)
def ensemble(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _ensemble)


def parse(arguments: Sequence[str]) -> "Words[Options]":
    """Take a command line apart; UsageError if a word is none of ours. Names the members."""
    from deeptrain.commands import words

    command = words.parse(arguments, Options, USAGE, "an ensemble", READ, "runs")
    _check(command.names, command.options)
    return replace(command, names=_members(command.names, command.options))


def _check(runs: list[str], options: Options) -> None:
    from deeptrain.errors import UsageError

    if options.split == "test" and (options.choose == "greedy" or options.top):
        raise UsageError(["split=test: opens test for runs that are chosen; choose on val first, then name them"])
    if options.snapshots and (options.top or options.snapshots * len(runs) < 2):
        raise UsageError(["snapshots: takes two or more of the runs that are named, without top"])
    if options.average == "weights" and options.into is None:
        raise UsageError(["average=weights: makes one network; name a new folder for it, into=DIR"])
    if options.average == "weights" and options.split == "test":
        raise UsageError(["average=weights: is made on val; evaluate its folder on test then"])
    if options.average == "probabilities" and options.into is not None:
        raise UsageError(["into: gets the network of average=weights; leave it out"])


def _snapshots(runs: list[str], count: int) -> list[str]:
    """Return the last snapshots of each run, by their numbers."""
    from deeptrain.errors import UsageError
    from deeptrain.run import folder

    found = []
    for name in runs:
        kept = folder.resolve(name, "run")[0].glob("checkpoints/snapshot-*.pt")
        numbered = {int(path.stem.partition("-")[2]): path for path in kept if path.stem.partition("-")[2].isdigit()}
        if len(numbered) < count:
            remedy = f"train with checkpoint.snapshots={count} schedule=cyclic"
            raise UsageError([f"snapshots={count}: {name} has {len(numbered)}; {remedy}"])
        found += [str(numbered[number]) for number in sorted(numbered)[-count:]]
    return found


def _members(runs: list[str], options: Options) -> list[str]:
    """Return the checkpoints and runs that are meant: with top=, the best ones among all that are in the folders."""
    top = options.top
    if options.snapshots:
        return _snapshots(runs, options.snapshots)
    from deeptrain.compare.collect import collect
    from deeptrain.errors import UsageError
    from deeptrain.run import folder

    if top is None:
        if len(set(runs)) < max(2, len(runs)):
            raise UsageError([f"{runs[0]}: name two or more different runs; of a sweep's folder take top=5"])
        return runs
    found = collect([folder.read_named("run", name) for name in runs])
    done = [run for run in found if isinstance(run.result.get("best"), float) and _has_weights(run.path)]
    if len(done) < 2:
        raise UsageError([f"top={top}: {', '.join(runs)} holds {len(done)} finished runs with weights; two are needed"])
    monitors = {run.result.get("monitor") for run in done}
    if len(monitors) > 1:
        raise UsageError([f"top={top}: the runs have different values of monitor ({', '.join(map(str, monitors))})"])
    sign = -1 if done[0].result.get("higher_is_better", True) else 1
    return [str(run.path) for run in sorted(done, key=lambda run: sign * run.result["best"])[:top]]


def _has_weights(path: Path) -> bool:
    return (path / "checkpoints" / "best.pt").is_file()


def _ensemble(arguments: list[str]) -> int:
    command = parse(arguments)
    from deeptrain.run import folder

    for name in command.names:
        folder.find(name, "run", best=True)  # a mistake is told before torch is imported
    if command.options.average == "weights":
        return _soup(command)
    from deeptrain.inference import ensemble as room

    val, labels = _members_on("val", command)
    chosen = room.choose(val, labels) if command.options.choose == "greedy" else val
    temperature = room.temperature(room.mean(chosen), labels)
    if temperature is None:
        terminal.report("no temperature is fitted: too few images of val, or nearly all are right")
    if command.options.split == "val":
        terminal.show(*room.lines("val", val, chosen, labels, temperature))
        return 0
    known = {member.name: member.temperature for member in val}
    test, labels = _members_on("test", command, known)
    terminal.show(*room.lines("test", test, test, labels, temperature))
    return 0


def _soup(command: "Words") -> int:
    """Average the weights of runs with a common start into a new folder."""
    from deeptrain.config.compose import compose_run
    from deeptrain.errors import UsageError
    from deeptrain.inference import soup
    from deeptrain.inference.evaluate import open_split
    from deeptrain.report import formatting
    from deeptrain.run import defaults, folder

    assert command.options.into is not None
    into = folder.read_named("into", command.options.into)
    if into.exists():
        raise UsageError([f"into={command.options.into}: is there already; name a new folder"])
    found = [folder.find(name, "run", best=True) for name in command.names]
    ingredients = soup.read(command.names, [path for _, path in found])
    at, state = found[0]
    run = compose_run([*defaults.load_overrides(at, command.overrides), *command.overrides])
    opened = open_split(run, state, "val", command.overrides)
    chosen, loss = soup.cook(ingredients, opened, command.options.choose == "greedy")
    try:
        soup.save(into, opened, chosen)
    except OSError as error:
        raise UsageError([f"into={command.options.into}: cannot be written ({error.strerror})"]) from error
    width = max(len("mean of the weights"), *(len(one.name) for one in ingredients))
    terminal.show(
        f"val, {len(opened.samples):,} images",
        f"{'':<{width + 2}}     NLL",
        *(
            f"{one.name:<{width}} {'+' if one in chosen else ' '}  {formatting.format_loss(one.nll)}"
            for one in ingredients
        ),
        f"{'mean of the weights':<{width}}    {formatting.format_loss(loss)}  ({len(chosen)} networks)",
        f"folder  {into}",
    )
    return 0


def _members_on(
    split: "Split", command: "Words", temperatures: dict[str, float] | None = None
) -> "tuple[list[Member], Any]":
    """Ask all members about a split, and note in the folder of each that it was opened."""
    from deeptrain.inference import ensemble as room

    labels: list[Any] = []

    def ask(name: str) -> "Answers":
        answers = _ask(name, split, command)
        labels.append(answers.labels)
        return answers

    return room.open_members(command.names, ask, temperatures), labels[0]


def _ask(name: str, split: "Split", command: "Words") -> "Answers":
    from contextlib import suppress

    from deeptrain.config.compose import compose_run
    from deeptrain.inference import evaluate as room
    from deeptrain.run import defaults, folder

    at, state = folder.find(name, "run", best=True)
    run = compose_run([*defaults.load_overrides(at, command.overrides), *command.overrides])
    answers = room.answer(run, state, split, command.overrides)
    with suppress(OSError):  # a folder that others may only read
        words = [*command.overrides, f"ensemble of {len(command.names)}"]
        room.append(at, room.evaluate_answers(answers), state.name, words)
    return answers
