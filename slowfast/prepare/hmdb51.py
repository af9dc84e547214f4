"""HMDB-51 (ICCV 2011). The release has three splits as text files, and AVI videos in a folder per class:

    <class>_test_split1.txt, ..2.txt, ..3.txt    lines ``file.avi 1`` (training) | 2 (test) | 0 (not used)
    <class>/<file>.avi

The label of a class is its position among the 51 sorted names. The test part serves for validation, as in papers.
"""

from pathlib import Path

from slowfast.prepare.lists import Annotation, read_lines, read_split
from slowfast.utils.errors import UserError


def read_annotation(folder: Path, split: int) -> Annotation:
    """Read one of the three splits; an id is a file's name without its ending."""
    ending = f"_test_split{split}.txt"
    names = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
    if len(names) != 51:
        raise UserError(f"--annotations {folder} has {len(names)} files *{ending}, expected those of 51 classes")
    rows = {"1": [], "2": []}
    for label, name in enumerate(names):
        for where, line in read_lines(folder / f"{name}{ending}"):
            file, _, use = line.rpartition(" ")
            if use not in ("0", "1", "2") or not file.strip().endswith(".avi"):
                raise UserError(f"{where}: found {line!r}, expected 'file.avi 0', 1 or 2")
            if use != "0":
                rows[use].append((where, (file.strip().removesuffix(".avi"), label)))
    return Annotation(*(read_split(rows[use], lambda row: row, folder) for use in rows), names)
