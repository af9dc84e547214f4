"""Cross-validate: python tools/crossval.py --data DIR --cfgs FILE ... --out DIR [options] [KEY VALUE ...].

DIR of --data is what tools/prepare_data.py folder --folds made. Trains and tests every configuration on every fold in
OUT/FOLD/CONFIGURATION/seedN, pools the answers of all folds, every video once, and writes crossval.csv, .md and .json,
and OUT/pooled/CONFIGURATION_seedN with the files of a test. The same command again runs only what is missing.

--order-test left=right up=down tests with the frames of every clip backwards, too: the share of clips of these classes
whose answer turns into the opposite class (order.csv). Example:
  python tools/crossval.py --data data/mine --cfgs configs/mine.yaml --out output/crossval
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.utils.errors import UserError, run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the folds")
    parser.add_argument("--cfgs", nargs="+", required=True, metavar="FILE", help="configuration files, or patterns")
    parser.add_argument("--baseline", default="", metavar="NAME", help="configuration to compare with (default: first)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="values of RNG_SEED (default 0)")
    parser.add_argument("--shots", type=int, default=0, metavar="K", help="train on the lists of K clips a class")
    parser.add_argument("--order-test", nargs="+", default=[], metavar="A=B", help="classes that are reversals")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, which share cores and GPUs")
    parser.add_argument("--report-only", action="store_true", help="report what is finished, run nothing")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of all that is made")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over all files")
    args = parser.parse_intermixed_args()
    from slowfast.analysis import crossval, study

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # lets the runs save first, as Ctrl-C does
    arms = crossval.build_arms(crossval.find_folds(args.data, args.shots), args.cfgs, args.seeds, args.out, args.opts)
    baseline = args.baseline or arms[0].name
    if baseline not in {arm.name for arm in arms}:
        raise UserError(f"--baseline {baseline!r} is not in {', '.join(dict.fromkeys(arm.name for arm in arms))}")
    if args.order_test:  # a wrong name would be told after hours
        from slowfast.analysis.order import opposites, order_test
        from slowfast.datasets.manifest import read_class_names

        opposites(args.order_test, read_class_names(str(Path(args.data, "classes.txt")), 0))
    crossval.check_lists(arms)
    failed = [] if args.report_only else study.run_missing(crossval.as_study(arms, args.out), args.jobs)
    crossval.report(arms, baseline, args.out, sys.argv)
    if args.order_test:
        order_test(arms, args.order_test, args.out, args.report_only)
    print(Path(args.out, "crossval.md").read_text(encoding="utf-8"))
    if failed:
        print(f"{len(failed)} runs failed: {', '.join(map(str, failed))}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_tool(main)
