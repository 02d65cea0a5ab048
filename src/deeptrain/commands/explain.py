"""Cards, options and settings on the command line: python train.py explain=mixup; answers without importing torch."""

import re
import shutil
import sys
import textwrap
from io import StringIO
from pathlib import Path

from deeptrain.config.options import groups, options
from deeptrain.config.renamed import translate_option
from deeptrain.config.settings import LISTS
from deeptrain.errors import UsageError
from deeptrain.runtime.resources import CARDS, CONFIGS
from deeptrain.schema import closest, suggest

KINDS = ("Pictures", "Mixing", "Models", "In the model", "In the loss", "Weights", "Data")  # of every card one
TYPED = re.compile(r"`([\w.]+=?[\w.]*)`")  # what a card's second line says to type: `aug=mixup`, `model.dropout`
VALUE = re.compile(r"`[a-z_]+\.[\w.]+=([a-z]\w*)`")  # the lstm of `model.cell=lstm`, anywhere in a card
SETTING = re.compile(r"^(?P<indent> *)(?P<key>\w+): +(?P<value>[^#\n]*[^#\s])(?: +# (?P<comment>.*))?$", re.MULTILINE)


def explain(names: list[str], config_dirs: tuple[str, ...] = ()) -> str:
    """Return the pages for what follows explain=: a method, an option or a setting; nothing lists all cards.

    config_dirs: folders that hold further options.
    """
    return "\n".join(_explain(name, config_dirs) for name in names if name) or contents()


def diagnosis() -> str:
    """List the verdicts of diagnose and of the reader of curves: what each says, how it is seen, what is tried."""
    from deeptrain.analysis.verdicts import SIGNS, TITLES

    lines = ["python scripts/diagnose.py tests a set-up before training; read, and the end of a run, read curves", ""]
    for name, title in TITLES.items():
        sign, remedy = SIGNS[name]
        lines += [f"  {name:<24} {title}", f"  {'':<24} {sign}", f"  {'':<24} try: {remedy}", ""]
    return "\n".join(lines[:-1])


def _explain(name: str, config_dirs: tuple[str, ...]) -> str:
    """Return a card; else what the files say of the options, or of the setting, that have this name."""
    if name == "diagnosis":
        return diagnosis()
    known = {
        (group, option): _file(group, option, config_dirs)
        for group in groups(config_dirs)
        for option in options(group, config_dirs)
    }
    group, _, option = translate_option(name).rpartition("=")
    found = {key: path for key, path in known.items() if key[1] == option and group in ("", key[0])}
    own = [path for path in found.values() if not path.is_relative_to(CONFIGS)]
    if not own and (card := _find_card(name)) is not None:
        return page(card)
    if found:
        return "\n".join(["", *(option_page(*key, path) for key, path in found.items())])
    if (card := _find_card_by_words(name)) is not None:
        return page(card)
    if lines := _every_run(name):
        return "\n".join(["", *lines])
    if group in groups(config_dirs):
        raise UsageError([f"explain={name}: no such {group}; {suggest(option, options(group, config_dirs))}"])
    cards = [path.stem for path in sorted(CARDS.glob("*.md"))]
    match = closest(name.rpartition(".")[2].lower().replace("-", "_"), [*cards, *(option for _, option in known)])
    hint = f"did you mean {match}? " if match else ""
    raise UsageError([f"explain={name}: there is no such card; {hint}choose from {', '.join(cards)}"])


def _file(group: str, option: str, config_dirs: tuple[str, ...]) -> Path:
    folders = [path for path in map(Path, config_dirs) if (path / group / f"{option}.yaml").is_file()]
    return (folders[0] if folders else CONFIGS) / group / f"{option}.yaml"


