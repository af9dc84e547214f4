"""See whether a network sees motion: python tools/motion_exam.py --cfg FILE | --model NAME [options] [KEY VALUE ...].

Trains a video network twice (two seeds) on the exam's rendered clips, tests it, and writes a certificate of one page
(certificate.html, .png, .json): accuracy against displacement, on other textures, on noise that only motion tells, with
frames out of order, errors of the displacements in EMIM's affinities, cost. About 20 minutes on two cores for 0.25
GFLOPs; the same command again continues, and repeats nothing.

Of FILE the model counts (MODEL, UNIFORMER, EMIM, VMP, USER_MODULES, sections of your own, DATA.MEAN, DATA.STD); data,
augmentation, solver and test are the exam's. KEY VALUE goes over both; the certificate names what changes the exam.
Example:
  python tools/motion_exam.py --cfg configs/comparators/emim.yaml --out output/exam_of_emim
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.utils.errors import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cfg", default="", metavar="FILE", help="configuration of the network")
    what.add_argument("--model", default="", metavar="NAME", help="architecture of docs/models.md, such as emim_tiny")
    parser.add_argument("--out", default="", metavar="DIR", help="default: output/motion_exam/NAME")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="trainings at a time (default: 2, one a seed)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over those of network and exam")
    args = parser.parse_intermixed_args()
    from slowfast.inference.exam import take  # torch takes seconds

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # lets the runs save first, as Ctrl-C does
    return take(**vars(args))


if __name__ == "__main__":
    run_tool(main)
