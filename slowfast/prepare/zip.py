"""Packing: the files of a data set, unchanged, in a few large ZIP files, which ``datasets.decoder.zip`` reads.

A pack is a folder with ``00000.zip``, ``00001.zip``, ..., lists ``SPLIT.txt`` (name, number of frames of a clip, label,
with tabs between them), ``classes.txt``, and ``pack.json`` that tells packs apart. A ZIP file gets its name when it is
complete, and the lists are written last: packing again completes an interrupted pack.
"""

import hashlib
import io
import logging
import os
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from slowfast.config.parser import CfgNode
from slowfast.datasets.build import SPLITS, build_dataset
from slowfast.datasets.decoder import DecodeError
from slowfast.datasets.decoder.zip import FRAMES_ENDING
from slowfast.datasets.manifest import Record
from slowfast.datasets.video_dataset import VideoDataset
from slowfast.utils.errors import UserError
from slowfast.utils.files import claimed, replacing
from slowfast.utils.logging import progress_bar

logger = logging.getLogger(__name__)


def pack_data(
    cfg: CfgNode, out_dir: str | Path, splits: Sequence[str] = SPLITS, items_per_zip: int = 2000, workers: int = 16
) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Pack splits of any data set, or complete an interrupted pack; items that cannot be read are left out.

    ``out_dir`` is new, empty or has the same pack; each of the ``workers`` (threads) writes one ZIP file at a time.

    Returns:
        Numbers of items packed and left out by split, and the settings that make the configuration read the pack.
    """
    if cfg.DATA.PACKED:
        raise UserError(f"DATA.PACKED is {cfg.DATA.PACKED!r}; packing reads the files themselves: leave it empty")
    if cfg.DATA.DATASET == "Rendered":
        raise UserError("DATA.DATASET is Rendered, which has no files; `prepare_data.py stimuli` writes its clips")
    out_dir = Path(out_dir)
    datasets = {split: build_dataset(cfg, split) for split in splits}
    dataset = datasets[splits[0]]
    records = list({record.path: record for one in datasets.values() for record in one.records}.values())
    source = "video"
    with suppress(DecodeError), dataset.open(records[0]) as reader:  # only videos are looked at when they are opened
        source = reader.source
    folder = os.path.commonpath({os.path.dirname(os.path.abspath(record.path)) for record in records})
    names = {record.path: os.path.relpath(record.path, folder) for record in records}
    items = hashlib.sha256(repr(names).encode()).hexdigest()
    claim = claimed(out_dir / "pack.json", {"source": source, "items_per_zip": items_per_zip, "items": items})
    starts = range(0, len(records), items_per_zip)
    with claim, ThreadPoolExecutor(workers) as pool:
        parts = [(out_dir / f"{i:05d}.zip", records[start : start + items_per_zip]) for i, start in enumerate(starts)]
        written = pool.map(lambda part: _write_zip(*part, names, dataset), parts)
        packed = set().union(*progress_bar(written, len(parts), "packing", unit="file"))
        counts = {split: _write_list(out_dir / f"{split}.txt", one, names, packed) for split, one in datasets.items()}
        if dataset.class_names:
            with replacing(out_dir / "classes.txt") as file:
                file.writelines(f"{name}\n" for name in dataset.class_names)
    folder = os.path.abspath(out_dir)
    settings = {"PACKED": folder, "PATH_TO_DATA_DIR": folder, "DATASET": "VideoList", "SOURCE": source}
    settings |= {"LABEL_PATH_TEMPLATE": "{}.txt", "PATH_PREFIX": "", "EXCLUDE_FILE": ""}
    return counts, {f"DATA.{key}": value for key, value in settings.items() if cfg.DATA[key] != value}


def _write_zip(path: Path, records: Sequence[Record], names: dict[str, str], dataset: VideoDataset) -> set[str]:
    """Write a ZIP file unless it has all items, and return the names of its members."""
    if path.exists():
        with zipfile.ZipFile(path) as shard:
            packed = set(shard.namelist())
        if all({names[record.path], names[record.path] + FRAMES_ENDING} & packed for record in records):
            return packed
    with replacing(path, "wb") as file, zipfile.ZipFile(file, "w") as shard:
        for record in records:
            try:
                ending, content = _read_item(record, dataset)
            except (DecodeError, OSError) as error:
                logger.warning("left out: %s", error)
                continue
            # Without a time: the same files give the same pack.
            shard.writestr(zipfile.ZipInfo(names[record.path] + ending), content)
    return set(shard.namelist())


def _read_item(record: Record, dataset: VideoDataset) -> tuple[str, bytes]:
    """Return the content of a video or image, or of a ZIP file of the frames of a clip, and the ending to add."""
    if os.path.isfile(record.path):
        return "", Path(record.path).read_bytes()
    buffer = io.BytesIO()
    with dataset.open(record) as reader, zipfile.ZipFile(buffer, "w") as clip:
        for name in reader.names:
            clip.writestr(zipfile.ZipInfo(name), reader.read_file(name))
    return FRAMES_ENDING, buffer.getvalue()


def _write_list(path: Path, dataset: VideoDataset, names: dict[str, str], packed: set[str]) -> tuple[int, int]:
    """Write the list of a split and return the numbers of items in it and left out."""
    lines = []
    for record in dataset.records:
        name = names[record.path]
        if name in packed:
            lines.append(f"{name}\t{record.label_text}\n")
        elif name + FRAMES_ENDING in packed:
            lines.append(f"{name}\t{dataset.open(record).num_frames}\t{record.label_text}\n")
    with replacing(path) as file:
        file.writelines(lines)
    return len(lines), len(dataset.records) - len(lines)
