"""Classify videos: python tools/predict.py --model SOURCE INPUT... [--top K] [--views test|1] [--out DIR]

SOURCE: the output folder of a run or its experiment, a checkpoint, an exported file or folder, a name of the zoo, or
hf-hub:USER/REPOSITORY. INPUT: videos, folders of frames, folders of videos, list files. Example:
  python tools/predict.py --model emim_tiny_motion clip.mp4 --top 3
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.utils.errors import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="SOURCE", help="trained model, see above")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="videos, folders, list files")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes to tell (default 5)")
    parser.add_argument("--views", choices=("test", "1"), default="test", help="views of the test, or the central one")
    parser.add_argument("--out", metavar="DIR", help="write predictions.jsonl and predictions.csv, timelines there")
    parser.add_argument("--window-sec", type=float, metavar="W", help="scores of windows of W seconds over time")
    parser.add_argument("--stride-sec", type=float, metavar="S", help="seconds between two windows (default W / 2)")
    parser.add_argument("--features", metavar="FILE.npz", help="also save the vectors that the classifier sees")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode (default 0)")
    args = parser.parse_args()
    from slowfast.inference.predict import predict  # torch takes seconds

    return predict(**vars(args))


if __name__ == "__main__":
    run_tool(main)
