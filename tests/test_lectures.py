"""The worked numbers of the two lectures that this project teaches hold in its code, line by line, in their order.

Left out because what they are about is not built yet: ten crops at five scales, model ensembles, random search over
hyper-parameters, the ratio of update to weight, reading curves, losses as a scatter with a moving average, transfer
learning, and the rate that grows in proportion to the batch.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor, nn

from deeptrain import build
from deeptrain.aug.color_jitter import ColorJitter
from deeptrain.aug.cutmix import CutMix
from deeptrain.aug.mixup import Mixup, mix_targets
from deeptrain.aug.operations import OPERATION_NAMES
from deeptrain.aug.pca_jitter import PCAJitter
from deeptrain.config.compose import compose_run, compose_sweep
from deeptrain.data.decode import Decoder
from deeptrain.data.image_files import RESNET_CROP, RESNET_EVAL_SIDE, RESNET_TRAIN_SIDES
from deeptrain.data.image_folder import ImageFolder
from deeptrain.loss import BCE, MSE, CrossEntropy, Hinge, Perceptron
from deeptrain.model.alexnet import AlexNet
from deeptrain.model.fcn import FCN
from deeptrain.model.layers import ACTIVATIONS, DropConnect, StochasticDepth, convolution
from deeptrain.model.pooling import Pooling
from deeptrain.model.preact_resnet import PreActResNet
from deeptrain.model.resnet import ResNet
from deeptrain.model.rnn import RNN
from deeptrain.model.vgg import VGG
from deeptrain.model.wide_resnet import WideResNet
from deeptrain.optimizer import parameter_groups, sgd
from deeptrain.penalty import L1, L2, Elastic
from deeptrain.runtime.random import generator
from deeptrain.schedule import constant, cosine, inverse_sqrt, linear, step
from deeptrain.training.recovery import TrainingFailed, fit
from deeptrain.training.trainer import Trainer

TINY = ["data=synthetic", "data.shape=[1,8,8]", "data.val_fraction=0.5", "model=fcn", "validate.clean_images=8"]
PLAIN = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}  # gradient descent and nothing else
TRUTH = {"and": [0, 0, 0, 1], "or": [0, 1, 1, 1], "xor": [0, 1, 1, 0]}
PAIRS = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])


def trainer_of(*words: str) -> Trainer:
    return build.trainer(build.open_setup(compose_run([*TINY, *words])))


# --- perceptron and backpropagation ---


def passes_until_right(inputs: Tensor, labels: Tensor, limit: int = 100) -> list[int]:
    """Train a threshold unit an example at a time; return the mistakes of each pass, up to the first without.

    Its two logits are w·x + b and 0 in effect: w += η (y - ŷ) x is what descent on the perceptron's loss does.
    """
    torch.manual_seed(0)
    unit, loss = FCN((1, 1, inputs.shape[1]), 2, hidden=[]), Perceptron()
    optimizer = sgd(parameter_groups(unit), lr=0.1, **PLAIN)
    mistakes = []
    while len(mistakes) < limit and (not mistakes or mistakes[-1]):
        mistakes.append(0)
        for x, y in zip(inputs[:, None, None], labels, strict=True):
            logits = unit(x[None])
            mistakes[-1] += int(logits.argmax() != y)
            optimizer.zero_grad()
            loss(logits, y[None]).backward()
            optimizer.step()
    return mistakes


@pytest.mark.parametrize("name", ["and", "or"])
def test_a_threshold_unit_learns_and_and_or(name):
    assert passes_until_right(PAIRS, torch.tensor(TRUTH[name]))[-1] == 0


def test_a_threshold_unit_learns_not():
    assert passes_until_right(torch.tensor([[0.0], [1.0]]), torch.tensor([1, 0]))[-1] == 0


def test_a_threshold_unit_cannot_learn_xor():
    mistakes = passes_until_right(PAIRS, torch.tensor(TRUTH["xor"]))
    assert len(mistakes) == 100 and min(mistakes) > 0, "it is wrong somewhere in every pass: the weights oscillate"


def test_the_rule_is_the_perceptrons():
    """w += η (y - ŷ) x: on a mistake the right class's weights gain η x and those of the class said lose it."""
    unit = FCN((1, 1, 2), 2, hidden=[])
    linear_layer, x = unit.layers[0], torch.tensor([0.5, -1.5])
    with torch.no_grad():
        linear_layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    optimizer = sgd(parameter_groups(unit), lr=0.1, **PLAIN)
    Perceptron()(unit(x.view(1, 1, 1, 2)), torch.tensor([1])).backward()
    optimizer.step()
    torch.testing.assert_close(linear_layer.weight, torch.tensor([[1 - 0.05, 0.15], [0.05, -0.15]]))


