"""Optimizers, and the groups of parameters that they update."""

from deeptrain.optimizer.groups import (
    batch_factor,
    closure,
    multiply_rates,
    needs_closure,
    parameter_groups,
    scale_rates,
    set_learning_rate,
    start_momenta,
    unreached_optimizers,
    weights_of,
    zero_grad,
)
from deeptrain.optimizer.layerwise import lamb, lars
from deeptrain.optimizer.muon import muon
from deeptrain.optimizer.torch_optimizers import adagrad, adam, adamw, rmsprop, sgd

__all__ = [
    "adagrad",
    "adam",
    "adamw",
    "batch_factor",
    "closure",
    "lamb",
    "lars",
    "multiply_rates",
    "muon",
    "needs_closure",
    "parameter_groups",
    "rmsprop",
    "scale_rates",
    "set_learning_rate",
    "sgd",
    "start_momenta",
    "unreached_optimizers",
    "weights_of",
    "zero_grad",
]
