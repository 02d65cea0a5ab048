"""What a setting may be: annotated types, checked on every call.

A signature is the only schema of a part. `validate_call` enforces it when the part is called. Before that,
config/signatures.py reads the same annotations from the source text, without importing torch.
"""

import dataclasses
import functools
import inspect
import math
import operator
import types
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """Bounds of a number; `above` and `below` exclude the bound, `minimum` and `maximum` include it."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        bounds = ((">=", self.minimum), (">", self.above), ("<=", self.maximum), ("<", self.below))
        return " and ".join(f"{sign} {_exact(bound)}" for sign, bound in bounds if bound is not None)


def _exact(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(minimum=0)]
UnitFloat = Annotated[float, Range(minimum=0, maximum=1)]
DropRate = Annotated[float, Range(minimum=0, below=1)]  # of dropping: 1 would drop everything
PositiveInt = Annotated[int, Range(minimum=1)]
NonNegativeInt = Annotated[int, Range(minimum=0)]
Threads = Annotated[int, Range(minimum=1, maximum=1024)]
Workers = Annotated[int, Range(minimum=0, maximum=1024)]
Seed = Annotated[int, Range(minimum=0, maximum=2**63 - 1)]
EpochsOrFraction = NonNegativeInt | DropRate  # a whole number is epochs, one with a decimal point a part of the run

OLD_NAMES = {  # of 0.3.0, which users' own components import; they work until 0.5
    "Count": "PositiveInt",
    "Natural": "NonNegativeInt",
    "Positive": "PositiveFloat",
    "NonNegative": "NonNegativeFloat",
    "Fraction": "UnitFloat",
    "Rate": "DropRate",
    "Span": "EpochsOrFraction",
    "checked": "validate_call",
}


def __getattr__(name: str) -> Any:
    if name not in OLD_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"deeptrain.schema.{name} is now {OLD_NAMES[name]}", DeprecationWarning, stacklevel=2)
    return globals()[OLD_NAMES[name]]


SYNONYMS = {  # what others call some of our options
    "gpu": "cuda",
    "0": "cuda:0",
    "1": "cuda:1",
    "16": "fp16",
    "32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "bfloat16": "bf16",
    "mlp": "fcn",
    "wrn": "wide_resnet",
    "ce": "cross_entropy",
    "nll": "cross_entropy",
    "svm": "hinge",
    "none": "constant",
    "multistep": "step",
    "erasing": "random_erasing",
    "autoaugment": "randaugment",
    "polyak": "swa",
    "f1": "macro_f1",
    "false": "off",
    "calibration": "ece",
}

P = ParamSpec("P")
T = TypeVar("T")


def validate_call(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a constructor or factory: raise ValueError "name=value: what is allowed" on an argument out of its type.

    Annotations that are no setting (a tensor, a module) are not checked.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        hints = get_type_hints(function, include_extras=True)
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in hints and (error := type_error(value, hints[name])):
                raise ValueError(f"{name}={value}: {error}")
        return function(*args, **kwargs)

    return call


def validate_fields(instance: Any) -> None:
    """Raise ValueError "name=value: what is allowed" on a field of a dataclass's instance out of its type."""
    hints = get_type_hints(type(instance), include_extras=True)
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if error := given_error(value, hints[field.name]):
            raise ValueError(f"{field.name}={value}: {error}")


def given_error(value: Any, annotation: Any) -> str | None:
    """Say what is allowed if value does not fit the annotation, without null, which only a file of settings needs."""
    kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
    is_optional = get_origin(annotation) in (Union, types.UnionType) and len(kinds) < len(get_args(annotation))
    return type_error(value, functools.reduce(operator.or_, kinds) if is_optional and value is not None else annotation)


