"""What the judgements of all steps share: a reading, and how sure a verdict is."""

from collections.abc import Callable
from dataclasses import dataclass, field

from deeptrain.analysis.verdicts import Confidence, Verdict

FEW_ERRORS = 3.0  # standard errors: below, val is not learned
MANY_ERRORS = 5.0  # paired standard errors

Named = Callable[[str], str]  # how a user makes a change


@dataclass
class Reading:
    """The verdicts of a step, the strongest first, and what it has excluded."""

    verdicts: list[Verdict] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return any(verdict.kind == "fault" for verdict in self.verdicts)


def how_sure(errors: float, is_specific: bool, is_rivalled: bool = False) -> Confidence:
    """Say how sure a verdict is whose remedy was tried in the run itself. Each doubt takes a level away.

    errors: paired, by which the run is better with the remedy. is_specific: the symptom names this cause and no other.
    is_rivalled: the remedy of another cause does as well, and this one adds nothing to it.
    """
    level = (errors >= FEW_ERRORS) + (errors >= MANY_ERRORS) - (not is_specific) - is_rivalled
    levels: tuple[Confidence, ...] = ("possible", "likely", "certain")
    return levels[max(0, level)]


def is_specific(verdict: Verdict) -> bool:
    """Tell whether a symptom names its cause: before its remedy is tried it is "likely" then, else less."""
    return verdict.confidence == "likely"