def test_xor_by_hand():
    """h = max(0, [[1,1],[1,1]] x + [0,-1]), y = [1,-2]·h - 0.5."""
    net = FCN((1, 1, 2), 1, hidden=[2])
    first, _, second = net.layers
    with torch.no_grad():
        first.weight.fill_(1)
        first.bias.copy_(torch.tensor([0.0, -1.0]))
        second.weight.copy_(torch.tensor([[1.0, -2.0]]))
        second.bias.fill_(-0.5)
    assert (net(PAIRS.view(4, 1, 1, 2)) > 0).int().flatten().tolist() == TRUTH["xor"]


def test_the_worked_backpropagation_step():
    net, loss = FCN((1, 1, 2), 1, hidden=[2], activation="sigmoid"), MSE(output="sigmoid")
    first, _, second = net.layers
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[0.1, 0.8], [0.4, 0.6]]))
        second.weight.copy_(torch.tensor([[0.3, 0.9]]))
    for layer in (first, second):
        layer.bias.requires_grad_(False)  # without bias; they are 0
    x, target = torch.tensor([0.35, 0.9]).view(1, 1, 1, 2), torch.tensor([[0.5]])
    near = {"rtol": 0, "atol": 6e-5}

    def forward() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        nets = first(x.flatten(1))
        hidden = nets.sigmoid()
        return nets[0], hidden[0], second(hidden)[0], net(x).sigmoid()[0]

    nets, hidden, output_net, output = forward()
    torch.testing.assert_close(nets, torch.tensor([0.755, 0.68]), **near)
    torch.testing.assert_close(hidden, torch.tensor([0.68, 0.6637]), rtol=0, atol=3e-4)
    torch.testing.assert_close(output_net, torch.tensor([0.80133]), rtol=0, atol=2e-4)
    torch.testing.assert_close(output, torch.tensor([0.69]), rtol=0, atol=5e-4)
    optimizer = sgd(parameter_groups(net), lr=1.0, **PLAIN)
    loss(net(x), target).backward()
    term = (target - output) * (1 - output) * output
    assert term.item() == pytest.approx(-0.0406, abs=2e-4)
    terms = first.weight.grad[:, 0] / -0.35  # -gradient = term · input
    torch.testing.assert_close(terms, torch.tensor([-2.650e-3, -8.156e-3]), rtol=0.01, atol=0)
    optimizer.step()
    torch.testing.assert_close(second.weight.detach(), torch.tensor([[0.2724, 0.8731]]), rtol=0, atol=1.5e-4)
    torch.testing.assert_close(first.weight.detach(), torch.tensor([[0.0991, 0.7976], [0.3971, 0.5927]]), **near)
    nets, hidden, _, after = forward()
    torch.testing.assert_close(nets, torch.tensor([0.7525, 0.6724]), rtol=0, atol=2e-4)
    torch.testing.assert_close(hidden, torch.tensor([0.6797, 0.6620]), rtol=0, atol=2e-4)
    assert after.item() == pytest.approx(0.682, abs=5e-4)
    assert abs(0.5 - output.item()) == pytest.approx(0.19, abs=1e-3)
    assert abs(0.5 - after.item()) == pytest.approx(0.182, abs=5e-4)


@pytest.mark.parametrize(("d", "q", "l"), [(2, 2, 1), (8, 5, 3), (12, 1, 10)])
def test_parameters_of_one_hidden_layer(d, q, l):  # noqa: E741 (the lecture's names)
    net = FCN((1, 1, d), l, hidden=[q])
    assert sum(parameter.numel() for parameter in net.parameters()) == (d + l + 1) * q + l


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 40), (40, 1), (8, 5)])
def test_standard_accumulated_and_mini_batch_backpropagation(batch_size, steps):
    """One example a step, the whole set a step, and in between: all are batch_size."""
    trainer = trainer_of("data.size=80", f"batch_size={batch_size}", "epochs=1", "model.hidden=[4]")
    trainer.fit()
    assert trainer.progress.step == steps and trainer.progress.epoch == 1


