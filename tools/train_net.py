"""Train the model of a configuration: python tools/train_net.py --cfg FILE [KEY VALUE ...]. Example:
python tools/train_net.py --cfg exp/quickstart/config.yaml OUTPUT_DIR output/mine
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.engine.run import main

if __name__ == "__main__":
    sys.exit(main(tasks=("train",), description=__doc__))
