"""A mixed sweep of 30 jobs, two at a time, and each of its jobs typed alone: all bits must agree.

python scripts/compare_sweep.py            all models, augmentations, averages, streamed data, bf16
python scripts/compare_sweep.py --jobs 6   every fifth of them
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torture

from deeptrain.commands.cli import train
from deeptrain.runtime.resources import train_process
from deeptrain.sweep import launch
from deeptrain.sweep.check import check
from deeptrain.sweep.options import Options
from deeptrain.sweep.plan import make, moved, save

WORDS = ["data=synthetic", "data.shape=[3,16,16]", "data.size=160", "batch_size=16", "epochs=1", "device=cpu"]
MODELS = {  # each small
    "fcn": ["model.hidden=[16]", "model.dropout=0.3"],
    "resnet": ["model.blocks=[1,1]", "model.widths=[8,8]", "model.stochastic_depth=0.5"],
    "preact_resnet": ["model.blocks=[1,1]", "model.widths=[8,8]"],
    "wide_resnet": ["model.depth=10", "model.width=1"],
    "vgg": ["model.depth=11"],
    "rnn": [],
}
KINDS = {
    "plain": [],
    "mixed": ["aug=[randaugment,mixup]", "average=ema"],
    "streamed": ["data.loader=stream", "workers=2", "aug=cutout"],
    "bf16": ["precision=bf16", "gradient=sam"],
    "two threads": ["threads=2", "loss.label_smoothing=0.1", "optimizer=sgd"],
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=30)
    count = parser.parse_args(arguments).jobs
    mixed = [
        ([*WORDS, f"model={model}", *own, *words], {"model": model, "kind": kind})
        for index, (model, own) in enumerate(MODELS.items())
        for kind, words in [*list(KINDS.items())[index % 5 :], *list(KINDS.items())[: index % 5]]
    ]
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)  # pictures have the folder's name in their title, so it must be the same
        (base := Path("sweep")).mkdir()
        chosen = mixed[:: max(1, len(mixed) // count)]
        plan, _, _ = check(moved(make([], ["model", "kind"], chosen, base), base))
        save(plan)
        if launch.work(plan, train, 2, [], Options()):
            return 1
        swept, wrong = base.rename("swept"), 0
        for job in plan.jobs:
            command = [*train_process(), *job.words, f"dir={job.folder}"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            found = torture.differences(swept / job.folder.name, job.folder)
            wrong += bool(found)
            print(f"{job.name}: {', '.join(found) or 'all bits agree'}", flush=True)
    print(f"{len(plan.jobs) - wrong} of {len(plan.jobs)} jobs have the bits of the same command alone")
    return min(1, wrong)


if __name__ == "__main__":
    sys.exit(main())
