"""A run repeated from its folder alone: whether the same bits came out and, if not, what was not the same."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeptrain.config.compose import FOLDER, RunConfig
from deeptrain.errors import UsageError
from deeptrain.run import folder, resume_policy

OVER = ("finished", "stopped_early")


@dataclass(frozen=True)
class Original:
    """The run that is repeated, as its folder tells of it."""

    path: Path
    settings: dict[str, Any]  # its config.yaml
    result: dict[str, Any]  # its result.json; empty if it was killed

    def differences(self, run: RunConfig, facts: Mapping[str, Any]) -> list[str]:
        """Say what is not as it was: settings whose defaults are others now, versions, code, data, the machine."""
        now = folder.settings_of(run.yaml, "config.yaml")
        settings = [change for change in resume_policy.between(self.settings, now) if change.kind != resume_policy.FREE]
        return [*map(str, settings), *_differences(self.result, facts)]

    def forewarnings(self, run: RunConfig, facts: Mapping[str, Any]) -> list[str]:
        """Say before the first step what is not as it was."""
        return [f"not as in {self.path}: {what}; other bits may come out" for what in self.differences(run, facts)]

    def verdict(self, run: RunConfig, result: Mapping[str, Any]) -> tuple[str, bool]:
        """Say whether both came to the same weights; False only if they did not."""
        if self.result.get("status") not in OVER or not isinstance(self.result.get("weights"), str):
            return f"{self.path} has not finished: there is nothing to compare with", True
        if result["status"] not in OVER:
            return f"stopped before it could be compared with {self.path}", True
        if result["weights"] == self.result["weights"]:
            return f"same bits as {self.path}", True
        history = self.result.get("changed") or []
        reasons = self.differences(run, result)
        if run.spine.max_seconds is not None:
            reasons.append("the clock, which the rate follows (max_seconds)")
        if history:
            reasons.append("settings that were changed when it was resumed")
        return f"other bits than {self.path}; differs in {'; '.join(reasons) or 'nothing that is known'}", False


def find(path: str, now: list[str]) -> tuple[list[str], Original]:
    """Return the words of the run to repeat and what its folder tells; `now` may say where and how, not what."""
    wrong = [
        word for word in now if resume_policy.kind(_key(word)) != resume_policy.FREE and not word.startswith(FOLDER)
    ]
    if wrong:
        said = f"rerun={path} repeats a run as it was: leave it out, or start a new run"
        raise UsageError(f"{word}: {said}" for word in wrong)
    at = folder.find_to_rerun(path)
    words = folder.saved_words(at, now)
    return words, Original(at, folder.saved_settings(at), folder.read_json(at / "result.json", dict, {}))


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Compare what two results say of their circumstances; what one does not say is passed over."""
    before, after = _facts(then), _facts(now)
    for name in after:
        if name in before and before[name] != after[name] and name != "commit":
            was, is_now = before[name], after[name]
            if name == "source":  # the commit says more, unless it is the same one with other changes
                name = "code"
                commits = [str(facts.get("commit", "")) for facts in (before, after)]
                was, is_now = (" ".join(filter(None, pair)) for pair in zip(commits, (was, is_now), strict=True))
            yield str(resume_policy.Change(name, resume_policy.shown(was), resume_policy.shown(is_now)))


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    nodes = [node for node in (result.get("versions"), result.get("machine")) if isinstance(node, Mapping)]
    data = {"data": result["data"]} if "data" in result else {}
    return {name: value for node in [*nodes, data] for name, value in node.items()}
