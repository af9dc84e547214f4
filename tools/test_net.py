"""Test a checkpoint over several views, python tools/test_net.py --cfg FILE [KEY VALUE ...], or compute metrics,
ensembles and comparisons from scores that tests have saved, python tools/test_net.py --from-scores FILE [FILE ...]
(which --from-scores --help explains).

--perturb reverse|shuffle|single_frame tests with the frames of every clip backwards, in an order drawn for each video,
or all the same: what is lost is the part of the accuracy that needs time. The results go to OUTPUT_DIR/perturb_ORDER;
difference.csv there has that part for every class, if the plain test was made before. Example:
  python tools/test_net.py --cfg exp/quickstart/config.yaml --perturb reverse
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.utils.errors import run_tool

FROM_SCORES = """\
Metrics, tables and pictures again from test_scores.npz, the logits of all views, which every test writes to OUTPUT_DIR;
of several files, an ensemble, in which each run counts by its weight, however many views it has. The files must be
about the same videos, in any order; labels and class names must agree, numbers of views may differ. Example:
  python tools/test_net.py --from-scores output/a/test_scores.npz output/b/test_scores.npz --compare
"""


def from_scores(argv: list[str]) -> None:
    from slowfast.utils.metrics import ENSEMBLE_METHODS

    parser = argparse.ArgumentParser(
        prog=f"{Path(sys.argv[0]).name} --from-scores",
        description=FROM_SCORES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="score file (.npz)")
    method = "how views become one score: mean_probability for models whose logits differ in scale; default: as tested"
    parser.add_argument("--method", choices=list(ENSEMBLE_METHODS), help=method)
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="one per file; default: equal")
    parser.add_argument("--compare", action="store_true", help="whether the second of two files is better: bootstrap")
    parser.add_argument("--out", metavar="FOLDER", help="write the results there; default: print them only")
    args = parser.parse_args(argv)
    from slowfast.analysis.scores import compare, comparison_line, rescore  # after what --help waits for
    from slowfast.utils.results import summary_line

    if args.compare:
        if len(args.files) != 2 or args.weights:
            parser.error(f"--compare takes two files and no --weights, found {len(args.files)} files")
        found = compare(*args.files, args.method, args.out)
        print(f"A: {args.files[0]}\nB: {args.files[1]}\n{found['num_videos']} videos")
        for key, name in (("top1", "top-1"), ("top5", "top-5"), ("mean_class", "mean class")):
            print(comparison_line(name, found[key]))
    else:
        results = rescore(args.files, args.method, args.weights, args.out)
        for run in results["runs"] if len(args.files) > 1 else ():
            print(f"{run['file']}: top-1 {run['top1']:.2f} %, weight {run['weight']:g} ({run['protocol']})")
        print(summary_line(results))
    if args.out:
        print(f"results are in {args.out}")


if __name__ == "__main__":
    if "--from-scores" in sys.argv:
        run_tool(partial(from_scores, [argument for argument in sys.argv[1:] if argument != "--from-scores"]))

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--perturb", choices=("reverse", "shuffle", "single_frame"), default="")
    chosen, argv = parser.parse_known_args()

    from slowfast.engine.run import main

    sys.exit(main(("test",), __doc__, argv, chosen.perturb))
