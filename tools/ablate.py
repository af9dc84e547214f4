"""Compare configurations over seeds: python tools/ablate.py --cfgs FILE ... --seeds 0 1 2 --out DIR [KEY VALUE ...]."""

import argparse
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.analysis.study.launch import Interrupted, run_missing
from slowfast.analysis.study.plan import Study, TableSpec, build_study, read_study
from slowfast.analysis.study.report import write_report
from slowfast.analysis.study.resources import Resources, visible_gpus
from slowfast.config.defaults import get_cfg

EPILOG = """\
Every configuration is trained and tested with every seed (RNG_SEED), in OUT/CONFIGURATION/seedN. KEY VALUE pairs, after
all options, override all files. The same command again runs only what is missing and continues what was interrupted;
configurations of equal settings share their runs. OUT then holds table.csv, table.md and table.png (for a study file
one of each per table), runs.csv with a line per run, study.json with where it all comes from, and report.html.

A study file is YAML; options given here come before what it says:

  out: output/my_study
  seeds: [0, 1, 2]
  settings: {SOLVER: {MAX_EPOCH: 10}}        # optional, over all files
  tables:
    table8:
      title: Which blocks use EMIM           # optional
      cfgs: [configs/ablation/table8_*.yaml]
      baseline: table8_oo                    # optional

exit status: 0 all runs are finished; 1 some failed, the last line says how many; 2 a mistake, explained in one line;
128 + number of the signal that stopped it, after the runs have saved where they are"""


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the options; ``opts`` holds the KEY VALUE pairs."""
    # Options that take several values would take the pairs, too.
    keys = get_cfg()
    first = next((i for i, word in enumerate(argv) if word.partition(".")[0] in keys), len(argv))
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cfgs", nargs="+", metavar="FILE", help="configuration files, or quoted patterns of them")
    parser.add_argument("--study", metavar="FILE", help="study file, instead of --cfgs")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="values of RNG_SEED")
    parser.add_argument("--out", metavar="DIR", help="folder of the study")
    parser.add_argument("--baseline", metavar="NAME", help="configuration with which the others are compared")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, default 1")
    processes = "training processes of each run, through exp/launch.sh, default 1"
    parser.add_argument("--processes-per-run", type=int, default=1, metavar="N", help=processes)
    parser.add_argument("--report-only", action="store_true", help="write the report of what is finished, run nothing")
    parser.usage = parser.format_usage().removeprefix("usage: ").rstrip() + " [KEY VALUE ...]"
    args = parser.parse_args(argv[:first])
    args.opts = argv[first:]
    late = [word for word in args.opts if word.startswith("--")]
    if late:
        parser.error(f"{late[0]} must stand before the KEY VALUE pairs, which begin with {args.opts[0]}")
    if bool(args.cfgs) == bool(args.study):
        parser.error("give either --cfgs or --study")
    if args.study and args.baseline:
        parser.error("--baseline goes with --cfgs; in a study file every table has its own")
    for name in ("jobs", "processes_per_run"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, found {getattr(args, name)}")
    return args


def study_of(args: argparse.Namespace) -> Study:
    if args.study:
        content = read_study(args.study)
    else:
        content = {"out": "", "seeds": [], "overrides": []}
        title = os.path.basename(os.path.abspath(args.out or ""))
        content["tables"] = [TableSpec("table", args.cfgs, args.baseline or "", title)]
    seeds, out = args.seeds or content["seeds"], args.out or content["out"]
    for option, value in (("--seeds", seeds), ("--out", out)):
        if not value:
            raise ValueError(f"{option} is missing")
    return build_study(content["tables"], seeds, out, [*content["overrides"], *args.opts])


def main(argv: list[str]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    args = parse(argv)
    failed = []
    try:
        study = study_of(args)
        for row in (row for table in study.tables for row in table.rows):
            if row.variant.name != row.name:
                print(f"{row.name} has the settings of {row.variant.name} and shares its runs")
        if not args.report_only:
            gpus = () if all(variant.cfg.DEVICE == "cpu" for variant in study.variants()) else visible_gpus()
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            failed = run_missing(study, Resources(args.jobs, args.processes_per_run, gpus, cores))
        if len(failed) < len(study.runs()):
            print(f"report: {write_report(study, sys.argv)}")
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(
            f"{stop}; the same command continues from there, and with --report-only it reports what is finished",
            file=sys.stderr,
        )
        return stop.status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    if failed:
        names = ", ".join(str(run) for run in failed)
        print(f"{len(failed)} of {len(study.runs())} runs failed: {names}; the same command tries them again")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
