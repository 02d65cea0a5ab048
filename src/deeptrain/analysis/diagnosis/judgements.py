"""What the judgements of all steps share: a reading, and how many errors tell something."""

from collections.abc import Callable
from dataclasses import dataclass, field

from deeptrain.analysis.verdicts import Verdict

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
