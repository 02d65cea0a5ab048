"""Which setting is best? python scripts/tune.py model=resnet 'optimizer.lr=log(1e-4,1e-1)' trials=40"""

import sys

from deeptrain.commands.cli import enter
from deeptrain.commands.tune import tune

if __name__ == "__main__":
    sys.exit(enter(tune))
