"""Repeating a run from its folder: did the same bits come out, and if not, what was different?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeptrain.config.compose import CONFIG_DIR
from deeptrain.config.override import override_key
from deeptrain.config.settings import RunConfig
from deeptrain.data.fingerprint import is_same
from deeptrain.errors import UsageError
from deeptrain.run import defaults, folder, resume_policy, saved
from deeptrain.run.resume_policy import ResumePolicy

OVER = ("finished", "stopped_early")


@dataclass(frozen=True)
class Original:
    """The run that is repeated, read from its folder."""

    path: Path
    settings: dict[str, Any]  # its config.yaml; empty if that is missing
    result: dict[str, Any]  # its result.json; empty if it was killed

    def last_state(self) -> dict[str, Any]:
        """Return the last checkpoint, {} if there is none that can be read."""
        from deeptrain.training import checkpoint

        try:
            return checkpoint.load(self.path / "checkpoints" / "last.pt")
        except ValueError:
            return {}

    def differences(self, run: RunConfig, facts: Mapping[str, Any]) -> list[str]:
        """List what differs from the original: default settings, versions, code, data, the machine."""
        now = saved.parse_config(run.yaml, "config.yaml")
        settings = [
            change for change in resume_policy.diff(self.settings or now, now) if change.policy != ResumePolicy.IGNORED
        ]
        return [*map(str, settings), *_differences(self.result, facts)]

    def expected_differences(self, run: RunConfig, facts: Mapping[str, Any]) -> list[str]:
        """List, before the first step, what may lead to other bits."""
        return [f"not as in {self.path}: {what}; other bits may come out" for what in self.differences(run, facts)]

    def compare(self, run: RunConfig, result: Mapping[str, Any]) -> tuple[str, bool]:
        """Return a sentence, and False if both runs ended with different weights."""
        if self.result.get("status") not in OVER or not isinstance(self.result.get("weights"), str):
            return f"{self.path} has not finished: there is nothing to compare with", True
        if result["status"] not in OVER:
            return f"stopped before it could be compared with {self.path}", True
        if result["weights"] == self.result["weights"]:
            return f"same bits as {self.path}", True
        history = self.result.get("changed") or []
        reasons = self.differences(run, result)
        if run.settings.max_seconds is not None:
            reasons.append("the clock, which the rate follows (max_seconds)")
        if history:
            reasons.append("settings that were changed when it was resumed")
        return f"other bits than {self.path}; differs in {'; '.join(reasons) or 'nothing that is known'}", False


def find(path: str, now: list[str]) -> tuple[list[str], Original]:
    """Return the overrides of the run to repeat, and the run. `now` may say where and how to run, not what."""
    ignored = {word for word in now if resume_policy.policy(override_key(word)) is ResumePolicy.IGNORED}
    if others := [word for word in now if word not in ignored and not word.startswith(CONFIG_DIR)]:
        message = f"rerun={path} repeats a run as it was: leave it out, or start a new run"
        raise UsageError(f"{word}: {message}" for word in others)
    at = folder.find_to_rerun(path)
    words = defaults.load_overrides(at, now)
    return words, Original(at, saved.load_config(at), saved.read_json(at / "result.json", dict, {}))


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between the versions, machine and data of two results; what only one has does not count."""
    before, after = _facts(then), _facts(now)
    for name in after:
        is_other = name in before and before[name] != after[name]
        if name == "data" and is_other:
            is_other = not is_same(before[name], after[name])
        if is_other and name != "commit":
            was, is_now = before[name], after[name]
            if name == "source":  # the commit says more, unless it is the same one with other changes
                name = "code"
                commits = [str(facts.get("commit", "")) for facts in (before, after)]
                was, is_now = (" ".join(filter(None, pair)) for pair in zip(commits, (was, is_now), strict=True))
            yield str(resume_policy.Change(name, resume_policy.safe_repr(was), resume_policy.safe_repr(is_now)))


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    nodes = [node for node in (result.get("versions"), result.get("machine")) if isinstance(node, Mapping)]
    data = {"data": result["data"]} if "data" in result else {}
    return {name: value for node in [*nodes, data] for name, value in node.items()}
