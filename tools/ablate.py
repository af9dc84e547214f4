"""Compare configurations over seeds: python tools/ablate.py --cfgs FILE ... --seeds 0 1 2 --out DIR [KEY VALUE ...].

Trains and tests all in OUT/CONFIGURATION/seedN, then writes tables (CSV, Markdown), plots (PNG, PDF), runs.csv and
study.json to OUT. The same command again runs only what is missing. A study file is YAML: out, seeds, settings (over
all files) and tables, each with cfgs, baseline and title. Example:
  python tools/ablate.py --cfgs "configs/ablation/table5_*.yaml" --seeds 0 1 2 --out output/table5
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
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cfgs", nargs="+", metavar="FILE", help="configuration files, or quoted patterns of them")
    what.add_argument("--study", metavar="FILE", help="study file")
    parser.add_argument("--baseline", default="", metavar="NAME", help="configuration of --cfgs to compare with")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="values of RNG_SEED")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, which share cores and GPUs")
    parser.add_argument("--report-only", action="store_true", help="report what is finished, run nothing")
    parser.add_argument("--out", metavar="DIR", help="folder of the study")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="settings over all files, after --out")
    args = parser.parse_intermixed_args()
    from slowfast.analysis import study

    if args.study and args.baseline:
        raise UserError(f"--baseline is {args.baseline!r}, which --study says table by table; allowed: with --cfgs")

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # lets the runs save first, as Ctrl-C does
    table = {"cfgs": args.cfgs, "baseline": args.baseline}
    asked = {"tables": {"table": table}, "seeds": [], "out": "", "overrides": []}
    asked |= study.read_study(args.study) if args.study else {}
    asked |= {name: value for name, value in (("seeds", args.seeds), ("out", args.out)) if value}
    built = study.build_study(**{**asked, "overrides": [*asked["overrides"], *args.opts]})
    from slowfast.analysis import report  # takes seconds, for which a wrong key need not wait

    failed = [] if args.report_only else study.run_missing(built, args.jobs)
    if len(failed) < len(built.runs):
        report.write_report(built, sys.argv)
    if failed:
        print(f"{len(failed)} of {len(built.runs)} runs failed: {', '.join(map(str, failed))}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_tool(main)
