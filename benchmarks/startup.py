"""How long commands take to answer, in fresh processes beside those of others, and which modules they import.

A command's CPU time is read twice: at its mark (the first step, the first line of an answer), and when it has ended.
"""

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
MARK = """
import os, time
def mark(*_):
    os.write(2, b"MARK %f\\n" % time.process_time())
"""
WATCHED = (  # a command of ours, which imports torch in its own way
    MARK
    + """
import runpy, sys
from deeptrain.runtime import terminal
class FirstStep:
    def find_spec(self, name, *_):
        if name == "deeptrain.training.trainer":
            sys.meta_path.remove(self)
            from torch.optim.optimizer import register_optimizer_step_post_hook
            register_optimizer_step_post_hook(mark)
def write_and_mark(text, stream, write=terminal.write):
    terminal.write = write
    reason = write(text, stream)
    mark()
    return reason
sys.argv = sys.argv[1:]
if "train.py" in sys.argv[0]:
    sys.meta_path.insert(0, FirstStep())
else:
    terminal.write = write_and_mark
runpy.run_path(sys.argv[0], run_name="__main__")
"""
)
STEP = """
import torch
from torch import nn
torch.set_num_threads(1)
images, labels = torch.rand(2000, 3, 32, 32), torch.randint(10, (2000,))
model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 10))
optimizer = torch.optim.AdamW(model.parameters())
nn.functional.cross_entropy(model(images[:64]), labels[:64]).backward()
optimizer.step()
mark()
"""
HELP, CONFIG, MISTAKE, FIRST = "help", "config print", "a mistake", "a run of one step"
EVALUATE, PREDICT = "evaluate", "predict"
TORCH, BARE_HYDRA, HEAVY, BARE_STEP = "import torch", "bare hydra, help", "import lightning, torchvision", "bare step"
LEFT_OUT = {  # modules that a command must not load (exact)
    HELP: "torch torchvision timm lightning pandas matplotlib",
    CONFIG: "torch torchvision timm lightning pandas matplotlib",
    MISTAKE: "torch torchvision timm lightning pandas matplotlib",
    FIRST: "torch._dynamo torchvision timm lightning pandas",  # its figures need matplotlib
    EVALUATE: "torch._dynamo torchvision timm lightning pandas",  # so do these
    PREDICT: "torch._dynamo torchvision timm lightning pandas matplotlib",
}


def commands(folder: Path) -> dict[str, list[str]]:
    """Return the words of each command; a run to evaluate, and a hydra app, are made in the folder."""
    for group in "abcd":
        (folder / "conf" / group).mkdir(parents=True)
        (folder / "conf" / group / "one.yaml").write_text("x: 1\ny: 2\n")
    (folder / "conf" / "config.yaml").write_text("defaults:\n" + "".join(f"  - {group}: one\n" for group in "abcd"))
    (folder / "app.py").write_text(HYDRA.format(folder=folder))
    few = [*SMALL, "data.size=200", f"dir={folder / 'run'}"]  # the start is measured, not the making of the images
    subprocess.run([PYTHON, TRAIN, *few], check=True, stdout=subprocess.DEVNULL)
    found = {
        HELP: [TRAIN, "--help"],
        CONFIG: [TRAIN, "--cfg", "job"],
        MISTAKE: [TRAIN, "modle=vgg"],
        EVALUATE: [str(ROOT / "scripts/evaluate.py"), str(folder / "run"), "split=val"],
        PREDICT: [str(ROOT / "scripts/predict.py"), str(folder / "run"), str(folder / "run/samples.png")],
        FIRST: [TRAIN, *SMALL],
        TORCH: ["-c", MARK + "import torch\nmark()"],
        BARE_HYDRA: [str(folder / "app.py"), "--help"],
        BARE_STEP: ["-c", MARK + STEP],
    }
    return found | ({HEAVY: ["-c", "import lightning, torchvision"]} if find_spec("lightning") else {})


def seconds(words: list[str], folder: Path) -> tuple[float, float, float]:
    """Run python with these words; return its wall seconds, its CPU seconds, and those until its mark."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    watched = [] if words[0] == "-c" or "app.py" in words[0] else ["-c", WATCHED]
    before, place = os.times(), tempfile.mkdtemp(dir=folder)
    done = subprocess.run([PYTHON, *watched, *words], cwd=place, env=environment, capture_output=True, check=False)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    marks = [float(line.split()[1]) for line in done.stderr.splitlines() if line.startswith(b"MARK ")]
    mark = marks[-1] if marks else np.nan  # an optimizer is tried out before the only step of the run
    return after.elapsed - before.elapsed, cpu, mark


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
    """taken: (rounds, 3) wall seconds, CPU seconds, and CPU seconds until the mark, of each command."""
    medians = {name: np.median(each, axis=0) for name, each in taken.items()}
    rows = [[name, *("" if np.isnan(value) else f"{value:.2f}" for value in each)] for name, each in medians.items()]
    table(["a fresh process, s", "wall", "CPU", "CPU until its mark"], rows)
    cpu = {name: float(whole) for name, (_, whole, _) in medians.items()}
    until = {name: float(mark) for name, (_, _, mark) in medians.items()}
    if HEAVY in cpu:
        slower(cpu, HELP, HEAVY, "C6", 9, 20)
    slower(cpu, HELP, BARE_HYDRA, "C6", 1, 2)
    for row, name, what, peer, must, stretch in (
        ("C6b", FIRST, "from the command to the first step", BARE_STEP, 1.15, 1.05),
        ("C6c", EVALUATE, "evaluate, until its answer", TORCH, 1.25, 1.1),
        ("C6c", PREDICT, "predict, until its answer", TORCH, 1.25, 1.1),
    ):
        figures = {"ours": f"{until[name]:.2f} s", "peer": f"{until[peer]:.2f} s"}
        goal(row, f"{what}: CPU, times {peer}", until[name] / until[peer], must, stretch, at_most=True, **figures)
    for row, name, what in (
        ("C6b", FIRST, "a run after its first step, with pictures and card"),
        ("C6c", EVALUATE, "evaluate after its answer, with pictures"),
    ):
        goal(row, f"{what}: CPU, s", cpu[name] - until[name], 1.5, 1, at_most=True)


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
