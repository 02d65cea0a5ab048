"""Signatures read from source text, so that a wrong setting is refused before torch is imported."""

import ast
import functools
import types
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_origin

from deeptrain import schema
from deeptrain.schema import OLD_NAMES, Range

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
COMPOSITE = (Annotated, types.UnionType, Union)
NAMES |= {name: value for name, value in vars(schema).items() if get_origin(value) in COMPOSITE}
NAMES |= {old: NAMES[new] for old, new in OLD_NAMES.items() if new in NAMES}


@dataclass(frozen=True)
class Parameter:
    """One argument of a part: its annotation (Any where it is no setting), and whether it lacks a default."""

    annotation: Any
    required: bool
    is_annotated: bool = True


def read_signature(target: str) -> dict[str, Parameter] | None:
    """Read the parameters of a dotted class or function from its source, importing nothing.

    A class without a constructor of its own has that of its base class, or is a dataclass: its fields and its bases'.
    None where the source does not tell: a compiled name, or one that takes **kwargs. Then only building it can tell.
    """
    module, _, name = target.rpartition(".")
    tree = _parse(module)
    node = _definitions(tree).get(name) if tree else None
    if isinstance(node, tuple):  # imported from elsewhere
        return read_signature(".".join(node))
    if isinstance(node, ast.ClassDef):
        constructor = _definitions(node).get("__init__")
        if constructor is None:
            return _read_fields(node, module)
        node = constructor
    return _read_parameters(node, module) if isinstance(node, ast.FunctionDef) and not node.args.kwarg else None


def _read_parameters(node: ast.FunctionDef, module: str) -> dict[str, Parameter]:
    positional = [argument for argument in node.args.posonlyargs + node.args.args if argument.arg != "self"]
    defaults: list = [None] * (len(positional) - len(node.args.defaults)) + list(node.args.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    return {
        argument.arg: Parameter(_annotation(argument.annotation, module), not value, argument.annotation is not None)
        for argument, value in pairs
    }


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
    if not source or not source.endswith(".py"):
        return None
    with suppress(SyntaxError, ValueError):  # the import says where
        return ast.parse(Path(source).read_text("utf-8"))


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
    """Turn an annotation's syntax into the type it names; Any for what is no setting."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return NAMES[name] if name in NAMES else _lookup(name, module)
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            if ast.unparse(right).rpartition(".")[2] == "Tensor":  # float | Tensor: no setting is a tensor
                return _annotation(left, module)
            return Union[_annotation(left, module), _annotation(right, module)]  # noqa: UP007
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            options = choices.elts if isinstance(choices, ast.Tuple) else [choices]
            return Literal[tuple(option.value for option in options if isinstance(option, ast.Constant))]
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            inner = _annotation(item, module)
            return list if inner is Any else list[inner]
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, item])):
            inner = _annotation(item, module)
            return dict if inner is Any else dict[str, inner]
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[kind, ast.Call() as limits])):
            bounds = {k.arg: ast.literal_eval(k.value) for k in limits.keywords if k.arg}
            return Annotated[_annotation(kind, module), Range(**bounds)]
    return Any


def _lookup(name: str, module: str) -> Any:
    """Follow a name through the modules' assignments and imports to the type it stands for."""
    tree = _parse(module)
    match _definitions(tree).get(name) if tree else None:
        case (str(origin), str(original)):
            return NAMES.get(original) if origin == schema.__name__ else _lookup(original, origin)
        case ast.expr() as value:
            return _annotation(value, module)
    return Any
