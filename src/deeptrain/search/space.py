"""What a search varies: ranges and choices, which of them exist under which option, and the words of a trial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deeptrain.config.axes import Axis, Choice, Interval, as_whole, split_axes
from deeptrain.config.compose import compose_run, known_settings
from deeptrain.config.options import groups
from deeptrain.config.override import last_value, override_key, override_value
from deeptrain.config.repeats import SEED
from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError
from deeptrain.schema import format_value

ALONE = ("dir", "resume", "rerun", "device", "threads")
DIGITS = 4  # of a number that is drawn
NO_RANGE = (
    "tune: no setting has a range; write for example 'optimizer.lr=log(1e-4,1e-1)', "
    "'model.dropout=interval(0,0.5)' or 'aug=none,[mixup]'"
)
Values = dict[str, str]


@dataclass(frozen=True)
class Space:
    """The words of every trial, and what varies. under: a setting's group and the options with which it exists."""

    fixed: tuple[str, ...]
    axes: dict[str, Axis]
    under: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)

    @property
    def is_conditional(self) -> bool:
        return bool(self.under)

    @property
    def size(self) -> int | None:
        """Return the number of settings; None if a range has no whole numbers."""
        total = 1
        for axis in self.axes.values():
            if isinstance(axis, Interval) and not axis.whole:
                return None
            total *= len(axis.values) if isinstance(axis, Choice) else int(axis.high - axis.low) + 1
        return total

    def exists(self, key: str, values: Mapping[str, str]) -> bool:
        """Tell whether a setting exists under the options chosen among the values."""
        group, options = self.under.get(key, ("", frozenset()))
        return not group or values.get(group) in options

    def words(self, values: Mapping[str, str]) -> list[str]:
        return [*self.fixed, *(f"{key}={value}" for key, value in values.items())]

    def parameters(self, values: Mapping[str, str]) -> dict[str, Any] | None:
        """Return the values as numbers and choices; None if any is outside its range."""
        found: dict[str, Any] = {}
        for key, axis in self.axes.items():
            if not self.exists(key, values):
                continue
            number = _number(values.get(key, ""))
            if isinstance(axis, Choice):
                if values.get(key) not in axis.values:
                    return None
                found[key] = values[key]
            elif number is None or not axis.low <= number <= axis.high or (axis.whole and not number.is_integer()):
                return None
            else:
                found[key] = int(number) if axis.whole else number
        return found

    def probes(self, key: str) -> list[Values]:
        """Return values that take a setting to each end of its range, or to each choice; all others as they are."""
        axis, (group, options) = self.axes[key], self.under.get(key, ("", frozenset()))
        ends = axis.values if isinstance(axis, Choice) else (written(axis.low, axis), written(axis.high, axis))
        return [{**({group: min(options)} if group else {}), key: end} for end in ends]


def read(words: Sequence[str]) -> tuple[Space, Values]:
    """Return the space that words span, and the user's own values in it; UsageError with all mistakes."""
    fixed, axes = split_axes(list(words))
    _check(fixed, axes)
    ordered = sorted(axes, key=lambda key: key not in groups())  # what others depend on comes first
    under = _dependent(fixed, axes)
    space = Space(tuple(fixed), {key: axes[key] for key in ordered}, under)
    run, mistakes = _composed(fixed)
    if run is not None:
        mistakes = _range_mistakes(space)
    if mistakes or run is None:
        raise UsageError(mistakes)
    whole = {key: _whole(space, key) for key in space.axes}
    space = Space(space.fixed, whole, under)
    return space, _own_values(space, run)


def written(number: float, axis: Interval) -> str:
    """Write a number of a range as on a command line, in four digits, inside the range."""
    if axis.whole:
        return str(round(number))
    rounded = float(f"{number:.{DIGITS}g}")
    text = f"{min(max(rounded, axis.low), axis.high):.{DIGITS}g}"
    inside = axis.low <= float(text) <= axis.high
    return text if inside else repr(min(max(number, axis.low), axis.high))


