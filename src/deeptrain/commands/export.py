"""Write a run's network as one file for other programs: python scripts/export.py outputs/DATE/RUN to=onnx"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deeptrain.commands.cli import answer
from deeptrain.runtime import terminal
from deeptrain.runtime.garbage import RARELY, collect_every
from deeptrain.runtime.paths import read_path

if TYPE_CHECKING:
    import numpy as np

    from deeptrain.commands.words import Words
    from deeptrain.inference.predictor import Predictor

USAGE = """\
python scripts/export.py RUN to=onnx|torch_export|safetensors [key=value ...]

RUN is a run's folder (then its best weights are taken) or one of its checkpoints. Writes one file with the network, its
normalisation, the names of its classes and its temperature, and beside it a page with lines of Python that use it. The
file is compared with the network on real pictures before.

  to=onnx                for onnxruntime and many others; or torch_export, or safetensors (the weights alone)
  file=FILE              by default model.onnx, model.pt2 or model.safetensors in the run's folder
  pictures=FOLDER        the pictures to compare on, by default those of val
  temperature=1          logits as trained, although an evaluation of val has fitted a temperature
"""

PARITY_IMAGES = 256
READ = ("--config-dir", "allow_targets", "cache_dir", "data", "model.test_samples", "workers")


@dataclass
class Options:
    """What is asked."""

    to: Literal["onnx", "torch_export", "safetensors"]
    file: str | None = None
    pictures: str | None = None
    temperature: Literal[1] | None = None


@collect_every(RARELY)
def export(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _export)


def parse(arguments: Sequence[str]) -> "Words[Options]":
    """Take a command line apart; UsageError if a word is none of ours."""
    from deeptrain.commands import words
    from deeptrain.errors import UsageError

    command = words.parse(arguments, Options, USAGE, "exporting", READ)
    if len(command.names) > 1:
        raise UsageError([f"{command.names[1]}: one run is exported at a time; leave it out"])
    return command


def _export(arguments: list[str]) -> int:
    from deeptrain.errors import UsageError
    from deeptrain.run import folder

    command = parse(arguments)
    options = command.options
    run_dir, checkpoint = folder.find(command.names[0], "run", best=True)

    from deeptrain.inference import export as room
    from deeptrain.inference import model_card
    from deeptrain.inference.restore import load
    from deeptrain.runtime.files import write_atomically

    room.check_packages(options.to)
    path = _target(options, run_dir, room.SUFFIXES[options.to])
    network = load(command.names[0], [*command.overrides, "device=cpu", "precision=fp32"])
    if options.temperature:
        network.calibration = None
    pixels = _pictures(command, network, run_dir, checkpoint)
    page = path.with_name(f"{path.name}.md")
    try:
        parity = room.export(network, options.to, path, pixels)
        card = model_card.compose(network, options.to, path, room.metadata(network), parity, _measured(run_dir))
        write_atomically(page, card.encode())
    except OSError as error:
        raise UsageError([f"file={path}: cannot be written ({error.strerror}); name another file"]) from error
    terminal.show(
        f"file    {path} ({path.stat().st_size / 1e6:.1f} MB)",
        f"card    {page}",
        f"parity  {parity}",
    )
    return 0


def _target(options: Options, run_dir: Path, suffix: str) -> Path:
    """Return the file to write; UsageError if it cannot be one."""
    from deeptrain.errors import UsageError

    if options.file is None:
        return run_dir / f"model{suffix}"
    try:
        path = read_path(options.file)
    except ValueError as error:
        raise UsageError([f"file={options.file}: {error}"]) from error
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a folder" if path.is_dir() else "its folder does not exist"
        raise UsageError([f"file={options.file}: {reason}; name a file, such as model{suffix}"])
    return path


def _pictures(command: "Words", network: "Predictor", run_dir: Path, checkpoint: Path) -> "np.ndarray":
    """Return pictures to compare on, uint8 (N, H, W, C): of the folder that is named, or some of val."""
    import numpy as np

    from deeptrain.errors import UsageError

    if command.options.pictures is not None:
        from deeptrain.inference.pictures import decode_picture, expand

        try:
            found = [decode_picture(network.decoder, picture) for picture in expand(command.options.pictures)]
        except ValueError as error:
            raise UsageError([f"pictures={command.options.pictures}: {error}"]) from error
        read = [image for image in found[:PARITY_IMAGES] if not isinstance(image, str)]
        if not read:
            raise UsageError([f"pictures={command.options.pictures}: none of them can be read"])
        return np.stack(read)
    from deeptrain.config.compose import compose_run
    from deeptrain.inference.evaluate import open_split
    from deeptrain.inference.mistakes import pixels_of
    from deeptrain.run import defaults

    run = compose_run([*defaults.load_overrides(run_dir, command.overrides), *command.overrides, "device=cpu"])
    try:
        samples = open_split(run, checkpoint, "val", command.overrides).samples.evenly_spaced(PARITY_IMAGES)
    except UsageError as error:
        lines = [f"{line} (or write pictures=FOLDER, to compare the file on those)" for line in error.lines]
        raise UsageError(lines) from error
    return np.stack([pixels_of(samples, index) for index in range(len(samples))])


def _measured(run_dir: Path) -> dict[str, str]:
    """Return what the last evaluation of each split has found, as text."""
    from deeptrain.run.saved import read_json

    found = {}
    for entry in read_json(run_dir / "evaluation.json", list, []):
        metrics = entry.get("metrics") if isinstance(entry, dict) else None
        if isinstance(metrics, dict) and isinstance(metrics.get("accuracy"), float) and not entry.get("changed"):
            text = f"accuracy {100 * metrics['accuracy']:.2f} % of {entry.get('images')} images"
            found[str(entry.get("split"))] = text
    return found
