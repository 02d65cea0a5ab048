"""What a setting may be: annotated types, checked on every call and readable from source without importing torch.

A signature is the only schema of a part. `checked` enforces it when the part is called; `read_signature` finds the same
annotations in the source text, so that a wrong setting is refused before a library of seconds is imported.
"""

import ast
import functools
import inspect
import math
import types
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from importlib.machinery import PathFinder
from pathlib import Path
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
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


PositiveFloat = Annotated[float, Range(above=0)]
NonNegativeFloat = Annotated[float, Range(minimum=0)]
UnitFloat = Annotated[float, Range(minimum=0, maximum=1)]
DropRate = Annotated[float, Range(minimum=0, below=1)]  # of dropping: 1 would drop everything
PositiveInt = Annotated[int, Range(minimum=1)]
NonNegativeInt = Annotated[int, Range(minimum=0)]
EpochsOrFraction = NonNegativeInt | DropRate  # a whole number is epochs, one with a decimal point a part of the run

NAMES = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "Any": Any,
    "Range": Range,
}
NAMES |= {name: value for name, value in globals().items() if get_origin(value) in (Annotated, types.UnionType, Union)}

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
NAMES |= {old: NAMES[new] for old, new in OLD_NAMES.items() if new in NAMES}


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
            if name in hints and (wrong := problem(value, hints[name])):
                raise ValueError(f"{name}={value}: {wrong}")
        return function(*args, **kwargs)

    return call


def problem(value: Any, annotation: Any) -> str | None:
    """Say what is allowed if value does not fit the annotation, else None."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return None if value is None else "must be null"
    if origin is Annotated:
        wrong = problem(value, arguments[0])
        limits = [limit for limit in arguments[1:] if isinstance(limit, Range) and (wrong or value not in limit)]
        return f"{wrong} {limits[0]}" if wrong and limits else wrong or (f"must be {limits[0]}" if limits else None)
    if origin in (Union, types.UnionType):
        wrongs = [problem(value, option) for option in arguments]
        return None if None in wrongs else _either(value, arguments, wrongs)
    if origin is Literal:
        fits = any(value == option and type(value) is type(option) for option in arguments)
        return None if fits else choose(value, arguments)
    if annotation is list or origin is list:
        if not isinstance(value, list | tuple):
            return "must be a list, written [a,b]"
        wrong = next((wrong for item in value if arguments and (wrong := problem(item, arguments[0]))), None)
        return wrong and f"every item {wrong}"
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


def _either(value: Any, options: tuple, wrongs: list[str | None]) -> str:
    """Word the refusal of a union: the closest alternative's if there is one, else all of them."""
    if isinstance(value, str):  # a misspelt choice: its list of choices says most
        choices = [choice for option in options if get_origin(option) is Literal for choice in get_args(option)]
        if choices and not any(option is str for option in options):
            others = [str(w) for o, w in zip(options, wrongs, strict=True) if get_origin(o) is not Literal]
            return _join([choose(value, choices), *others])
    if isinstance(value, list | tuple):  # what is wrong in a list, rather than that it might be something else
        lists = [w for o, w in zip(options, wrongs, strict=True) if o is list or get_origin(o) is list]
        return _join(lists or wrongs)
    return _join(wrongs)


def _join(wrongs: Iterable[str | None]) -> str:
    first, *rest = dict.fromkeys(map(str, wrongs))
    return " or ".join([first, *(wrong.removeprefix("must be ") for wrong in rest)])


def choose(value: Any, options: Iterable[Any]) -> str:
    """Word the refusal of a value that is none of the options, with the nearest of them first."""
    options = list(map(str, options))
    synonym = SYNONYMS.get(str(value).lower())
    match = synonym if synonym in options else nearest(str(value), options)
    return (f"did you mean {match}? " if match else "") + "choose from " + ", ".join(options)


def nearest(word: str, options: Iterable[str]) -> str | None:
    """Return the option that a typist most likely meant by word, or None when nothing is near."""

    def score(option: str) -> float:
        a, b = word.lower(), option.lower()
        same = SequenceMatcher(None, a, b, autojunk=False).ratio()
        swapped = sorted(a) == sorted(b)  # two letters changed places: the commonest slip
        return same + (0.3 if swapped else 0) + (0.05 if a[:1] == b[:1] else 0)

    best = max(options, key=score, default=None)
    return best if best is not None and score(best) >= 0.6 else None


