"""Evaluate a run's best weights on the test split: python scripts/evaluate.py outputs/DATE/RUN"""

import sys

from deeptrain.commands.evaluate import evaluate

if __name__ == "__main__":
    sys.exit(evaluate(sys.argv[1:]))