def option_page(group: str, option: str, path: Path) -> str:
    """Lay out an option without a card: what it is for, and its settings; of an experiment the file as it is."""
    lines = _option_lines(group, option, path)
    if group == "experiment":
        lines = [f"  {line}" for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    head = f"{group}={option}  {describe(path)}"
    return "\n".join([head, *([""] if lines else []), *lines, ""])


def describe(file: Path) -> str:
    """Return what an option is for: the first comment line of its file."""
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


def contents() -> str:
    """List the cards by kind, each with its first sentence."""
    kinds: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for path in sorted(CARDS.glob("*.md")):
        _, kind, body = _parts(path)
        first = " ".join(body.split()).partition(". ")[0].partition(": ")[0]
        kinds[kind.partition(":")[0]].append(f"  {path.stem:<20} {first}"[: _width()])
    lines = [line for kind, cards in kinds.items() for line in ("", kind, *cards)]
    return "\n".join(["python train.py explain=NAME shows one of these cards", *lines])


def page(path: Path) -> str:
    """Lay out one card for a terminal, then its settings with their defaults as the configuration files have them."""
    from rich.console import Console
    from rich.markdown import Markdown

    title, kind, body = _parts(path)
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(file=StringIO(), force_terminal=is_terminal, width=_width(), highlight=False)  # it only renders
    with console.capture() as captured:
        console.print(f"\n[bold]{title}[/bold]  {kind.replace('`', '')}\n")
        console.print(Markdown(body))
    settings = [line for typed in TYPED.findall(kind) for line in _settings(typed)]
    return "\n".join([captured.get(), *settings, *([""] if settings else [])])


def option_settings(option: Path) -> dict[str, tuple[str, str]]:
    """Read an option's file: each setting's name, with its default and its comment."""
    found = SETTING.finditer(option.read_text("utf-8"))
    return {line["key"]: (line["value"], line["comment"] or "") for line in found}


def _find_card(name: str) -> Path | None:
    """Return the card of a method, `group=option` or a setting (its key, or the last word of it)."""
    cards = {path.stem: path for path in sorted(CARDS.glob("*.md"))}
    name = translate_option(name)
    plain = translate_option(name.rpartition("=")[2].lower().replace("-", "_"))
    if plain in cards:
        return cards[plain]
    for path in cards.values():
        typed = TYPED.findall(_parts(path)[1])
        last_words = [word.rpartition(".")[2] for word in typed]
        if name in [*typed, *last_words] or any(name.startswith(f"{word.replace('=', '.')}.") for word in typed):
            return path
    return None


def _find_card_by_words(name: str) -> Path | None:
    """Return the card that gives this value to a setting, or has it in its title."""
    cards = sorted(CARDS.glob("*.md"))
    plain = translate_option(name.rpartition("=")[2].lower().replace("-", "_"))
    for path in cards:
        if plain in VALUE.findall(path.read_text("utf-8")):
            return path
    for path in cards:
        if plain.replace("_", " ") in _parts(path)[0].lower():
            return path
    return None


def _every_run(name: str) -> list[str]:
    """Return the line of a setting that every run or a group has. A value may stand behind its name."""
    key = name.partition("=")[0]
    group, _, last = key.rpartition(".")
    file = CONFIGS / "train.yaml"
    is_known = group in groups() or last in option_settings(file)
    return _settings(key) if is_known else []


def _parts(path: Path) -> tuple[str, str, str]:
    """Split a card into its title, its second line (the kind, and what to type) and the rest."""
    title, kind, body = path.read_text("utf-8").split("\n\n", 2)
    return title.removeprefix("# "), " ".join(kind.split()), body


def _settings(typed: str) -> list[str]:
    """Write the settings that `group=option` has, or the one that is named, as one types them, with their comments."""
    group, _, option = typed.partition("=")
    if option:
        return _option_lines(group, option, CONFIGS / group / f"{option}.yaml")
    group, _, key = typed.rpartition(".")
    files = sorted((CONFIGS / group).glob("*.yaml")) if (CONFIGS / group).is_dir() else [CONFIGS / "train.yaml"]
    owners = {file.stem: option_settings(file)[key] for file in files if key in option_settings(file)}
    lines = []
    for default in dict.fromkeys(value for value, _ in owners.values()):
        names = [name for name, (value, _) in owners.items() if value == default]
        where = f"{group}={', '.join(names)}: " if (CONFIGS / group).is_dir() and group else ""
        lines.append(_line(typed, default, where + owners[names[0]][1]))
    return lines


def _option_lines(group: str, option: str, path: Path) -> list[str]:
    prefix = f"{group}.{option}" if group in LISTS else group
    found = option_settings(path).items()
    return [_line(f"{prefix}.{key}", *comment) for key, comment in found if key != "_target_"]


def _line(key: str, value: str, comment: str) -> str:
    """Write a setting and its comment; further lines of a long comment stand below its start."""
    label = f"  {f'{key}={value}':<34} "
    first, *rest = textwrap.wrap(comment, max(20, _width() - len(label)), break_long_words=False) or [""]
    return "\n".join([(label + first).rstrip(), *(" " * len(label) + part for part in rest)])


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 110)
