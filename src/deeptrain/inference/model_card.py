"""The page beside an exported file: what it is, what it was measured on, and lines of Python that use it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deeptrain.data.decode import Decoder
from deeptrain.data.pixels import WHITE
from deeptrain.inference.predictor import Predictor

MAX_CLASSES = 40  # that are listed
MEASURED = ("accuracy", "top5", "loss")

READ = """\
def read(path):
    \"\"\"Return a picture as the network takes it: uint8 ({height}, {width}, {channels}).\"\"\"
    image = Image.open(path)
    {draft}image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, {background}), image)
    image = image.convert("{mode}")
{resize}
    return np.asarray(image).reshape({height}, {width}, {channels})
"""
DRAFT = """\
scale = {detail} / min(image.size)
    if scale <= 0.5:  # a large JPEG is read in less detail
        image.draft(None, (int(image.width * scale), int(image.height * scale)))
    """
WINDOW = """\
    left, top = round((image.width * across - {width}) / 2), round((image.height * down - {height}) / 2)
    box = (left / across, top / down, (left + {width}) / across, (top + {height}) / down)
    box = (max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height))
    image = image.resize(({width}, {height}), Image.Resampling.{resampling}, box=box)"""
ONNX = """\
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


{read}

session = onnxruntime.InferenceSession({file!r})
facts = {{name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}}
(logits,) = session.run(None, {{"pixels": np.stack([read(path) for path in sys.argv[1:]])}})
{answer}"""
TORCH_EXPORT = """\
import json
import sys

import numpy as np
import torch
from PIL import Image, ImageOps


{read}

kept = {{"deeptrain.json": ""}}
network = torch.export.load({file!r}, extra_files=kept).module()  # only of a file that you trust
facts = {{name: json.loads(text) for name, text in json.loads(kept["deeptrain.json"]).items()}}
with torch.no_grad():
    logits = network(torch.from_numpy(np.stack([read(path) for path in sys.argv[1:]]))).numpy()
{answer}"""
SAFETENSORS = """\
import json

from safetensors import safe_open

with safe_open({file!r}, "numpy") as file:
    facts = {{name: json.loads(text) for name, text in file.metadata().items()}}
    for name in file.keys():
        print(name, file.get_tensor(name).shape)
print(facts["classes"])
"""
SOFTMAX = """\
scores = logits.astype(np.float64) / facts["temperature"]
shares = np.exp(scores - scores.max(1, keepdims=True))
shares /= shares.sum(1, keepdims=True)
"""
SIGMOID = """\
shares = 1 / (1 + np.exp(-logits.astype(np.float64) / facts["temperature"]))
"""
SHOW = """\
for path, share in zip(sys.argv[1:], shares):
    print(path, facts["classes"][share.argmax()], f"{share.max():.4f}")
