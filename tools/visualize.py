"""Show what a prediction rests on: python tools/visualize.py --model SOURCE INPUT --what cam gradcam motion --out DIR

SOURCE and INPUT are those of tools/predict.py. Of each video, DIR gets a strip of pictures (PNG), a video (MP4) and a
page (HTML) that needs no network. --evaluate NUM also measures: how much of the prediction hangs on what the maps show,
on the videos given or on NUM synthetic ones, and how far the displacements are from the true motion of NUM synthetic
ones; DIR gets evaluation.json. Example:
  python tools/visualize.py --model emim_tiny_motion clip.mp4 --what cam motion --out output/seen
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.utils.errors import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="SOURCE", help="trained model, see tools/predict.py")
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="videos, folders, list files")
    what = ("cam", "gradcam", "motion", "prompts")
    parser.add_argument("--what", nargs="+", choices=what, default=["cam"], help="default: cam")
    parser.add_argument("--label", metavar="NAME", help="class that the maps explain (default: the predicted one)")
    colours = ("inferno", "viridis", "cividis", "jet")
    parser.add_argument(
        "--colours", choices=colours, default="inferno", help="of maps (default inferno; the paper: jet)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--evaluate", type=int, dest="num_clips", metavar="NUM", help="measure on NUM synthetic clips")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_args()
    from slowfast.inference.draw import visualize  # torch takes seconds

    return visualize(**vars(args))


if __name__ == "__main__":
    run_tool(main)