def _check(fixed: Sequence[str], axes: Mapping[str, Axis]) -> None:
    messages = []
    if SEED in axes:
        messages.append(f"{SEED}={axes[SEED]}: a search has one seed; confirm=5x3 repeats the best with others")
    messages += [f"{key}={axis}: cannot be searched; give it one value" for key, axis in axes.items() if key in ALONE]
    if not axes:
        listed = next((word for word in fixed if override_value(word).startswith("[") and "," in word), None)
        hint = listed and f"; {listed} is one list: for a choice write {_as_choices(listed)}"
        messages.append(NO_RANGE + (hint or ""))
    if messages:
        raise UsageError(messages)


def _as_choices(word: str) -> str:
    items = override_value(word).strip("[]").split(",")
    return f"'{override_key(word)}={','.join(f'[{item.strip()}]' for item in items)}'"


def _dependent(fixed: Sequence[str], axes: Mapping[str, Axis]) -> dict[str, tuple[str, frozenset[str]]]:
    """Find the settings that exist with some options of a searched group only."""
    under = {}
    for group, axis in axes.items():
        inner = [key for key in axes if key.startswith(f"{group}.")]
        if group not in groups() or not isinstance(axis, Choice) or not inner:
            continue
        known = {value: _known([*fixed, f"{group}={value}"]) for value in axis.values}
        for key in inner:
            options = frozenset(value for value, settings in known.items() if key in settings)
            if options and len(options) < len(axis.values):
                under[key] = (group, options)
    return under


def _known(words: list[str]) -> set[str]:
    try:
        return known_settings(words)
    except UsageError:
        return set()  # a wrong option is said when it is composed


def _composed(words: Sequence[str]) -> tuple[RunConfig | None, list[str]]:
    """Compose a run; return it, or None and its mistakes."""
    try:
        return compose_run(list(words)), []
    except UsageError as error:
        return None, error.lines


def _range_mistakes(space: Space) -> list[str]:
    """Return what is wrong with choices and the ends of ranges; only once if both ends have it."""
    mistakes = []
    for key, axis in space.axes.items():
        probes = space.probes(key)
        lines = [_composed(space.words(probe))[1] for probe in probes]
        typed = [
            [line.replace(f"={probe[key]}", f"={axis}") for line in each]
            for probe, each in zip(probes, lines, strict=True)
        ]
        same = isinstance(axis, Interval) and typed[0] == typed[1]
        mistakes += typed[0] if same else [line for each in lines for line in each]
    return mistakes


def _whole(space: Space, key: str) -> Axis:
    axis = space.axes[key]
    group, options = space.under.get(key, ("", frozenset()))
    base = [*space.fixed, *([f"{group}={min(options)}"] if group else [])]

    def is_allowed(number: float) -> bool:
        return _composed([*base, f"{key}={number}"])[0] is not None

    return as_whole(axis, is_allowed) if isinstance(axis, Interval) else axis


def _own_values(space: Space, run: RunConfig) -> Values:
    """Return what the user's own command has for each setting that is searched."""
    own: Values = {}
    for key, axis in space.axes.items():
        value = run.choices.get(key) if key in run.choices else None
        if value is None and key not in run.values:
            continue
        text = f"[{value.replace('+', ',')}]" if value and "+" in value else value or format_value(run.values[key])
        text = _shortest(text, axis) if isinstance(axis, Interval) else text
        same = [choice for choice in axis.values if _plain(choice) == _plain(text)] if isinstance(axis, Choice) else []
        own[key] = same[0] if same else text
    return own


def _shortest(text: str, axis: Interval) -> str:
    """Write a number as one that is drawn, so that equal ones are seen to be equal: 0.0 is 0."""
    number = _number(text)
    if number is None or not axis.low <= number <= axis.high:
        return text
    short = written(number, axis)
    return short if float(short) == number else text


def _plain(text: str) -> Any:
    """Return what a typed value means: 1e-3 is 0.001, [mixup] is mixup, [] is none."""
    number = _number(text)
    return number if number is not None else text.strip("[]'\"").replace(" ", "") or "none"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def seed_of(words: Sequence[str]) -> int:
    """Return the seed that the words give to every run."""
    return int(last_value(list(words), SEED) or 0)
