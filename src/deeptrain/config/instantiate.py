"""From a node of the configuration to the object that it describes. A failure names the key to change."""

import inspect
import re
import traceback
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from deeptrain.errors import UsageError, error_line
from deeptrain.schema import suggest

KWARGS = {"timm": ("num_classes", "in_chans"), "torchvision": ("num_classes",)}  # facts that their **kwargs take
MAX_MESSAGE = 5000  # characters of a package's


def instantiate(key: str, node: Mapping[str, Any], **runtime: Any) -> Any:
    """Call what a node's `_target_` names, with the node's values and those runtime objects that its signature names.

    The models of timm and torchvision take some facts through **kwargs, so their signatures do not name them.
    The target has been checked against the allowed packages (validate.py). Raises UsageError: "key.name=value: ...".
    """
    settings = {name: value for name, value in node.items() if name != "_target_"}
    target = locate(key, node["_target_"])
    accepted = inspect.signature(target).parameters
    hidden = KWARGS.get(node["_target_"].partition(".")[0], ()) if _takes_kwargs(accepted) else ()
    asked = {*accepted, *hidden} - set(settings)
    wanted = {name: value for name, value in runtime.items() if name in asked}
    if "parameters" in runtime and "parameters" not in accepted:  # torch's own optimizers call them params
        wanted["params"] = runtime["parameters"]
    try:
        return target(**settings, **wanted)
    except (ValueError, TypeError) as error:
        message = str(error).replace("\n", " ")[:MAX_MESSAGE]
        raise UsageError([name_setting(key, message, settings)]) from error
    except OSError as error:  # a file, or a folder on the way to it
        raise UsageError([f"{key}: {error_line(error)}"]) from error


def _takes_kwargs(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())


def locate(key: str, path: str) -> Any:
    """Import what a dotted path names; UsageError if there is no such thing."""
    module, _, name = path.rpartition(".")
    try:
        imported = import_module(module)
    except ImportError as error:
        raise UsageError([f"{key}._target_={path}: cannot be imported ({error})"]) from error
    except Exception as error:  # a module of the user's own may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, SyntaxError) else f"{last.filename}, line {last.lineno}: "  # it says so itself
        reason = f"{where}{type(error).__name__}: {error}"
        raise UsageError([f"{key}._target_={path}: cannot be imported ({reason})"]) from error
    if not hasattr(imported, name):
        public = [word for word in dir(imported) if not word.startswith("_")]
        raise UsageError([f"{key}._target_={path}: {module} has no {name}; {suggest(name, public)}"])
    return getattr(imported, name)


def name_setting(key: str, message: str, settings: Mapping[str, Any]) -> str:
    """Put the key before a constructor's message: `alpha=-1: ...` of aug.mixup becomes `aug.mixup.alpha=-1: ...`."""
    named = re.match(r"(\w+)=", message)
    return f"{key}.{message}" if named and named[1] in settings else message if named else f"{key}: {message}"
