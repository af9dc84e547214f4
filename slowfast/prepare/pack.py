"""Packing: millions of small files into a few large tar shards, which ``packed.py`` reads at random.

A pack is a folder with

    train-000000.tar, train-000001.tar, ..., val-000000.tar, ...     uncompressed tar files
    index.npz                                                        where every file lies, see pack_index.py
    train.txt, val.txt, ..., classes.txt                             lists ``key [num_frames] label``, tab-separated
    pack_report.csv                                                  items that could not be packed, and why

The shards have the WebDataset layout: the files of a sample lie next to each other, and what precedes the first dot of
their names is its key. A clip of frames is one sample, ``key.cls`` (the label) and ``key.00001.jpg``,
``key.00002.jpg``, ...; a video or an image is ``key.cls`` and ``key.webm``, ``key.jpg``, ... The key is the path of the
item below the folder that holds all items, with ``_`` for the dots of its last part. The bytes of a file are those of
the source; they are not looked into.

Order and content of the shards are fixed by the lists, the sizes of the files and ``shard_mib``, before anything is
written: they do not depend on the number of workers or on interruptions. An item of several splits lies in the shards
of the first. Every shard is written under a temporary name and renamed when it is complete; its part of the index,
in the folder ``.parts`` until the whole index is written, says that it needs no second time.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import tarfile
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from slowfast.config.parser import CfgNode
from slowfast.datasets.build import SPLITS, build_dataset
from slowfast.datasets.manifest import Record
from slowfast.datasets.pack_index import INDEX_FILE, PackIndex, shard_fingerprint
from slowfast.datasets.packed import member_name
from slowfast.datasets.storage import LocalFolder
from slowfast.prepare.pack_plan import (
    Item,
    Shard,
    SourceFiles,
    digest_plan,
    measure_items,
    name_items,
    plan_shards,
    round_up,
    unique_records,
)
from slowfast.utils.files import locked, replacing
from slowfast.utils.logging import progress_bar

REPORT_FILE = "pack_report.csv"
MAX_WORKERS = 64
# 32-bit offsets suffice, and a shard is still copied in one piece by anything.
MAX_SHARD_MIB = 4095

_PARTS_FOLDER = ".parts"
_BLOCK = tarfile.BLOCKSIZE
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class PackedSplit:
    """Items of one split: in its list, and left out of it."""

    name: str
    num_packed: int
    num_left_out: int


@dataclass(frozen=True)
class PackSummary:
    """What `pack_records` did; `was_complete` if there was nothing to write but the lists."""

    splits: tuple[PackedSplit, ...]
    num_shards: int
    num_members: int
    num_bytes: int
    was_complete: bool


def construct_pack(
    cfg: CfgNode, out_dir: str | Path, shard_mib: int = 1024, workers: int = 16
) -> tuple[PackSummary, dict[str, str]]:
    """Pack all splits of the data set of a configuration that have a list.

    Args:
        cfg: the configuration with which the files could be trained on.
        out_dir: see ``pack_records``.
        shard_mib: see ``pack_records``.
        workers: see ``pack_records``.

    Returns:
        what was packed, and the settings, key -> value, that make the configuration read the pack.

    Raises:
        FileNotFoundError: there is neither a training nor a validation list.
        ValueError: a wrong value in the configuration or a list; see also ``pack_records``.
    """
    if cfg.DATA.PACKED:
        raise ValueError(f"DATA.PACKED is {cfg.DATA.PACKED!r}; packing reads the files themselves: leave it empty")
    splits, class_names, missing = {}, None, []
    for split in SPLITS:
        try:
            dataset = build_dataset(cfg, split)
        except FileNotFoundError as error:
            missing.append(error)
            continue
        if split != "test" or list(dataset.records) != list(splits.get("val", ())):  # "test" without a list is "val"
            splits[split], class_names = dataset.records, dataset.class_names
    if not splits:
        raise missing[0]
    is_list = cfg.DATA.DATASET == "VideoList"
    files = SourceFiles(cfg.DATA.SOURCE if is_list else "image", cfg.DATA.IMAGE_TEMPLATE, cfg.DATA.FIRST_IMAGE)
    list_template = cfg.DATA.LABEL_PATH_TEMPLATE if is_list else "{}.txt"
    summary = pack_records(splits, files, out_dir, list_template, class_names, shard_mib, workers)

    folder = os.path.abspath(out_dir)
    settings = {"DATA.PACKED": folder, "DATA.PATH_TO_DATA_DIR": folder}
    if not is_list:
        settings |= {"DATA.DATASET": "VideoList", "DATA.SOURCE": "image", "DATA.LABEL_PATH_TEMPLATE": list_template}
    # The first must be empty; the videos of the second are not in the pack, and its paths name none of its items.
    for key in ("PATH_PREFIX", "EXCLUDE_FILE"):
        if cfg.DATA[key]:
            settings[f"DATA.{key}"] = ""
    if cfg.DATA.PATH_LABEL_SEPARATOR not in ("auto", "\t"):
        settings["DATA.PATH_LABEL_SEPARATOR"] = "auto"
    return summary, settings


def pack_records(
    splits: dict[str, Sequence[Record]],
    files: SourceFiles,
    out_dir: str | Path,
    list_template: str = "{}.txt",
    class_names: Sequence[str] | None = None,
    shard_mib: int = 1024,
    workers: int = 16,
) -> PackSummary:
    """Pack the items of lists, or complete an interrupted pack.

    Args:
        splits: split -> its records.
        files: how their files are found.
        out_dir: folder of the pack; made if missing.
        list_template: file name of a list, {} being the split.
        class_names: for classes.txt; None writes none.
        shard_mib: a shard ends before it would be larger than this (MiB); a larger item has a shard of its own.
        workers: threads that look for files, and that write shards.

    Raises:
        ValueError: a wrong argument, an item that occurs with two labels, no item that can be packed, a folder that
            holds another pack, or a file that changes while it is packed.
        OSError: a file cannot be read or written.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise ValueError(f"workers (--workers) is {workers}; allowed: 1 to {MAX_WORKERS}")
    if not 1 <= shard_mib <= MAX_SHARD_MIB:
        raise ValueError(f"shard_mib (--shard-mib) is {shard_mib}; allowed: 1 to {MAX_SHARD_MIB}")
    out_dir = Path(out_dir)
    records = unique_records(splits)
    if out_dir.exists() and not out_dir.is_dir():
        raise ValueError(f"out_dir (--out) is {out_dir}; allowed: a folder, and this is a file")
    out_dir.mkdir(parents=True, exist_ok=True)
    with locked(out_dir):
        # Before the long part.
        _check_foreign_lists(out_dir, [*(list_template.format(split) for split in splits), "classes.txt"])
        sizes, problems = measure_items(list(records.values()), files, workers)
        for split, listed in splits.items():
            if not any(record.path in sizes for record in listed):
                path = listed[0].path
                raise ValueError(
                    f"none of the {len(listed)} {split} items can be packed; the first one, {path}: {problems[path]}"
                )
        items = name_items([(records[path], size) for path, size in sizes.items()], files)
        shards = list(plan_shards(splits, items, shard_mib))
        plan = digest_plan(shards, files.source)
        was_complete = _has_finished_pack(out_dir, plan)
        if not was_complete:
            index = _write_shards(shards, files, out_dir, plan, workers)
        _write_lists(splits, items, problems, out_dir, list_template, files.source, class_names)
        if not was_complete:
            with replacing(out_dir / INDEX_FILE, "wb") as file:
                file.write(index.to_bytes())
        shutil.rmtree(out_dir / _PARTS_FOLDER, ignore_errors=True)
    return PackSummary(
        tuple(
            PackedSplit(split, sum(record.path in items for record in listed), sum(r.path in problems for r in listed))
            for split, listed in splits.items()
        ),
        len(shards),
        sum(len(item.sizes) for item in items.values()),
        sum(int(item.sizes.sum()) for item in items.values()),
        was_complete,
    )


