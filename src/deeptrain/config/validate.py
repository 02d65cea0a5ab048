"""Checking every value of a composed configuration: settings against their types, parts against signatures."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from deeptrain.config.settings import LISTS, part_nodes
from deeptrain.config.signatures import Parameter, read_signature
from deeptrain.config.user_modules import is_user_module
from deeptrain.metrics.metric import METRICS
from deeptrain.schema import closest, format_value, suggest, type_error

ALLOWED_TARGETS = ("deeptrain", "torch.optim", "torch.nn", "torchvision.models", "timm")


def orphaned_settings(parts: dict[str, dict[str, Any]], chosen: dict[str, str], typed: set[str]) -> Iterator[str]:
    """Take out what an experiment sets of options that others have replaced; yield a line for each part."""
    if chosen.get("experiment", "None") == "None":
        return
    defined = {group: [name for name, node in parts[group].items() if "_target_" in node] for group in LISTS}
    for key, node in list(part_nodes(parts)):
        group, _, member = key.partition(".")
        signature = read_signature(str(node.get("_target_"))) if "_target_" in node and not member else {}
        foreign = [name for name in node if signature is not None and name not in {"_target_", *signature}]
        foreign = [f"{key}.{name}" for name in foreign if f"{key}.{name}" not in typed]
        if not foreign or member in defined.get(group, ()):
            continue
        option = f"{group}=[{','.join(defined[group])}]" if member else f"{group}={chosen[group]}"
        yield (
            f"experiment={chosen['experiment']}: sets {', '.join(foreign)}, which {option} does not have; "
            f"leave out {option}, or the experiment"
        )
        for name in foreign:
            del node[name.rpartition(".")[2]]
        if member:
            del parts[group][member]


def settings_messages(plain: dict[str, Any], schema: type, prefix: str = "") -> Iterator[str]:
    """Check the settings that every run has against their types."""
    hints = get_type_hints(schema, include_extras=True)
    for name, value in plain.items():
        key = f"{prefix}{name}"
        if name not in hints:
            match = closest(name, hints)
            yield f"{key}={value}: no such setting" + (f"; did you mean {prefix}{match}?" if match else "")
        elif is_dataclass(hints[name]):
            yield from settings_messages(value, hints[name], f"{key}.")  # pyright: ignore
        elif message := type_error(value, hints[name]):
            yield f"{key}={format_value(value)}: {message}"


def monitor_messages(monitor: str, added: dict[str, Any]) -> Iterator[str]:
    """Check that the monitored metric is one that the run measures."""
    known = [f"{name}/val" for name in sorted([*METRICS, *added], key=lambda name: name == "loss")]
    name = monitor.removesuffix("/val")
    if monitor not in known:
        from deeptrain.config.options import options

        remedy = f"is not measured; add metrics={name}" if name in options("metrics") else suggest(monitor, known)
        yield f"monitor={monitor}: {remedy}"


def part_messages(
    key: str,
    node: Any,
    allowed: tuple[str, ...],
    config_dirs: tuple[str, ...],
    defaults: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Check a part's values against the signature that its `_target_` names, or against their defaults in its file.

    A target must be in an allowed package, or in a module in or beside the folders of --config-dir.
    """
    if not isinstance(node, dict) or "_target_" not in node:
        yield f"{key}: has no _target_; choose an option of {key.partition('.')[0]} that defines it"
        return
    target = str(node["_target_"])
    is_allowed = any(target.startswith(f"{package}.") for package in allowed)
    if not is_allowed and not is_user_module(target.rpartition(".")[0], config_dirs):
        yield f"{key}._target_={target}: outside {', '.join(allowed)}; if you trust it, add it to allow_targets"
        return
    signature = read_signature(target)
    if signature is not None and key.startswith("aug."):
        signature |= {name: parameter for name, parameter in _aug_parameters().items() if name not in signature}
    for name, value in node.items():
        if name == "_target_" or signature is None:
            continue
        if name not in signature:
            settings = [word for word, parameter in signature.items() if not parameter.required]
            component = target.rpartition(".")[2]
            yield f"{key}.{name}={format_value(value)}: {component} has no {name}; {suggest(name, settings)}"
        elif message := type_error(value, signature[name].annotation):
            yield f"{key}.{name}={format_value(value)}: {message}"
        elif message := _unlike_default(value, signature[name], (defaults or {}).get(f"{key}.{name}")):
            yield f"{key}.{name}={format_value(value)}: {message}; to allow other types, annotate {name}"


def _unlike_default(value: Any, parameter: Parameter, default: Any) -> str | None:
    """Say what is allowed if a value without annotation is of another type than its default; null has none."""
    message = type_error(value, type(default)) if default is not None and not parameter.is_annotated else None
    return message and f"{message}, as its default {format_value(default)}"


def _aug_parameters() -> dict[str, Parameter]:
    """Return the settings that every augmentation has beside those of its constructor."""
    signature = read_signature("deeptrain.aug.pipeline.RandomApply") or {}
    return {name: parameter for name, parameter in signature.items() if not parameter.required}


def to_dataclass(plain: dict[str, Any], schema: type) -> Any:
    hints = get_type_hints(schema, include_extras=True)
    nested = {f.name: hints[f.name] for f in fields(schema) if is_dataclass(hints[f.name])}
    return schema(**{k: to_dataclass(v, nested[k]) if k in nested else v for k, v in plain.items()})  # pyright: ignore
