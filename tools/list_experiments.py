"""Make the tables of exp/README.md from YAML files and exp/results.csv: python tools/list_experiments.py --write."""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.analysis.experiments import PAGE, make_page


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the tables")
    what.add_argument("--check", action="store_true", help="exit with status 1 if they are not current; write nothing")
    args = parser.parse_args(argv)
    os.chdir(Path(__file__).resolve().parents[1])
    current = PAGE.read_text(encoding="utf-8")
    try:
        page = make_page(current)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.check and page != current:
        print(f"{PAGE} is not current: run python tools/list_experiments.py --write", file=sys.stderr)
        return 1
    if page != current:
        PAGE.write_text(page, encoding="utf-8")
    print(f"{PAGE} is {'current' if page == current else 'written'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