def _check_foreign_lists(out_dir: Path, names: list[str]) -> None:
    """Refuse to replace the lists of something else, such as those that name the files to be packed."""
    if (out_dir / INDEX_FILE).exists() or (out_dir / _PARTS_FOLDER).exists():
        return
    for name in names:
        if (out_dir / name).exists():
            raise ValueError(f"{out_dir / name} exists and was not made by this command; choose another --out")


def _has_finished_pack(out_dir: Path, plan: str) -> bool:
    path = out_dir / INDEX_FILE
    if not path.exists():
        return False
    index = PackIndex.from_bytes(path.read_bytes(), str(path))
    _check_plan(path, index, plan)
    try:
        index.check_shards(LocalFolder(str(out_dir)))
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"the finished pack is damaged; delete {out_dir} or choose another --out ({error})") from error
    return True


def _check_plan(path: Path, index: PackIndex, plan: str) -> None:
    if index.plan != plan:
        raise ValueError(
            f"{path} belongs to a pack of other items, file sizes or --shard-mib; choose another --out or delete that "
            "folder"
        )


def _write_shards(shards: list[Shard], files: SourceFiles, out_dir: Path, plan: str, workers: int) -> PackIndex:
    parts_dir, storage = out_dir / _PARTS_FOLDER, LocalFolder(str(out_dir))
    parts_dir.mkdir(exist_ok=True)
    bar = progress_bar(
        None,
        sum(int(item.sizes.sum()) for shard in shards for item in shard.items),
        "packing",
        unit="B",
        unit_scale=True,
    )
    lock, stop = threading.Lock(), threading.Event()

    def advance(num_bytes: int) -> None:
        if stop.is_set():
            raise InterruptedError("another shard failed, or the program was interrupted")
        with lock:
            bar.update(num_bytes)

    def complete(shard: Shard) -> PackIndex:
        part_path = parts_dir / f"{shard.name}.npz"
        part = _finished_part(part_path, storage, plan)
        if part is not None:
            advance(int(part.sizes.sum()))
            return part
        path = out_dir / shard.name
        if path.exists() and not part_path.exists():
            raise ValueError(f"{path} exists and was not made by this command; choose another --out or delete it")
        return _write_shard(shard, files, path, part_path, plan, advance)

    with bar, ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(complete, shard) for shard in shards]
        try:
            return PackIndex.concatenate([future.result() for future in futures])
        finally:  # after an error or an interrupt: leave the threads nothing to go on with
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _finished_part(path: Path, storage: LocalFolder, plan: str) -> PackIndex | None:
    """Return the index of a shard that an earlier run completed."""
    if not path.exists():
        return None
    part = PackIndex.from_bytes(path.read_bytes(), str(path))
    _check_plan(path, part, plan)
    try:
        part.check_shards(storage)
    except (FileNotFoundError, ValueError):  # interrupted between the two files
        return None
    return part


