"""Write a run's network as one file for other programs: python scripts/export.py outputs/DATE/RUN to=onnx"""

import sys

from deeptrain.commands.cli import enter
from deeptrain.commands.export import export

if __name__ == "__main__":
    sys.exit(enter(export))
