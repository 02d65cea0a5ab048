"""Test a set-up in steps, and say what is wrong: python scripts/diagnose.py model=vgg data=cifar10"""

import sys

from deeptrain.commands.cli import enter
from deeptrain.commands.diagnose import diagnose

if __name__ == "__main__":
    sys.exit(enter(diagnose))
