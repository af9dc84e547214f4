"""What a pack will hold, before anything is written: its items, their names, and which shard each lies in."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from slowfast.datasets.manifest import Record
from slowfast.utils.logging import progress_bar


@dataclass(frozen=True)
class Item:
    """A clip, video or image to be packed; `sizes` are those of its files (bytes)."""

    key: str
    extension: str
    path: str
    label: int
    sizes: np.ndarray


@dataclass(frozen=True)
class Shard:
    name: str
    items: list[Item]


@dataclass(frozen=True)
class SourceFiles:
    """How the files of a record are found.

    Attributes:
        source: ``frames``, ``video`` or ``image``.
        template: file name of a frame, such as ``{:05d}.jpg``.
        first_image: number in the name of the first frame.
    """

    source: str
    template: str = ""
    first_image: int = 0

    def paths(self, path: str, num_files: int) -> Iterator[str]:
        """Yield the paths of the files of the item at ``path``."""
        if self.source != "frames":
            yield path
            return
        for number in range(self.first_image, self.first_image + num_files):
            yield os.path.join(path, self.template.format(number))


def unique_records(splits: dict[str, Sequence[Record]]) -> dict[str, Record]:
    """Return path -> record in the order of the lists."""
    records: dict[str, Record] = {}
    for listed in splits.values():
        for record in listed:
            first = records.setdefault(record.path, record)
            if (first.label, first.num_frames) != (record.label, record.num_frames):
                raise ValueError(
                    f"{record.origin}: {record.path} has label {record.label} and num_frames {record.num_frames}, but "
                    f"label {first.label} and num_frames {first.num_frames} in {first.origin}"
                )
    return records


def measure_items(
    records: list[Record], files: SourceFiles, workers: int
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return path -> sizes of the files (bytes), and path -> problem of the items that are not complete."""

    def measure(record: Record) -> np.ndarray | str:
        paths = files.paths(record.path, record.num_frames or 1)
        try:
            return np.array([_file_size(path) for path in paths], np.int64)
        except OSError as error:
            return f"{error.filename}: {error.strerror}"

    sizes, problems = {}, {}
    # Threads, because the time goes into waiting for the disk.
    with ThreadPoolExecutor(workers) as pool:
        measured = pool.map(measure, records)
        for record, found in zip(records, progress_bar(measured, len(records), "looking for files", unit="item")):
            if isinstance(found, str):
                problems[record.path] = found
            else:
                sizes[record.path] = found
    return sizes, problems


def _file_size(path: str) -> int:
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(0, "is a folder, expected a file", path)
    return status.st_size


def name_items(measured: list[tuple[Record, np.ndarray]], files: SourceFiles) -> dict[str, Item]:
    """Return path -> item."""
    folder = os.path.commonpath({os.path.dirname(os.path.abspath(record.path)) for record, _ in measured})
    items: dict[str, Item] = {}
    taken: set[str] = set()
    for record, sizes in measured:
        stem = os.path.relpath(record.path, folder)
        name = next(files.paths(stem, 1))
        extension = os.path.splitext(name)[1][1:] or "bin"
        if files.source != "frames":
            stem = os.path.splitext(stem)[0]
        parent, base = os.path.split(stem)
        # What a line of a list, or the name of a sample, cannot hold.
        key = os.path.join(parent, base.replace(".", "_")).replace(os.sep, "/")
        key = unique = re.sub(r"[\x00-\x1f\x7f]", "_", key).strip()
        number = 1
        while unique in taken:  # a.b.mp4 beside a_b.mp4, a.mp4 beside a.webm
            number += 1
            unique = f"{key}~{number}"
        taken.add(unique)
        items[record.path] = Item(unique, extension, record.path, record.label, sizes)
    return items


def plan_shards(splits: dict[str, Sequence[Record]], items: dict[str, Item], shard_mib: int) -> Iterator[Shard]:
    waiting = dict(items)
    for split, records in splits.items():
        number, shard, num_bytes = 0, [], 0
        for record in records:
            item = waiting.pop(record.path, None)
            if item is None:
                continue
            item_bytes = 2 * tarfile.BLOCKSIZE + sum(
                tarfile.BLOCKSIZE + round_up(int(size), tarfile.BLOCKSIZE) for size in item.sizes
            )
            if shard and num_bytes + item_bytes > shard_mib << 20:
                yield Shard(f"{split}-{number:06d}.tar", shard)
                number, shard, num_bytes = number + 1, [], 0
            shard.append(item)
            num_bytes += item_bytes
        if shard:
            yield Shard(f"{split}-{number:06d}.tar", shard)


def digest_plan(shards: list[Shard], source: str) -> str:
    """Return what tells this pack from packs of other items, or of files that have changed their size."""
    digest = hashlib.sha256(source.encode())
    for shard in shards:
        digest.update(f"\n{shard.name}".encode())
        for item in shard.items:
            digest.update(f"\n{item.key}\t{item.extension}\t{item.label}\t".encode() + item.sizes.tobytes())
    return digest.hexdigest()


def round_up(number: int, step: int) -> int:
    """Return the smallest multiple of ``step`` that is not below ``number``."""
    return -(-number // step) * step
