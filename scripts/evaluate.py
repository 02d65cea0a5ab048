"""Evaluate a run's best weights on the test split: python scripts/evaluate.py outputs/DATE/RUN"""

import sys

from deeptrain.commands.cli import enter
from deeptrain.commands.evaluate import evaluate

if __name__ == "__main__":
    sys.exit(enter(evaluate))