def test_accumulated_backpropagation_is_the_mean_of_standard_steps_gradients():
    torch.manual_seed(0)
    net, loss = FCN((1, 1, 6), 3, hidden=[5], activation="tanh"), CrossEntropy()
    images, labels = torch.randn(7, 1, 1, 6), torch.randint(3, (7,))
    whole = torch.autograd.grad(loss(net(images), labels), list(net.parameters()))
    singles = [torch.autograd.grad(loss(net(images[[i]]), labels[[i]]), list(net.parameters())) for i in range(7)]
    for accumulated, parts in zip(whole, zip(*singles, strict=True), strict=True):
        torch.testing.assert_close(accumulated, torch.stack(parts).mean(0))


@pytest.mark.parametrize("size", [1e3, 1e6, 3e38])
def test_softmax_does_not_overflow(size):
    logits = torch.tensor([[size, -size, 0.0]], requires_grad=True)
    loss = CrossEntropy()(logits, torch.tensor([0]))
    assert loss.item() == 0
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_gradient_of_log_softmax():
    """e_i - softmax(x)."""
    logits = torch.tensor([[0.3, -1.2, 2.0, 0.7]], requires_grad=True)
    CrossEntropy()(logits, torch.tensor([2])).backward()
    torch.testing.assert_close(-logits.grad, torch.eye(4)[[2]] - logits.detach().softmax(1))


# --- activations and losses ---

FORMULAS = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
    "relu": lambda x: max(0.0, x),
    "leaky_relu": lambda x: max(0.1 * x, x),
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "softplus": lambda x: math.log(1 + math.exp(x)),
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_activations(name):
    xs = [-3.0, -0.5, 0.0, 0.4, 2.5]
    wanted = torch.tensor([[FORMULAS[name](x) for x in xs]])
    torch.testing.assert_close(ACTIVATIONS[name]()(torch.tensor([xs])), wanted)


def test_maxout_is_the_larger_of_two_affine_maps():
    torch.manual_seed(0)
    net, x = FCN((1, 1, 3), 1, hidden=[4], activation="maxout"), torch.randn(5, 1, 1, 3)
    affine = net.layers[0](x.flatten(1))
    assert torch.equal(net.layers[:2](x.flatten(1)), torch.maximum(affine[:, :4], affine[:, 4:]))


def test_gelu_is_about_x_sigmoid_of_1_702_x():
    x = torch.linspace(-6, 6, 1000)[None]
    assert (ACTIVATIONS["gelu"]()(x) - ACTIVATIONS["quick_gelu"]()(x)).abs().max() < 0.021


def test_losses():
    y, d = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[0.2, 0.5, 0.3]])
    assert MSE()(y, d).item() == pytest.approx(0.5 * (1.8**2 + 1.5**2 + 0.2**2))
    total = math.exp(2) + math.exp(-1) + math.exp(0.5)
    probabilities = [math.exp(score) / total for score in (2, -1, 0.5)]
    cross = -sum(q * math.log(p) for q, p in zip((0.2, 0.5, 0.3), probabilities, strict=True))
    assert CrossEntropy()(y, d).item() == pytest.approx(cross)
    binary = sum(-q * math.log(p) - (1 - q) * math.log(1 - p) for q, p in [(0.2, 0.880797), (0.5, 0.268941)])
    binary += -0.3 * math.log(0.622459) - 0.7 * math.log(1 - 0.622459)
    assert BCE()(y, d).item() == pytest.approx(binary, rel=1e-5)
    scores = torch.tensor([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0]])
    hinge = [max(0, 5.1 - 3.2 + 1) + max(0, -1.7 - 3.2 + 1), max(0, 1.3 - 4.9 + 1) + max(0, 2.0 - 4.9 + 1)]
    assert Hinge()(scores, torch.tensor([0, 1])).item() == pytest.approx(sum(hinge) / 2)


# --- convolution and pooling ---


