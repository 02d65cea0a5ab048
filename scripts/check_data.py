"""Read a whole folder of pictures before training on it: python scripts/check_data.py DIR"""

import sys

from deeptrain.commands.check_data import check_data

if __name__ == "__main__":
    sys.exit(check_data(sys.argv[1:]))
