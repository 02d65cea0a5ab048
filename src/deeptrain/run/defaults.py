"""Defaults and experiments change from version to version; a run keeps those that it had."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from deeptrain.config.compose import CONFIG_DIR, compose_run
from deeptrain.config.options import options
from deeptrain.config.override import override_key
from deeptrain.config.settings import LISTS, PARTS
from deeptrain.errors import UsageError
from deeptrain.run import resume_policy, saved
from deeptrain.run.resume_policy import ResumePolicy
from deeptrain.runtime.resources import CONFIGS

PLAIN = re.compile(r"[\w.+-]+|\[[\w.+,-]*\]")  # a value or a list that needs no quotes


def load_overrides(at: Path, now: list[str]) -> list[str]:
    """Read a run's overrides, and add those that keep what its config.yaml has by other defaults than today's.

    A group that is typed now is left as typed. Without a readable config.yaml nothing is added.
    """
    words = saved.load_overrides(at, now)
    then = saved.load_config(at)
    folders = [word for word in now if word.startswith(CONFIG_DIR)]
    typed = {override_key(word) for word in now}
    today: Mapping[str, Any] = {}
    found: dict[str, str] = {}
    for restore in (_options, _values):
        try:
            if not today or found:  # composing takes a tenth of a second
                today = saved.parse_config(compose_run([*words, *folders]).yaml, "now")
        except UsageError:  # warned of when the run itself is composed
            return words
        found = restore(then, today, words)
        words += [word for key, word in found.items() if not {key, key.partition(".")[0]} & typed]
    return words


def _options(then: Mapping[str, Any], today: Mapping[str, Any], words: list[str]) -> dict[str, str]:
    """Return `group=option` for each group that another option of ours is the default of today."""
    found = {}
    for group in set(PARTS) - {override_key(word) for word in words}:
        node = then.get(group)
        if not isinstance(node, Mapping) or _kind(node) == _kind(today.get(group) or {}):
            continue
        for option in options(group):
            if _kind(OmegaConf.load(CONFIGS / group / f"{option}.yaml")) == _kind(node):
                found[group] = f"{group}={option}"
    return found


def _kind(node: Any) -> tuple[str, str]:
    return str(node.get("_target_")), str(node.get("name"))  # the sets of torchvision share a target


def _values(then: Mapping[str, Any], today: Mapping[str, Any], words: list[str]) -> dict[str, str]:
    """Return `key=value` for each setting that was not typed and whose default is another one today."""
    typed = {override_key(word) for word in words}
    changes = [change for change in resume_policy.diff(then, today) if change.policy is not ResumePolicy.IGNORED]
    return {
        change.key: f"{change.key}={change.old}"
        for change in changes
        if change.key not in {*typed, *PARTS, *LISTS} and PLAIN.fullmatch(change.old)
    }
