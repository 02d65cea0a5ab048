"""Compare runs, and write a page that says what is better: python scripts/report.py outputs/sweeps/DATE/SWEEP"""

import sys

from deeptrain.commands.cli import enter
from deeptrain.commands.report import report

if __name__ == "__main__":
    sys.exit(enter(report))
