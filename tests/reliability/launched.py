"""torchrun whose processes are forked, so that none of them imports anything: python launched.py OPTIONS WORDS...

OPTIONS: the settings of torch's LaunchConfig as JSON. Each process trains with the words.
"""

import json
import sys

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from deeptrain.commands.cli import train


def train_rank(words: list[str]) -> None:
    if code := train(words):
        sys.exit(code)


if __name__ == "__main__":
    config = LaunchConfig(**json.loads(sys.argv[1]), max_restarts=0, start_method="fork")
    elastic_launch(config, train_rank)(sys.argv[2:])
