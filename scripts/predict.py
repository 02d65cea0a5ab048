"""Ask a run's network about pictures: python scripts/predict.py outputs/DATE/RUN photos/"""

import sys

from deeptrain.commands.cli import enter
from deeptrain.commands.predict import predict

if __name__ == "__main__":
    sys.exit(enter(predict))
