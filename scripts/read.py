"""Say in words what the curves of a run show: python scripts/read.py outputs/DATE/RUN"""

import sys

from deeptrain.commands.cli import enter
from deeptrain.commands.read import read

if __name__ == "__main__":
    sys.exit(enter(read))
