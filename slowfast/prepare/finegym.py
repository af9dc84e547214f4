"""FineGym (arXiv 2004.06704): elements of gymnastics, subsets of 99 and of 288 classes. The release has text files:

    gym99_train_element_v1.1.txt (or v1.0), gym99_val_element.txt, or gym288_...    lines ``<id> <label>``
    gym99_categories.txt                       lines ``Clabel: 0; set: 1; Glabel: 1; (VT) name``; not needed

An id such as A0xAXXysHUo_E_002184_002237_A_0035_0036 is a video, an event in it and an element in that, in seconds.
Videos are to be had by their addresses and cut by everyone alone: the clips are looked for as ``<id>.mp4``.
"""

import re
from pathlib import Path

from slowfast.prepare.lists import Annotation, find_file, read_lines, read_split


def read_annotation(folder: Path, subset: str) -> Annotation:
    """Read both splits of ``gym99`` or ``gym288``; classes are named by the file of categories, where there is one."""
    count = int(subset.removeprefix("gym"))
    names, path = [f"element {label}" for label in range(count)], folder / f"{subset}_categories.txt"
    if path.is_file():
        found = dict(read_split(read_lines(path), _category, path))
        names = [name for name, _ in sorted(found.items(), key=lambda item: item[1])]

    def parse(line: str) -> tuple[str, int]:
        match = re.fullmatch(r"([\w-]{11}_E_\d{6}_\d{6}_A_\d{4}_\d{4}) (\d+)", line)
        if match is None or int(match[2]) >= count:
            raise ValueError(f"found {line!r}, expected an id and a label from 0 to {count - 1}")
        return match[1], int(match[2])

    train = find_file(folder, *(f"{subset}_train_element_v1.{version}.txt" for version in (0, 1)))
    paths = (train, find_file(folder, f"{subset}_val_element.txt"))
    return Annotation(*(read_split(read_lines(path), parse, path) for path in paths), names)


def _category(line: str) -> tuple[str, int]:
    match = re.fullmatch(r"Clabel:\s*(\d+);.*?;.*?;\s*(.+)", line)
    if match is None:
        raise ValueError(f"found {line!r}, expected 'Clabel: number; set: number; Glabel: number; name'")
    return match[2], int(match[1])