"""
SNIPPETS = {"onnx": ONNX, "torch_export": TORCH_EXPORT, "safetensors": SAFETENSORS}
NEEDED = {
    "onnx": "onnxruntime, numpy and Pillow",
    "torch_export": "torch, numpy and Pillow",
    "safetensors": "safetensors",
}
TRUST = {
    "onnx": "An ONNX file holds no code of ours. It may be passed on.",
    "torch_export": "A .pt2 file can run code when it is loaded. Open it only if you made it yourself; pass on ONNX.",
    "safetensors": "A safetensors file holds numbers and text only. It may be passed on.",
}


def compose(
    network: Predictor, to: str, file: Path, facts: Mapping[str, str], parity: Any, measured: Mapping[str, Any]
) -> str:
    """Return the page in Markdown. measured: what evaluations have found, by split."""
    decoder = network.decoder
    classes, temperature = network.classes, float(facts["temperature"])
    more = f" and {len(classes) - MAX_CLASSES:,} more" if len(classes) > MAX_CLASSES else ""
    rows = [
        ("classes", f"{len(classes):,}: {', '.join(classes[:MAX_CLASSES])}{more}"),
        ("input", f"`pixels`, uint8 (N, {decoder.height}, {decoder.width}, {decoder.channels}), from 0 to 255"),
        ("output", f"`logits`, float32 (N, {len(classes)})"),
        ("inside", "normalisation, then the network in float32"),
        ("outside", f"resizing: {describe_resize(decoder)}"),
        ("probabilities", _describe_probabilities(network, facts, temperature)),
        ("parity", str(parity)),
        ("weights", f"`{json.loads(facts['weights'])}`"),
        ("versions", ", ".join(f"{name} {version}" for name, version in json.loads(facts["versions"]).items())),
        *((f"measured on {split}", text) for split, text in measured.items()),
    ]
    table = "\n".join(f"| {name} | {text.replace('|', '/')} |" for name, text in rows)
    title = f"# {file.name}\n\nA classifier of pictures, trained and exported by deeptrain."
    use = f"## Use\n\nSave this as `use.py` beside the file; it needs {NEEDED[to]}. Then: `python use.py PICTURE ...`"
    deep = "\n\nDeep pictures (more than 8 bits) need their range first; `resize` has it." if decoder.ranges else ""
    code = f"```python\n{snippet(network, to, file)}```"
    return "\n\n".join([title, f"| | |\n|---|---|\n{table}", f"{use}{deep}", code, TRUST[to]]) + "\n"


def snippet(network: Predictor, to: str, file: Path) -> str:
    """Return the lines of Python that use an exported file."""
    answer = (SIGMOID if network.loss == "BCE" else SOFTMAX) + SHOW
    return SNIPPETS[to].format(read=_read(network.decoder), file=file.name, answer=answer)


def describe_resize(decoder: Decoder) -> str:
    """Say how a picture becomes an input."""
    size = f"{decoder.height}x{decoder.width}"
    short = f"short side to {decoder.short_side}, then " if decoder.short_side else ""
    return {
        "crop": f"{short}the middle {size}",
        "fit": f"the middle {size}",
        "pad": f"padded, {short}{size}",
        "squash": f"squashed, {short}{size}",
    }[decoder.resize]


def _describe_probabilities(network: Predictor, facts: Mapping[str, str], temperature: float) -> str:
    kind = json.loads(facts["probabilities"])
    if not json.loads(facts["has_probabilities"]):
        return f"none: the loss {network.loss} gives scores, and the {kind} only puts classes in order"
    source = f", {network.calibration.source}" if network.calibration else ""
    return f"{kind} of the logits divided by the temperature {temperature:.4g}{source}"


def _read(decoder: Decoder) -> str:
    """Return the function that reads a picture as `Decoder.decode_center` does."""
    size = {"height": decoder.height, "width": decoder.width, "channels": decoder.channels}
    detail = None if decoder.resize == "fit" else decoder.short_side or max(decoder.height, decoder.width)
    color = (*(decoder.background or WHITE), 255)
    return READ.format(
        **size,
        draft=DRAFT.format(detail=detail) if detail else "",
        background=color,
        mode="RGB" if decoder.channels == 3 else "L",
        resize=_resize(decoder),
    )


def _resize(decoder: Decoder) -> str:
    """Return the lines that resize an image and cut the window out of it."""
    height, width, short = decoder.height, decoder.width, decoder.short_side
    resampling = decoder.interpolation.upper()
    if decoder.resize == "fit":
        return f"    image = ImageOps.fit(image, ({width}, {height}), Image.Resampling.{resampling})"
    grow = short / min(width, height) if short else 1
    wide, tall = round(width * grow), round(height * grow)
    if decoder.resize == "crop":
        scale = f"{short} / min(image.size)" if short else f"max({width} / image.width, {height} / image.height)"
        lines = f"    across = down = {scale}"
    elif decoder.resize == "squash":
        lines = f"    across, down = {wide} / image.width, {tall} / image.height"
    else:
        color = decoder.background or WHITE
        lines = "\n".join(
            [
                f"    scale = min({wide} / image.width, {tall} / image.height)",
                "    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)",
                f'    canvas = Image.new("RGB", ({wide}, {tall}), {color}).convert(image.mode)',
                f"    corner = ({wide} - size[0]) // 2, ({tall} - size[1]) // 2",
                f"    canvas.paste(image.resize(size, Image.Resampling.{resampling}), corner)",
                "    image, across, down = canvas, 1, 1",
            ]
        )
    return f"{lines}\n{WINDOW.format(height=height, width=width, resampling=resampling)}"
