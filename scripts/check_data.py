"""Read a whole folder of pictures before training on it: python scripts/check_data.py DIR"""

import sys

from deeptrain.commands.check_data import check_data
from deeptrain.commands.cli import enter

if __name__ == "__main__":
    sys.exit(enter(check_data))
