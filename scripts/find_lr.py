"""Search the learning rate of a run by short runs: python scripts/find_lr.py model=vgg data=cifar10"""

import sys

from deeptrain.commands.cli import enter
from deeptrain.commands.find_lr import find_lr

if __name__ == "__main__":
    sys.exit(enter(find_lr))