def _write_shard(
    shard: Shard, files: SourceFiles, path: Path, part_path: Path, plan: str, advance: Callable[[int], None]
) -> PackIndex:
    temporary = path.with_name(f".{path.name}.tmp")
    members: list[tuple[int, int, int]] = []  # (offset, size, checksum)
    try:
        with temporary.open("wb") as file:
            for item in shard.items:
                label = str(item.label).encode()
                _add_member(file, f"{item.key}.cls", len(label), io.BytesIO(label), "its label")
                for number, source in enumerate(files.paths(item.path, len(item.sizes))):
                    name = member_name(item.key, item.extension, number if files.source == "frames" else None)
                    with open(source, "rb") as content:
                        members.append(_add_member(file, name, int(item.sizes[number]), content, source))
                advance(int(item.sizes.sum()))
            # Two empty blocks end the file, which is a multiple of the record size, as tar writes it.
            end = round_up(file.tell() + 2 * _BLOCK, tarfile.RECORDSIZE)
            file.write(bytes(end - file.tell()))
            file.flush()
            os.fsync(file.fileno())
        offsets, sizes, checksums = np.array(members, np.int64).T
        fingerprint = shard_fingerprint(LocalFolder(str(path.parent)), temporary.name, end)
        part = PackIndex(
            plan=plan,
            source=files.source,
            shards=np.array([path.name]),
            shard_bytes=np.array([end]),
            fingerprints=np.array([fingerprint], np.uint32),
            keys=np.array([item.key.encode() for item in shard.items]),
            extensions=np.array([item.extension.encode() for item in shard.items]),
            item_shard=np.zeros(len(shard.items), np.int64),
            num_members=np.array([len(item.sizes) for item in shard.items]),
            offsets=offsets,
            sizes=sizes,
            checksums=checksums.astype(np.uint32),
        )
        # In this order: a shard without a part is somebody else's.
        with replacing(part_path, "wb") as file:
            file.write(part.to_bytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return part


def _add_member(file: BinaryIO, name: str, size: int, content: BinaryIO, source: str) -> tuple[int, int, int]:
    """Append a file and return where its content begins, its size and its checksum."""
    header = tarfile.TarInfo(name)  # no times or owners: the same files make the same shard
    header.size = size
    file.write(header.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
    offset, checksum, num_read = file.tell(), 0, 0
    while chunk := content.read(_CHUNK_BYTES):
        file.write(chunk)
        checksum = zlib.crc32(chunk, checksum)
        num_read += len(chunk)
    if num_read != size:
        raise ValueError(f"{source} had {size} bytes and now has {num_read}: it changed while it was packed")
    file.write(bytes(round_up(size, _BLOCK) - size))
    return offset, size, checksum


def _write_lists(
    splits: dict[str, Sequence[Record]],
    items: dict[str, Item],
    problems: dict[str, str],
    out_dir: Path,
    list_template: str,
    source: str,
    class_names: Sequence[str] | None,
) -> None:
    report = [("split", "path", "reason")]
    for split, records in splits.items():
        lines = []
        for record in records:
            if record.path in problems:
                report.append((split, record.path, f"left out: {problems[record.path]}"))
                continue
            item = items[record.path]
            counts = [len(item.sizes)] if source == "frames" else []
            lines.append("\t".join(map(str, (item.key, *counts, item.label))) + "\n")
        list_path = out_dir / list_template.format(split)
        list_path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(list_path) as file:
            file.writelines(lines)
    with replacing(out_dir / REPORT_FILE) as file:
        csv.writer(file, lineterminator="\n").writerows(report)
    if class_names is not None:
        with replacing(out_dir / "classes.txt") as file:
            file.writelines(f"{name}\n" for name in class_names)
