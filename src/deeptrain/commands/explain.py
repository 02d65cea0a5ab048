"""The cards of docs/methods/ on the command line: python train.py explain=mixup; answers without importing torch."""

import re
import shutil
import sys
from io import StringIO
from pathlib import Path

from deeptrain.config.renamed import translate_option
from deeptrain.errors import UsageError
from deeptrain.runtime.resources import CARDS, CONFIGS
from deeptrain.schema import closest

KINDS = ("Pictures", "Mixing", "Models", "In the model", "In the loss", "Weights", "Data")  # of every card one
TYPED = re.compile(r"`([\w.]+=?[\w.]*)`")  # what a card's second line says to type: `aug=mixup`, `model.dropout`
VALUE = re.compile(r"`[a-z_]+\.[\w.]+=([a-z]\w*)`")  # the lstm of `model.cell=lstm`, anywhere in a card
SETTING = re.compile(r"^(?P<indent> *)(?P<key>\w+): +(?P<value>[^#\n]*[^#\s])(?: +# (?P<comment>.*))?$", re.MULTILINE)


def explain(names: list[str]) -> str:
    """Return the pages for what follows explain=: a method, an option or a setting; nothing lists all cards."""
    return "\n".join(page(_find(name)) for name in names if name) or contents()


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
    return "\n".join([captured.get(), *(f"  {line}"[: _width()] for line in settings), *([""] if settings else [])])


def option_settings(option: Path) -> dict[str, tuple[str, str]]:
    """Read an option's file: each setting's name, with its default and its comment."""
    found = SETTING.finditer(option.read_text("utf-8"))
    return {line["key"]: (line["value"], line["comment"] or "") for line in found}


def _find(name: str) -> Path:
    """Return the card of a method, `group=option`, a setting (its key, the last word of it, a value) or a title.

    UsageError name the nearest.
    """
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
    for path in cards.values():
        if plain in VALUE.findall(path.read_text("utf-8")):
            return path
    for path in cards.values():
        if plain.replace("_", " ") in _parts(path)[0].lower():
            return path
    match = closest(plain.rpartition(".")[2], cards)
    hint = f"did you mean {match}? " if match else ""
    raise UsageError([f"explain={name}: there is no such card; {hint}choose from {', '.join(cards)}"])


def _parts(path: Path) -> tuple[str, str, str]:
    """Split a card into its title, the line that says of what kind it is and what to type, and the rest."""
    title, kind, body = path.read_text("utf-8").split("\n\n", 2)
    return title.removeprefix("# "), " ".join(kind.split()), body


def _settings(typed: str) -> list[str]:
    """Write the settings that `group=option` has, or the one that is named, as one types them, with their comments."""
    group, _, option = typed.partition("=")
    if option:
        prefix = f"{group}.{option}" if group == "aug" else group
        found = option_settings(CONFIGS / group / f"{option}.yaml").items()
        return [_line(f"{prefix}.{key}", *comment) for key, comment in found if key != "_target_"]
    group, _, key = typed.rpartition(".")
    files = sorted((CONFIGS / group).glob("*.yaml")) if (CONFIGS / group).is_dir() else [CONFIGS / "train.yaml"]
    owners = {file.stem: option_settings(file)[key] for file in files if key in option_settings(file)}
    lines = []
    for default in dict.fromkeys(value for value, _ in owners.values()):
        names = [name for name, (value, _) in owners.items() if value == default]
        where = f"{group}={', '.join(names)}: " if (CONFIGS / group).is_dir() and group else ""
        lines.append(_line(typed, default, where + owners[names[0]][1]))
    return lines


def _line(key: str, value: str, comment: str) -> str:
    return f"{f'{key}={value}':<34} {comment}"


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 110)
