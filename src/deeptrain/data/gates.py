"""The truth tables of logic gates as a data set: what a perceptron can learn (AND, OR, NOT) and cannot (XOR)."""

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from deeptrain.data.array_source import ArraySource, Split
from deeptrain.data.dataset import unused_settings
from deeptrain.schema import PositiveInt, validate_call

Gate = Literal["and", "or", "not", "xor"]

OUTPUTS = {"and": [0, 0, 0, 1], "or": [0, 1, 1, 1], "not": [1, 0], "xor": [0, 1, 1, 0]}  # inputs count up in binary


@validate_call
@dataclass
class Gates(ArraySource):
    """Images (1, 1, 2) of 0 and 255, the inputs of a gate ((1, 1, 1) for NOT); the class is its output.

    Train is the truth table, `repeats` times. Validation and test are the same table on purpose: there is nothing else.
    """

    gate: Gate = "xor"
    repeats: PositiveInt = 16

    name = "gates"
    val_is_train = True

    def class_names(self) -> list[str]:
        return ["0", "1"]

    def split_sizes(self) -> dict[Split, int | None]:
        rows = len(OUTPUTS[self.gate])
        return {"train": rows * self.repeats, "val": rows, "test": rows}

    def read_split(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        labels = np.array(OUTPUTS[self.gate], np.int64)
        inputs = np.array(list(product((0, 255), repeat=len(labels) // 2)), np.uint8)  # (2, 1) or (4, 2)
        repeats = self.repeats if split == "train" else 1
        return np.tile(inputs[:, None, :, None], (repeats, 1, 1, 1)), np.tile(labels, repeats)

    def notes(self) -> list[str]:
        reason = "the truth table is made on the spot"
        return ["val and test are the truth table that is trained on", *unused_settings(self, reason)]
