"""Train probes on a frozen model: python tools/probe.py --model SOURCE --data DIR --out DIR [--kinds linear attentive].

SOURCE is any model of tools/predict.py; DIR of --data is what tools/prepare_data.py folder --folds made. Features of
every video are computed once (OUT/features.npz); a linear probe sees their mean, an attentive one weighs their tokens.
Both are trained on every fold, and the answers of all folds pooled: crossval.csv, .md, .json, and OUT/pooled. Example:
  python tools/probe.py --model exp/quickstart --data data/mine --out output/probe
"""

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.utils.errors import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="SOURCE", help="trained model, see above")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the folds")
    kinds = ("linear", "attentive")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, help="probes (default: both)")
    parser.add_argument("--shots", type=int, default=0, metavar="K", help="train on the lists of K clips a class")
    parser.add_argument("--decay", type=float, default=1e-3, metavar="X", help="weight of the squared weights")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of features and results")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over those of the model: DATA., TEST.")
    args = parser.parse_intermixed_args()
    from slowfast.inference.probe import probe  # torch takes seconds

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    probe(**vars(args))
    print(Path(args.out, "crossval.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    run_tool(main)
