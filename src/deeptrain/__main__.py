"""python -m deeptrain COMMAND: the same as the installed command `deeptrain`."""

import sys

from deeptrain.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
