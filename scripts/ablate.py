"""Which of several methods helps? python scripts/ablate.py model=resnet 'over=[cutout,mixup]' seeds=5"""

import sys

from deeptrain.commands.ablate import ablate
from deeptrain.commands.cli import enter

if __name__ == "__main__":
    sys.exit(enter(ablate))