@dataclass(frozen=True)
class Parameter:
    """One argument of a part: its annotation (Any where it is no setting) and whether it has a default."""

    annotation: Any
    required: bool


def read_signature(target: str) -> dict[str, Parameter] | None:
    """Read the parameters of a dotted class or function from its source, importing nothing.

    A class without a constructor of its own has that of its base class, or is a dataclass: its fields and its bases'.
    None when the source does not define it there (a compiled or re-exported name): then only building it can tell.
    """
    module, _, name = target.rpartition(".")
    tree = _parse(module)
    node = _definitions(tree).get(name) if tree else None
    if isinstance(node, ast.ClassDef):
        constructor = _definitions(node).get("__init__")
        if constructor is None:
            return _read_fields(node, module)
        node = constructor
    return _read_parameters(node, module) if isinstance(node, ast.FunctionDef) else None


def _read_parameters(node: ast.FunctionDef, module: str) -> dict[str, Parameter]:
    positional = [argument for argument in node.args.posonlyargs + node.args.args if argument.arg != "self"]
    defaults: list = [None] * (len(positional) - len(node.args.defaults)) + list(node.args.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    return {argument.arg: Parameter(_annotation(argument.annotation, module), not value) for argument, value in pairs}


def _read_fields(node: ast.ClassDef, module: str) -> dict[str, Parameter] | None:
    """Read the parameters of the bases, then the own fields of a dataclass; None if a base cannot be read."""
    fields: dict[str, Parameter] = {}
    for base in reversed(node.bases):
        target = _locate(base.id, module) if isinstance(base, ast.Name) else None
        inherited = read_signature(target) if target else None
        if inherited is None:
            return None
        fields |= inherited
    own = node.body if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list) else []
    for field in own:
        match field:
            case ast.AnnAssign(target=ast.Name(id=name)) if not ast.unparse(field.annotation).startswith("ClassVar"):
                fields[name] = Parameter(_annotation(field.annotation, module), field.value is None)
    return fields


def _locate(name: str, module: str) -> str | None:
    """Return the dotted path of a class that a module defines or imports under this name."""
    tree = _parse(module)
    match _definitions(tree).get(name) if tree else None:
        case ast.ClassDef():
            return f"{module}.{name}"
        case (str(origin), str(original)):
            return _locate(original, origin)
    return None


@functools.cache
def _parse(module: str) -> ast.Module | None:
    """Parse a module's source, found on the import path without running any package on the way."""
    path = None
    for depth in range(len(parts := module.split("."))):
        spec = PathFinder.find_spec(".".join(parts[: depth + 1]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or [])
    source = spec.origin if spec else None
    return ast.parse(Path(source).read_text("utf-8")) if source and source.endswith(".py") else None


def _definitions(node: ast.Module | ast.ClassDef) -> dict[str, Any]:
    """Map the names that a body defines to nodes: an imported name to (module, name), an assigned one to its value."""
    found: dict[str, Any] = {}
    for item in node.body:
        if isinstance(item, ast.ClassDef | ast.FunctionDef):
            found[item.name] = item
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            found[item.targets[0].id] = item.value
        elif isinstance(item, ast.ImportFrom) and not item.level:
            found |= {alias.asname or alias.name: (item.module, alias.name) for alias in item.names}
    return found


def _annotation(node: Any, module: str) -> Any:
    """Turn an annotation's syntax into the type it names; Any for whatever is no setting."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return NAMES[name] if name in NAMES else _lookup(name, module)
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return Union[_annotation(left, module), _annotation(right, module)]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            options = choices.elts if isinstance(choices, ast.Tuple) else [choices]
            return Literal[tuple(option.value for option in options if isinstance(option, ast.Constant))]
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            inner = _annotation(item, module)
            return list if inner is Any else list[inner]
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[kind, ast.Call() as limits])):
            bounds = {k.arg: ast.literal_eval(k.value) for k in limits.keywords if k.arg}
            return Annotated[_annotation(kind, module), Range(**bounds)]
    return Any


def _lookup(name: str, module: str) -> Any:
    """Follow a name through the modules' assignments and imports to the type it stands for."""
    tree = _parse(module)
    match _definitions(tree).get(name) if tree else None:
        case (str(origin), str(original)):
            return NAMES.get(original) if origin == __name__ else _lookup(original, origin)
        case ast.expr() as value:
            return _annotation(value, module)
    return Any
