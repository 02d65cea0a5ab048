"""Take several runs as one network: python scripts/ensemble.py outputs/DATE/RUN outputs/DATE/RUN"""

import sys

from deeptrain.commands.cli import enter
from deeptrain.commands.ensemble import ensemble

if __name__ == "__main__":
    sys.exit(enter(ensemble))
