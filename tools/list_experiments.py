"""Make the tables of exp/README.md from YAML files and exp/results.csv. Example:
python tools/list_experiments.py --write
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.utils.errors import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the tables")
    what.add_argument("--check", action="store_true", help="exit with status 1 if they are not current")
    args = parser.parse_args()
    os.chdir(Path(__file__).resolve().parents[1])
    from slowfast.analysis.tables import PAGE, make_page  # takes seconds, which --help need not wait for

    current = PAGE.read_text(encoding="utf-8")
    page = make_page(current)
    if args.write:
        PAGE.write_text(page, encoding="utf-8")
    print(f"{PAGE} is {'current' if page == current else 'written' if args.write else 'not current: use --write'}")
    return int(args.check and page != current)


if __name__ == "__main__":
    run_tool(main)
