"""Evaluate a run's best weights on the test split: python scripts/evaluate.py outputs/DATE/RUN"""

from deeptrain.commands.cli import guarded, in_this_installation, show, split_flags
from deeptrain.runtime import terminal

USAGE = """\
python scripts/evaluate.py RUN [split=test|val|all] [key=value ...]

RUN is a run's folder (then its best weights are taken) or one of its checkpoints. Shows accuracy, top-5, a table of
the classes; writes confusion-<split>.png and appends to evaluation.json. Settings of the data and the machine, such as
data.root=DIR or device=cpu, replace those that the run was trained with.

split=val takes the images that the run has held out. split=all takes every picture in the class folders of
data.root=DIR, which the run must not have seen.
"""

SPLITS = ("test", "val", "all")
READ = ("--config-dir", "allow_targets", "cache_dir", "data", "device", "model.test_samples", "precision", "workers")


def evaluate(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    if {"-h", "--help"} & set(arguments) or not arguments:
        return show(in_this_installation(USAGE))
    return guarded(lambda: _evaluate(arguments), debug="--debug" in arguments)


def _evaluate(arguments: list[str]) -> int:
    from deeptrain.config.compose import compose_run
    from deeptrain.errors import UsageError
    from deeptrain.run import defaults, folder
    from deeptrain.run.saved import check_read
    from deeptrain.schema import suggest

    flags, words = split_flags(arguments)
    if "multirun" in flags:
        raise UsageError(["-m: one run is evaluated at a time"])
    if "cfg" in flags:
        raise UsageError(["--cfg: the configuration of a run is in its config.yaml; leave it out"])
    if not words or words[0].startswith(("split=", "-")):
        raise UsageError([f"name the run first: {in_this_installation(USAGE).splitlines()[0]}"])
    where, *words = words[0].removeprefix("run="), *words[1:]
    split = next((word.removeprefix("split=") for word in words if word.startswith("split=")), "test")
    if split not in SPLITS:
        raise UsageError([f"split={split}: {suggest(split, SPLITS)}"])
    if split == "all" and not any(word.startswith("data.root=") for word in words):
        raise UsageError(["split=all: add data.root=DIR, a folder of pictures that the run has not seen"])
    at, state = folder.find(where, "run", best=True)
    changed = [word for word in words if not word.startswith("split=")]
    run = compose_run([*defaults.load_overrides(at, changed), *changed])
    check_read(changed, "evaluating", READ)

    from deeptrain.inference import evaluate as room
    from deeptrain.report.figures import draw_confusion

    evaluation = room.evaluate_run(run, state, split, changed)
    terminal.show(*room.lines(evaluation, room.times_opened(at, split) + 1), "")
    picture = at / f"confusion-{split}.png"
    try:
        room.append(at, evaluation, state.name, changed)
        draw_confusion(evaluation.confusion.numpy(), evaluation.classes, picture)
        terminal.show(f"confusion  {picture}")
    except OSError as error:  # a read-only folder, a full disk
        terminal.report(f"warning: the result could not be kept in {at} ({error.strerror})")
    return 0
