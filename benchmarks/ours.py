"""Our trainer as a newcomer gets it from the command line, made ready to be clocked again and again."""

import copy
import io
from collections.abc import Callable
from pathlib import Path

from deeptrain import build
from deeptrain.config.compose import compose_run
from deeptrain.loggers.console import Console
from deeptrain.loggers.metrics_csv import MetricsTable
from deeptrain.loggers.run_logger import RunLogger, table_columns
from deeptrain.loggers.steps_csv import StepsTable
from deeptrain.loggers.tensorboard import TensorBoard
from deeptrain.training.checkpoint import Checkpoints
from deeptrain.training.trainer import Trainer

NEVER = 10**6


class Terminal(io.StringIO):
    """A terminal that nobody watches: the live line is drawn, and goes nowhere."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def build_trainer(words: list[str], folder: Path | None = None) -> Trainer:
    """Build what `python train.py WORDS` would; in a folder it keeps TensorBoard's points, metrics.csv and checkpoints.

    It validates at its end only, as `repeatable` needs it, and its live line is drawn as on a terminal.
    """
    setup = build.open_setup(compose_run([*words, f"epochs={NEVER}", f"validate.every_epochs={NEVER}"]))
    trainer = build.trainer(setup)
    loggers = []
    if folder is not None:
        steps = [name for name in trainer.metric_names() if name.endswith("/train")]
        (folder / "checkpoints").mkdir(parents=True)
        trainer.checkpoints = Checkpoints(folder / "checkpoints")
        table = MetricsTable(folder / "metrics.csv", table_columns(trainer.metric_names()))
        columns = [*steps, "rate/lr", *trainer.vitals.tags]
        loggers = [table, StepsTable(folder / "steps.csv", columns, len(trainer.train_loader)), TensorBoard(folder)]
    trainer.logger = RunLogger(Console(Terminal()), loggers)
    return trainer


def repeatable(trainer: Trainer) -> Callable[[int], Callable[[], object]]:
    """Return a way to run a trainer for so many steps, from the same start each time."""
    start = copy.deepcopy(trainer.state_dict())

    def prepare(steps: int) -> Callable[[], object]:
        trainer.load_state_dict(copy.deepcopy(start))
        trainer.plan.limit_steps = trainer.plan.total_steps = steps
        return trainer.fit  # ends with a validation, which waits for the device

    return prepare