@pytest.mark.parametrize(("stride", "size"), [(1, 5), (2, 3)])
def test_output_size_of_a_convolution(stride, size):
    layer = convolution(1, 1, 3, stride=stride, padding=0)[0]
    assert layer(torch.zeros(1, 1, 7, 7)).shape[2:] == (size, size)


def test_a_filter_that_does_not_fit_is_refused():
    """Seven pixels, a filter of 3 at stride 3: (7 - 3)/3 + 1 = 2.33."""
    with pytest.raises(ValueError, match="patch_size=3: must divide the image"):
        ResNet((1, 7, 7), 10, stem="patch", patch_size=3)


def test_convolution_is_cross_correlation():
    layer = convolution(1, 1, 3, padding=0)[0]
    image = torch.randn(1, 1, 3, 3)
    torch.testing.assert_close(layer(image).flatten(), (layer.weight * image).sum().view(1))
    assert not torch.allclose(layer(image), (layer.weight.flip(2, 3) * image).sum())


def test_max_pooling():
    image = torch.tensor([[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    assert Pooling().layer(2, index=0)(image[None, None])[0, 0].tolist() == [[6, 8], [3, 4]]


# --- regularization ---


def test_penalties():
    weights = [torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5], [-0.5]])]
    absolute, squared = 1 + 2 + 0.5 + 0.5, 1 + 4 + 0.25 + 0.25
    assert sum(L2(strength=0.1)(weights).values()).item() == pytest.approx(0.1 * squared)
    assert sum(L1(strength=0.1)(weights).values()).item() == pytest.approx(0.1 * absolute)
    elastic = Elastic(strength=0.1, beta=0.3)(weights)
    assert sum(elastic.values()).item() == pytest.approx(0.1 * (0.3 * squared + absolute))


def test_dropout_of_two_inputs():
    """a = w1 x + w2 y with p = ½: E[a] = ½ (w1 x + w2 y); inverted dropout doubles what is kept, so that testing
    neither drops nor scales. The four masks are equally likely."""
    torch.manual_seed(0)
    dropout, products = nn.Dropout(0.5), torch.tensor([3.0, 5.0])  # w1 x and w2 y
    seen = torch.stack([dropout(products) for _ in range(4000)])
    sums = seen.sum(1)
    assert set(sums.tolist()) == {0.0, 2 * 3.0, 2 * 5.0, 2 * 8.0}
    for mask, value in zip(itertools.product((0, 1), repeat=2), (0.0, 10.0, 6.0, 16.0), strict=True):
        share = (sums == value).float().mean().item()
        assert share == pytest.approx(0.25, abs=0.03), mask
    exact = sum((mask[0] * 3 + mask[1] * 5) / 4 for mask in itertools.product((0, 1), repeat=2))
    assert exact == 0.5 * (3 + 5), "without the division, testing would have to scale by p"
    assert sums.mean().item() == pytest.approx(2 * exact, rel=0.03)
    assert torch.equal(dropout.eval()(products), products)


@pytest.mark.parametrize("model", [AlexNet, VGG])
def test_alexnet_and_vgg_drop_in_their_fully_connected_layers(model):
    net = model((3, 32, 32), 10)
    assert any(isinstance(layer, nn.Dropout) for layer in net.classifier)
    assert not any(isinstance(layer, nn.Dropout) for layer in net.features.modules())


@pytest.mark.parametrize("model", [ResNet, PreActResNet, WideResNet])
def test_resnet_and_later_have_no_dropout(model):
    layers = list(model((3, 32, 32), 10).modules())
    assert not any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in layers)


def test_batch_norm_and_weight_decay_alone_regularize_a_default_run():
    run = compose_run(["data=synthetic", "data.shape=[3,8,8]", "data.size=80"])
    trainer = build.trainer(build.open_setup(run))
    layers = list(trainer.model.modules())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    assert trainer.optimizer.param_groups[0]["weight_decay"] > 0
    assert trainer.penalty is None and not any(isinstance(layer, nn.Dropout) for layer in layers)
    assert all(layer.rate == 0 for layer in layers if isinstance(layer, StochasticDepth))
    assert not trainer.pipeline.augmentations and trainer.loss.label_smoothing == 0


