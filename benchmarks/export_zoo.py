"""Every network of ours through ONNX and torch.export, with every pipeline: how far the files are from the network.

The pictures are those of a folder (--pictures); batch-norm statistics come from them.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from deeptrain.aug.pipeline import Pipeline
from deeptrain.aug.whitening import Whitening
from deeptrain.config.compose import compose_run
from deeptrain.config.instantiate import instantiate
from deeptrain.data.decode import Decoder
from deeptrain.errors import UsageError
from deeptrain.inference.export import export
from deeptrain.inference.pictures import list_pictures
from deeptrain.inference.predictor import Predictor
from deeptrain.runtime.device import Runtime

SMALL, LARGE = (3, 32, 32), (3, 224, 224)
NETS = {  # what is typed, and the input
    "fcn": (["model=fcn"], SMALL),
    "fcn maxout dropconnect": (["model=fcn", "model.activation=maxout", "model.drop_connect=0.5"], SMALL),
    "fcn quick_gelu layer": (["model=fcn", "model.activation=quick_gelu", "model.norm=layer"], SMALL),
    "alexnet": (["model=alexnet"], SMALL),
    "alexnet fractional, 3 draws": (["model=alexnet", "model.pool=fractional", "model.test_samples=3"], SMALL),
    "alexnet 224": (["model=alexnet"], LARGE),
    "vgg": (["model=vgg"], SMALL),
    "vgg average": (["model=vgg", "model.pool=average"], SMALL),
    "vgg fractional": (["model=vgg", "model.pool=fractional"], SMALL),
    "resnet": (["model=resnet"], SMALL),
    "resnet 20 stochastic depth": (["model=resnet", "model.depth=20", "model.stochastic_depth=0.5"], SMALL),
    "resnet 20 group norm": (["model=resnet", "model.depth=20", "model.norm=group"], SMALL),
    "resnet 18 at 224": (["model=resnet", "model.depth=18"], LARGE),
    "preact_resnet": (["model=preact_resnet"], SMALL),
    "wide_resnet dropout": (["model=wide_resnet", "model.dropout=0.3"], SMALL),
    "rnn elman": (["model=rnn"], SMALL),
    "rnn gru, 2 layers": (["model=rnn", "model.cell=gru", "model.layers=2"], SMALL),
    "rnn lstm": (["model=rnn", "model.cell=lstm"], SMALL),
}
WHITENED = 8000  # images that a whitening is fitted on
PIPELINES = ("normalise", "subtract image mean", "whiten", "both")


def pipeline(kind: str, images: torch.Tensor) -> Pipeline:
    """Return a pipeline with the statistics of images (N, C, H, W)."""
    pixels = images.double()
    mean, std = pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).tolist()
    made = Pipeline([], mean, std, kind in ("subtract image mean", "both"))
    if kind in ("whiten", "both"):
        made.whitening = Whitening.fit(made.evaluate(images), "zca", 0.01)
    return made


def network(words: list[str], shape: tuple[int, int, int]) -> torch.nn.Module:
    torch.manual_seed(0)
    facts = {"input_shape": shape, "num_classes": 10}
    return Runtime().to_device(instantiate("model", compose_run(words).parts["model"], **facts))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", required=True, help="a folder of pictures")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="one network and pipeline: does it run at all?")
    parser.add_argument("--formats", nargs="*", default=["torch_export", "onnx", "safetensors"])
    parser.add_argument("--pipelines", nargs="*", default=PIPELINES, choices=PIPELINES)
    options = parser.parse_args(words)
    found = list_pictures(Path(options.pictures))
    files = [found[index] for index in np.linspace(0, len(found) - 1, options.images).astype(int)]
    print("| network | pipeline | format | largest difference of a logit | other labels | MB | CPU-s |")
    print("|---|---|---|---|---|---|---|")
    for name, (settings, shape) in list(NETS.items())[: 1 if options.quick else None]:
        decoder, large = Decoder(*shape[1:], shape[0]), shape == LARGE
        pixels = np.stack([decoder.decode_center(path) for path in files[: 100 if large else None]])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        kinds = PIPELINES if name == "fcn" and not options.quick else PIPELINES[: 1 if large or options.quick else 2]
        for kind in (kind for kind in kinds if kind in options.pipelines):
            fitted = images
            if kind in ("whiten", "both"):  # a matrix of 3072 x 3072 needs more images than it has rows
                more = np.stack([decoder.decode_center(path) for path in found[:: max(1, len(found) // WHITENED)]])
                fitted = torch.from_numpy(more).permute(0, 3, 1, 2)
            model, inputs = network(settings, shape), pipeline(kind, fitted)
            with torch.no_grad():
                model.train()(inputs.evaluate(images[:64]))  # the statistics of batch norms
            one = Predictor(model.eval(), inputs, decoder, [str(index) for index in range(10)], Runtime())
            for to in options.formats:
                with tempfile.TemporaryDirectory() as folder:
                    path, start = Path(folder) / "model", time.process_time()
                    try:
                        parity = export(one, to, path, pixels)
                    except UsageError as error:
                        print(f"| {name} | {kind} | {to} | {error.lines[0]} | | | |", flush=True)
                        continue
                    seconds, size = time.process_time() - start, path.stat().st_size / 1e6
                numbers = (
                    f"{parity.difference:.1e} | {parity.other_labels} of {parity.images} | {size:.1f} | {seconds:.1f}"
                )
                print(f"| {name} | {kind} | {to} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
