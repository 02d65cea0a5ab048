"""What a diagnosis has measured, kept in a file: one that was stopped goes on with the same numbers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from deeptrain.runtime.files import write_atomically

FILE = "measurements.json"
T = TypeVar("T")


class Ledger:
    """Measures each thing once. types: the dataclasses that measurements may be; path: None keeps nothing.

    facts: what the measurements belong to, for who opens the file again.
    """

    def __init__(self, path: Path | None = None, types: tuple[type, ...] = (), facts: Mapping[str, Any] | None = None):
        self.path, self.facts = path, dict(facts or {})
        self.found: dict[str, Any] = {}
        self._types = {kind.__name__: kind for kind in types}

    @classmethod
    def read(cls, path: Path, content: Mapping[str, Any], types: tuple[type, ...]) -> "Ledger":
        """Go on with the content of a file. Raises ValueError if it is none of ours."""
        try:
            ledger = cls(path, types, content["facts"])
            ledger.found = dict(content["found"])
            for value in ledger.found.values():
                ledger._decode(value)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError("is damaged, or no file of a diagnosis") from error
        return ledger

    def once(self, name: str, measure: Callable[[], T]) -> T:
        """Return what is known by this name, else measure it and keep it."""
        if name not in self.found:
            self.found[name] = self._encode(measure())
            self._write()
        return self._decode(self.found[name])

    def _write(self) -> None:
        if self.path is not None:
            content = json.dumps({"facts": self.facts, "found": self.found})
            write_atomically(self.path, content.encode())

    def _encode(self, value: Any) -> Any:
        """Return a value as JSON has it. Numbers keep their bits; inf and NaN are written as Python does."""
        if is_dataclass(value) and not isinstance(value, type):
            content = {field.name: self._encode(getattr(value, field.name)) for field in fields(value)}
            return {"is": type(value).__name__, **content}
        if isinstance(value, np.ndarray):
            return {"is": "array", "values": value.astype(float).tolist()}
        if isinstance(value, tuple):
            return {"is": "tuple", "values": [self._encode(item) for item in value]}
        if isinstance(value, Mapping):
            return {"is": "dict", "values": [[self._encode(key), self._encode(item)] for key, item in value.items()]}
        return [self._encode(item) for item in value] if isinstance(value, list) else value

    def _decode(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        content = {key: self._decode(item) for key, item in value.items() if key not in ("is", "values")}
        kind, values = value["is"], value.get("values", [])
        if kind == "array":
            return np.array(values, float)
        if kind == "tuple":
            return tuple(self._decode(item) for item in values)
        if kind == "dict":
            return {self._decode(key): self._decode(item) for key, item in values}
        return self._types[kind](**content)