RANDOM = {
    "dropout": lambda: nn.Dropout(0.5),
    "batch norm": lambda: nn.BatchNorm1d(6),
    "DropConnect": lambda: DropConnect(6, 6, 0.5),
    "fractional max pooling": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 1, 6)),
        nn.Upsample(size=(9, 9)),
        Pooling("fractional").layer(2, index=0),
        nn.Flatten(),
    ),
    "stochastic depth": lambda: Residual(),
}


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.branch, self.drop = nn.Linear(6, 6), StochasticDepth(0.5, "sample")

    def forward(self, x: Tensor) -> Tensor:
        maps = x[:, :, None, None]
        return self.drop(lambda y: self.branch(y.flatten(1))[:, :, None, None], maps, maps)


@pytest.mark.parametrize("name", RANDOM)
def test_training_adds_randomness_and_testing_averages_it_out(name):
    """In training an image's output depends on chance or on its company; in testing on neither."""
    torch.manual_seed(0)
    layer, images = RANDOM[name](), torch.randn(16, 6)
    with torch.no_grad():
        first, second = layer(images)[:8], layer(torch.cat([images[:8], images[:8] + 1]))[:8]
        assert not torch.allclose(first, second)
        layer.eval()
        torch.testing.assert_close(layer(images)[:8], layer(images[:8]))


@pytest.mark.parametrize("aug", ["cutout", "random_erasing", "mixup", "cutmix", "color_jitter"])
def test_augmentation_is_for_training_only(aug):
    setup = build.open_setup(compose_run([*TINY, "data.shape=[3,8,8]", f"aug={aug}"]))
    images, labels = next(iter(build.train_loader(setup).epoch(0)))
    seen, _ = setup.pipeline.train(images, labels, np.random.default_rng(0))
    assert not torch.equal(seen, setup.pipeline.evaluate(images))
    assert torch.equal(setup.pipeline.evaluate(images), setup.pipeline.evaluate(images.clone()))


