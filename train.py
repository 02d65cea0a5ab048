"""Train one network, or sweep over many with -m: python train.py model=resnet aug=mixup"""

import sys

from deeptrain.commands.cli import enter, train

if __name__ == "__main__":  # (tab completion of the shell looks in this file for the words @hydra.main)
    sys.exit(enter(train))
