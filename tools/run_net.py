"""Train and then test the model of a configuration: python tools/run_net.py --cfg FILE [KEY VALUE ...]. Example:
python tools/run_net.py --cfg exp/quickstart/config.yaml SOLVER.MAX_EPOCH 8 OUTPUT_DIR output/longer --dry-run
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.engine.run import main

if __name__ == "__main__":
    sys.exit(main(tasks=("train", "test"), description=__doc__))