def test_the_training_crop_of_resnet(tmp_path):
    """Of large pictures: a short side drawn from 256 to 480, and a window of 224 pixels somewhere in it."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(4):
            pixels = np.full((300, 400, 3), (10 * index, 20, 30), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    dataset = ImageFolder(str(tmp_path)).load(tmp_path / "cache")
    assert dataset.image_shape == (3, 224, 224)
    assert (RESNET_CROP, RESNET_EVAL_SIDE, RESNET_TRAIN_SIDES) == (224, 256, (256, 480))
    assert dataset.train.decoder.short_side_range == (256, 480)


def test_the_draws_of_the_training_crop_of_resnet(tmp_path, monkeypatch):
    """L is any whole number from 256 to 480, both included, and the window lies anywhere in the resized picture."""
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "picture.png")
    drawn, box = [], (0, 0, 4, 4)
    monkeypatch.setattr(
        Decoder, "_box", lambda self, image, across, down, left, top: drawn.append((across, left, top)) or box
    )
    decoder = Decoder(224, 224, 3, RESNET_EVAL_SIDE, RESNET_TRAIN_SIDES)
    for epoch in range(6000):
        decoder.decode_random(tmp_path / "picture.png", generator(0, "sample", epoch, 0))
    scale, left, top = np.array(drawn).T
    short = np.round(30 * scale).astype(int)
    assert (short.min(), short.max()) == (256, 480)
    assert stats.chisquare(np.bincount(short - 256, minlength=225)).pvalue > 1e-3
    rng = np.random.default_rng(0)
    for start, side in ((left, np.round(40 * scale)), (top, short)):
        assert start.min() == 0 and (start <= side - 224).all() and (start == side - 224).any()
        assert stats.kstest((start + rng.random(len(start))) / (side - 224 + 1), "uniform").pvalue > 1e-3


def test_colour_jitter_changes_brightness_and_contrast():
    image = torch.tensor([50.0, 100.0, 150.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3).contiguous()
    rng = np.random.default_rng(0)
    brighter, _ = ColorJitter(brightness=0.4, contrast=0, saturation=0)(image, torch.tensor([0]), rng)
    torch.testing.assert_close(brighter / image, (brighter / image)[:, :1, :, :1].expand_as(image))
    flatter, _ = ColorJitter(brightness=0, contrast=0.4, saturation=0)(image, torch.tensor([0]), rng)
    factor = (flatter[0, 0, 0] - flatter[0, 0, 0].mean()) / (image[0, 0, 0] - 100)
    assert factor[0] == pytest.approx(factor[2].item()) and factor[0] != 1


def test_pca_jitter_offsets_along_the_principal_directions():
    """All RGB pixels of train have their principal directions; one offset along them is added to every pixel."""
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(1000, 3)) @ np.array([[30.0, 30, 30], [0, 8, -8], [2, -1, -1]])
    jitter = PCAJitter(np.cov(pixels.T).tolist(), strength=0.1)
    images = torch.full((200, 3, 4, 4), 128.0)
    offsets = jitter(images, torch.zeros(200), rng)[0] - images
    assert torch.allclose(offsets, offsets[:, :, :1, :1].expand_as(offsets), atol=1e-4)
    variances, directions = np.linalg.eigh(np.cov(pixels.T))
    along = offsets[:, :, 0, 0].numpy() @ directions
    assert along.std(0) == pytest.approx(0.1 * np.sqrt(variances), rel=0.15)


def test_the_operations_of_randaugment():
    lecture = "Identity AutoContrast Equalize Rotate Solarize Color Posterize Contrast Brightness Sharpness"
    lecture += " ShearX ShearY TranslateX TranslateY"
    assert sorted(OPERATION_NAMES) == sorted(lecture.split())


def test_mixup_of_pretzels_and_robot():
    """60 % pretzels and 40 % robot have the target (0.6, 0.4)."""
    mixed = mix_targets(torch.tensor([0, 1]), torch.tensor([0.4, 0.0]), 2)
    torch.testing.assert_close(mixed[0], torch.tensor([0.6, 0.4]))


def test_the_blend_of_pretzels_and_robot():
    """Each pixel is 0.6 times the pretzels' and 0.4 times the robot's."""

    class Drawn:
        def beta(self, a: float, b: float, size: None) -> float:
            return 0.6

    images = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    blends, targets = Mixup(2)(images, torch.tensor([0, 1]), Drawn())
    pretzels, robot = images.float()
    torch.testing.assert_close(blends, torch.stack([0.6 * pretzels + 0.4 * robot, 0.6 * robot + 0.4 * pretzels]))
    torch.testing.assert_close(targets, torch.tensor([[0.6, 0.4], [0.4, 0.6]]))


def test_mixups_weights_are_near_0_or_1_for_a_small_parameter():
    images, targets = torch.zeros(4000, 1, 1, 1, dtype=torch.uint8), torch.arange(4000) % 2
    mixed = Mixup(2, alpha=0.1, per_image=True)(images, targets, np.random.default_rng(0))[1]
    assert ((mixed.min(1).values < 0.05).float().mean() > 0.7) and (mixed.sum(1) - 1).abs().max() < 1e-6


def test_cutmix_target_is_the_area():
    images = torch.zeros(2, 1, 10, 10, dtype=torch.uint8)
    images[1] = 255
    mixed, targets = CutMix(2)(images, torch.tensor([0, 1]), np.random.default_rng(3))
    share = (mixed[0] == 255).float().mean().item()
    assert 0 < share < 1 and targets[0].tolist() == pytest.approx([1 - share, share])


def test_label_smoothing_of_three_classes():
    """K = 3 and ε = 0.15: 90 % on the right class, 5 % on the others, 1 - (K-1)/K ε and ε/K."""
    logits = torch.tensor([[0.4, -1.0, 0.1]])
    smoothed = CrossEntropy(label_smoothing=0.15)(logits, torch.tensor([0]))
    torch.testing.assert_close(smoothed, CrossEntropy()(logits, torch.tensor([[0.9, 0.05, 0.05]])))


# --- learning rate and stopping ---


def test_schedules():
    epochs = 90
    drops = step(epochs)
    for epoch, factor in ((0, 1), (29, 1), (30, 0.1), (59, 0.1), (60, 0.01), (89, 0.01), (90, 0.001)):
        assert drops(epoch / epochs) == pytest.approx(factor)
    for progress in (0.0, 0.25, 0.5, 0.9, 1.0):
        assert cosine(epochs)(progress) == pytest.approx(0.5 * (1 + math.cos(math.pi * progress)))
        assert linear(epochs)(progress) == pytest.approx(1 - progress)
        assert constant(epochs)(progress) == 1
    for epoch in (1, 4, 9, 64):
        assert inverse_sqrt(epochs)(epoch / epochs) == pytest.approx(1 / math.sqrt(epoch))


def test_the_best_on_validation_is_kept_and_training_stops_when_it_gets_worse():
    trainer = trainer_of("data.size=40", "epochs=9", "early_stop.patience=2")
    kept = []
    for accuracy in (0.5, 0.7, 0.6, 0.6):
        assert trainer.outcome() is None
        kept.append(trainer.plan.update_best(trainer.progress, {"accuracy/val": accuracy}) is not None)
    assert kept == [True, True, False, False] and trainer.progress.best == 0.7
    assert trainer.outcome()[0] == "stopped_early"


# --- choosing hyper-parameters ---


def test_a_grid_over_rates_and_decays():
    values = "1e-4,1e-3,1e-2,1e-1"
    jobs, keys = compose_sweep([f"optimizer.lr={values}", f"optimizer.weight_decay={values}"])
    assert len(jobs) == 16 and keys == ["optimizer.lr", "optimizer.weight_decay"]
    pairs = {tuple(float(word.partition("=")[2]) for word in sorted(job)) for job in jobs}
    assert pairs == set(itertools.product([1e-4, 1e-3, 1e-2, 1e-1], repeat=2))


@pytest.mark.parametrize("model", ["fcn", "alexnet", "vgg", "resnet", "preact_resnet", "wide_resnet", "rnn"])
@pytest.mark.parametrize("classes", [3, 10])
def test_step_1_the_first_loss_is_log_c(model, classes):
    words = ["data.shape=[3,16,16]", f"model={model}", f"data.num_classes={classes}", "optimizer.weight_decay=0"]
    setup = build.open_setup(compose_run([*TINY, *words]))
    images, labels = next(iter(build.train_loader(setup).epoch(0)))
    with torch.no_grad():
        loss = CrossEntropy()(build.model(setup)(setup.pipeline.evaluate(images)), labels)
    assert loss.item() == pytest.approx(math.log(classes), abs=0.1)


def test_step_2_a_few_batches_are_learnt_by_heart():
    """Five mini-batches, regularization off: 100 % on them."""
    trainer = trainer_of("data.size=160", "data.noise=3", "batch_size=16", "epochs=60", "optimizer.weight_decay=0")
    assert len(trainer.train_loader) == 5
    trainer.fit()
    assert trainer.progress.metrics["accuracy/train"] == 1


def test_step_2_a_rate_that_is_too_high_ends_in_nan_and_says_so():
    trainer = trainer_of("data.size=160", "optimizer.lr=1e30", "epochs=5", "log.every_steps=1")
    with pytest.raises(TrainingFailed, match=r"learning rate .* is too high, or the initialization is bad"):
        fit(trainer)


def test_step_3_the_loss_drops_within_a_hundred_iterations():
    trainer = trainer_of("data.size=160", "data.noise=1", "optimizer.weight_decay=1e-4", "limit_steps=100")
    trainer.fit()
    assert trainer.progress.metrics["loss/train_clean"] < 0.8 * math.log(10)


# --- after training ---


def test_large_batches_warm_up_in_a_line():
    warmed = constant(90, warmup=5)
    assert warmed(0) == 0.01 and warmed(2.5 / 90) == pytest.approx(0.505) and warmed(5 / 90) == pytest.approx(1)


# --- sequence models ---


def test_elman_network():
    """h_t = f(h_{t-1}, x_t; W) with the same weights at every step, y = g(h) of the last."""
    torch.manual_seed(0)
    net, images = RNN((1, 5, 4), 3, hidden=6), torch.randn(2, 1, 5, 4)
    cell, h = net.recurrent, torch.zeros(2, 6)
    for t in range(5):
        x = images[:, 0, t]
        h = torch.tanh(x @ cell.weight_ih_l0.T + cell.bias_ih_l0 + h @ cell.weight_hh_l0.T + cell.bias_hh_l0)
    torch.testing.assert_close(net(images), net.classifier(h))
