"""How long commands take to answer, in fresh processes beside those of others, and which modules they import."""

import argparse
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from timing import circumstances, goal, table

from deeptrain.runtime.resources import ROOT

PYTHON, TRAIN = sys.executable, str(ROOT / "train.py")
SMALL = ["data=synthetic", "data.size=2000", "model=fcn", "threads=1", "device=cpu", "limit_steps=1", "loggers=none"]
HYDRA = """
import hydra
@hydra.main(version_base=None, config_path="{folder}/conf", config_name="config")
def main(config): pass
main()
"""
STEP = """
import torch
from torch import nn
torch.set_num_threads(1)
images, labels = torch.rand(2000, 3, 32, 32), torch.randint(10, (2000,))
model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 10))
optimizer = torch.optim.AdamW(model.parameters())
nn.functional.cross_entropy(model(images[:64]), labels[:64]).backward()
optimizer.step()
"""
HELP, CONFIG, MISTAKE, FIRST, EVALUATE = "help", "config print", "a mistake", "a run of one step", "evaluate"
TORCH, BARE_HYDRA, HEAVY, BARE_STEP = "import torch", "bare hydra, help", "import lightning, torchvision", "bare step"
LEFT_OUT = {  # modules that a command must not load (exact)
    HELP: "torch torchvision timm lightning pandas matplotlib",
    CONFIG: "torch torchvision timm lightning pandas matplotlib",
    MISTAKE: "torch torchvision timm lightning pandas matplotlib",
    EVALUATE: "torch._dynamo torchvision timm lightning pandas",  # its figures need matplotlib
}


def commands(folder: Path) -> dict[str, list[str]]:
    """Return the words of each command; a run to evaluate, and a hydra app, are made in the folder."""
    for group in "abcd":
        (folder / "conf" / group).mkdir(parents=True)
        (folder / "conf" / group / "one.yaml").write_text("x: 1\ny: 2\n")
    (folder / "conf" / "config.yaml").write_text("defaults:\n" + "".join(f"  - {group}: one\n" for group in "abcd"))
    (folder / "app.py").write_text(HYDRA.format(folder=folder))
    subprocess.run([PYTHON, TRAIN, *SMALL, f"dir={folder / 'run'}"], check=True, stdout=subprocess.DEVNULL)
    found = {
        HELP: [TRAIN, "--help"],
        CONFIG: [TRAIN, "--cfg", "job"],
        MISTAKE: [TRAIN, "modle=vgg"],
        EVALUATE: [str(ROOT / "scripts/evaluate.py"), str(folder / "run"), "split=val"],
        FIRST: [TRAIN, *SMALL],
        TORCH: ["-c", "import torch"],
        BARE_HYDRA: [str(folder / "app.py"), "--help"],
        BARE_STEP: ["-c", STEP],
    }
    return found | ({HEAVY: ["-c", "import lightning, torchvision"]} if find_spec("lightning") else {})


def seconds(words: list[str], folder: Path) -> tuple[float, float]:
    """Run python with these words; return its wall and CPU seconds."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = os.times()
    place = tempfile.mkdtemp(dir=folder)
    subprocess.run([PYTHON, *words], cwd=place, env=environment, capture_output=True, check=False)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return after.elapsed - before.elapsed, cpu


def imported(words: list[str], folder: Path) -> set[str]:
    """Return the modules that a command of ours imports."""
    script = f"import sys, runpy, atexit; sys.argv = {words!r}; "
    script += "atexit.register(lambda: print('IMPORTED', *sys.modules)); "
    script += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run([PYTHON, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("IMPORTED")]
    return set(line.split())


def check_modules(made: dict[str, list[str]], folder: Path) -> None:
    for name, modules in LEFT_OUT.items():
        found = imported(made[name], folder) & set(modules.split())
        text = f"{name}: modules imported that it must not ({', '.join(sorted(found)) or 'none'})"
        goal("C6d", text, len(found), 0, 0, at_most=True)


def report(taken: dict[str, np.ndarray]) -> None:
    """taken: (rounds, 2) wall and CPU seconds of each command."""
    rows = [[name, *(f"{value:.2f}" for value in np.median(each, axis=0))] for name, each in taken.items()]
    table(["a fresh process, s", "wall", "CPU"], rows)
    cpu = {name: float(np.median(each[:, 1])) for name, each in taken.items()}
    if HEAVY in cpu:
        slower(cpu, HELP, HEAVY, "C6", 9, 20)
    slower(cpu, HELP, BARE_HYDRA, "C6", 1, 2)
    for row, name, peer, must, stretch in (
        ("C6b", FIRST, BARE_STEP, 1.15, 1.05),
        ("C6c", EVALUATE, TORCH, 1.25, 1.1),
    ):
        figures = {"ours": f"{cpu[name]:.2f} s", "peer": f"{cpu[peer]:.2f} s"}
        goal(row, f"{name}: CPU, times {peer}", cpu[name] / cpu[peer], must, stretch, at_most=True, **figures)


def slower(cpu: dict[str, float], name: str, peer: str, row: str, must: float, stretch: float) -> None:
    figures = {"ours": f"{cpu[name]:.2f} s", "peer": f"{cpu[peer]:.2f} s"}
    goal(row, f"{name}: CPU, times as fast as {peer}", cpu[peer] / cpu[name], must, stretch, **figures)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the modules alone, which are exact")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(words)
    print(circumstances("torch", "hydra-core", "lightning", "torchvision", quick=options.quick))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = commands(folder)
        check_modules(made, folder)
        if not options.quick:
            rounds = [{name: seconds(words, folder) for name, words in made.items()} for _ in range(options.rounds)]
            report({name: np.array([each[name] for each in rounds]) for name in made})


if __name__ == "__main__":
    main()
