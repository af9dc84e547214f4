"""A page to try a trained model: python tools/demo.py --model SOURCE [--port N]

Videos are uploaded or recorded by the webcam; the page shows the five best classes, the class activation map and the
displacements of EMIM's attention. It is served on this machine only. Needs the extra "demo". SOURCE is that of
tools/predict.py. Example:
  python tools/demo.py --model emim_tiny_motion
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.utils.errors import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="SOURCE", help="trained model, see tools/predict.py")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="of 127.0.0.1 (default 7860)")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_args()
    from slowfast.inference.demo import demo  # torch takes seconds

    return demo(**vars(args))


if __name__ == "__main__":
    run_tool(main)
