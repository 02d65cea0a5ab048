"""What a step of an optimizer costs on 80 tensors of a small ResNet: as we choose it, beside torch's default."""

import argparse
from collections.abc import Callable

import torch
from timing import Way, circumstances, goal, measure, median, spread, table, times_faster
from torch import nn

from deeptrain.optimizer.torch_optimizers import adamw, sgd

SHAPES = [(32, 32, 3, 3), (32,)] * 40  # weights of convolutions, and what norms have
BARS = {"sgd": (2.5, 3.5), "adamw": (4.5, 6)}
DEFAULT = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.05),
}
OURS = {
    "sgd": lambda weights: sgd([{"params": weights}]),
    "adamw": lambda weights: adamw([{"params": weights}]),
}


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    for weight in made:
        weight.grad = torch.randn(weight.shape, generator=generator)
    return made


def way(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], short: int, long: int) -> Way:
    made = make(weights())

    def prepare(steps: int) -> Callable[[], object]:
        def work() -> None:
            for _ in range(steps):
                made.step()

        return work

    return Way(prepare, short, long)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps: does it run at all?")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args(words)
    short, long, rounds = (2, 6, 1) if options.quick else (50, 350, options.rounds)
    torch.set_num_threads(1)
    print(circumstances("torch", quick=options.quick))
    rows = []
    for name, bars in BARS.items():
        timings = measure({"ours": way(OURS[name], short, long), "torch": way(DEFAULT[name], short, long)}, rounds)
        for other, timing in timings.items():
            cpu, noise = 1e6 * median(timing.steady)[1], 1e6 * spread(timing.steady)[1]
            rows.append([f"{name}, {other}", f"{cpu:,.0f}", f"± {noise:,.0f}"])
        figures = {
            way: f"{1e6 * median(timings[key].steady)[1]:,.0f} us" for way, key in (("ours", "ours"), ("peer", "torch"))
        }
        ratio = times_faster(timings["ours"].steady, timings["torch"].steady)[1]
        goal("C9", f"a step of {name}, 80 tensors: CPU, times as fast as torch's default", ratio, *bars, **figures)
    table(["a step, 80 tensors", "CPU, us", "spread"], rows)


if __name__ == "__main__":
    main()
