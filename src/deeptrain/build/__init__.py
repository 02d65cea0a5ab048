"""From configuration to objects: a node to its part, all parts to a Trainer. A failure names the key to change."""

from deeptrain.build.assembly import build_trainer, trainer
from deeptrain.build.data import data_info, load_data
from deeptrain.build.inputs import augmentation
from deeptrain.build.loaders import EVAL_BATCH, eval_loader, train_loader
from deeptrain.build.measures import loggers, metrics
from deeptrain.build.network import loss, model
from deeptrain.build.optimizers import rates_of
from deeptrain.build.setup import Setup, open_setup

__all__ = [
    "EVAL_BATCH",
    "Setup",
    "augmentation",
    "build_trainer",
    "data_info",
    "eval_loader",
    "load_data",
    "loggers",
    "loss",
    "metrics",
    "model",
    "open_setup",
    "rates_of",
    "train_loader",
    "trainer",
]