def type_error(value: Any, annotation: Any) -> str | None:
    """Say what is allowed if value does not fit the annotation, else None."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return None if value is None else "must be null"
    if origin is Annotated:
        error = type_error(value, arguments[0])
        limits = [limit for limit in arguments[1:] if isinstance(limit, Range) and (error or value not in limit)]
        return f"{error} {limits[0]}" if error and limits else error or (f"must be {limits[0]}" if limits else None)
    if origin in (Union, types.UnionType):
        errors = [type_error(value, option) for option in arguments]
        return None if None in errors else _either(value, arguments, errors)
    if origin is Literal:
        fits = any(value == option and type(value) is type(option) for option in arguments)
        return None if fits else suggest(value, arguments)
    if annotation is list or origin is list:
        if not isinstance(value, list | tuple):
            return "must be a list, written [a,b]"
        error = next((error for item in value if arguments and (error := type_error(item, arguments[0]))), None)
        return error and f"every item {error}"
    if origin is dict:
        if not isinstance(value, dict):
            return "must be a value by name, written {name:value}"
        errors = [error for item in value.values() if (error := type_error(item, arguments[1]))]
        return f"every value {errors[0]}" if errors else None
    return _scalar_problem(value, annotation)


def _scalar_problem(value: Any, annotation: Any) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is bool:
        return None if isinstance(value, bool) else "must be true or false"
    if annotation is int:
        return None if number and isinstance(value, int) else "must be a whole number"
    if annotation is float:
        return None if number and math.isfinite(value) else "must be a number"
    if annotation is str:
        return None if isinstance(value, str) else "must be text"
    if annotation is dict:
        return None if isinstance(value, dict) else "must be settings, written {name:value}"
    return None


def _either(value: Any, options: tuple, errors: list[str | None]) -> str:
    """Word the refusal of a union: the closest alternative's if there is one, else all of them."""
    if isinstance(value, str):  # a misspelt choice: its list of choices says most
        choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
        if choices and not any(option is str for option in options):
            others = [str(w) for o, w in zip(options, errors, strict=True) if get_origin(o) is not Literal]
            return _join([suggest(value, choices), *others])
    if isinstance(value, list | tuple):  # what is wrong in a list, rather than that it might be something else
        lists = [w for o, w in zip(options, errors, strict=True) if o is list or get_origin(o) is list]
        return _join(lists or errors)
    if isinstance(value, dict):
        return _join([w for o, w in zip(options, errors, strict=True) if o is dict or get_origin(o) is dict] or errors)
    return _join(errors)


def _join(errors: Iterable[str | None]) -> str:
    first, *rest = dict.fromkeys(map(str, errors))
    return " or ".join([first, *(error.removeprefix("must be ") for error in rest)])


def suggest(value: Any, options: Iterable[Any]) -> str:
    """Word the refusal of a value that is none of the options, with the nearest of them first."""
    options = list(map(str, options))
    synonym = SYNONYMS.get(str(value).lower())
    match = synonym if synonym in options else closest(str(value), options)
    return (f"did you mean {match}? " if match else "") + "choose from " + ", ".join(options)


def closest(word: str, options: Iterable[str]) -> str | None:
    """Return the option that a typist most likely meant by word, or None when nothing is near."""

    def score(option: str) -> float:
        a, b = word.lower(), option.lower()
        same = SequenceMatcher(None, a, b, autojunk=False).ratio()
        swapped = sorted(a) == sorted(b)  # two letters changed places: the commonest slip
        return same + (0.3 if swapped else 0) + (0.05 if a[:1] == b[:1] else 0)

    best = max(options, key=score, default=None)
    return best if best is not None and score(best) >= 0.6 else None


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Map nested names, joined by dots, to their values. An empty mapping is a value."""
    flat: dict[str, Any] = {}
    for name, value in node.items():
        is_node = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{name}.") if is_node else {f"{prefix}{name}": value}
    return flat


def format_value(value: Any) -> str:
    """Write a value as on a command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{format_value(name)}:{format_value(item)}" for name, item in value.items()) + "}"
    return "[" + ",".join(map(format_value, value)) + "]" if isinstance(value, list | tuple) else str(value)
