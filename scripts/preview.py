"""Draw what a run would see and do: python scripts/preview.py data=cifar10 'aug=[randaugment,cutmix]'"""

import sys

from deeptrain.commands.cli import enter
from deeptrain.commands.preview import preview

if __name__ == "__main__":
    sys.exit(enter(preview))
