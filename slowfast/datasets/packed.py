"""Reading packs: the clips, videos and images that ``pack.py`` put into tar shards.

Of a clip, only the needed frames are read: byte ranges that the index names, without opening a file per frame. For 16
of 100 frames a folder takes 16 opened files, a local pack none once its shard is open, and both read the same bytes.
Where the operating system has the files in memory this hardly matters: with JPEG frames of 427x240 (34 kB), one core
and the two readers in turn, getting the bytes was 1.7 times as fast from the pack, and reading and decoding them 1.01
times, since decoding takes nearly all of the time. The gain is in storage that takes its time for every file it opens,
such as network file systems without the files in memory, which was not measured.
`tools/benchmark.py loader --cfg FILE`, with and without DATA.PACKED, tells for one's own.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from slowfast.datasets.decoder import DecodeError, FrameReader, ImageFile, open_video
from slowfast.datasets.decoder.packed_frames import PackedFile, PackedFrames
from slowfast.datasets.manifest import Record
from slowfast.datasets.pack_index import INDEX_FILE, load_index
from slowfast.datasets.storage import open_storage


class PackedOpener:
    """Opens the records of a list whose paths are ``root/key``, by the index of the pack in ``root``.

    Args:
        root: folder or fsspec URL of the shards and their index.
        source: ``frames``, ``video`` or ``image``, what the pack must hold.
        backend: video decoder, see ``decoder.open_video``.

    Raises:
        FileNotFoundError: no index, or a shard is missing.
        ModuleNotFoundError: the protocol of the URL needs a package that is not installed.
        ValueError: a stale or damaged index, or a pack of another source.
    """

    def __init__(self, root: str, source: str, backend: str) -> None:
        self.root = root
        self.backend = backend
        self.storage = open_storage(root)
        self.index = load_index(self.storage)
        if self.index.source != source:
            raise ValueError(f"{root} (DATA.PACKED) holds {self.index.source!r}, DATA.SOURCE is {source!r}")
        # Arrays instead of a dictionary: forked workers share them, whereas touching Python objects copies memory.
        self._order = np.argsort(self.index.keys, kind="stable")
        self._sorted_keys = self.index.keys[self._order]
        self._first_member = np.concatenate([[0], np.cumsum(self.index.num_members, dtype=np.int64)])

    def check(self, records: Sequence[Record]) -> None:
        """Compare records with the index.

        Raises:
            ValueError: a record is not in the pack, or has another number of frames there.
        """
        items = self._find([self._key(record) for record in records])
        missing = np.flatnonzero(items < 0)
        if len(missing):
            first = records[missing[0]]
            raise ValueError(
                f"{len(missing)} of {len(records)} items of the list are not in {INDEX_FILE} of {self.root} "
                f"(DATA.PACKED), the first: {first.origin}: {self._key(first)!r}; use the lists written beside the "
                "shards (DATA.PATH_TO_DATA_DIR)"
            )
        for record, item in zip(records, items, strict=True):
            packed = int(self.index.num_members[item])
            if record.num_frames not in (None, packed):
                raise ValueError(f"{record.origin}: num_frames is {record.num_frames}, the pack holds {packed} frames")

    def __call__(self, record: Record) -> FrameReader:
        """Open a record.

        Raises:
            DecodeError: it is not in the pack, or cannot be read.
        """
        key = self._key(record)
        item = int(self._find([key])[0])
        if item < 0:
            raise DecodeError(record.path, f"{key} is not in {INDEX_FILE} of {self.root}")
        members = PackedMembers(self, record.path, item)
        if self.index.source == "frames":
            return PackedFrames(members)
        if self.index.source == "image":
            return PackedFile(members, ImageFile)
        # FFmpeg considers the ending of the name when it looks for the container format.
        file_name = f"{record.path}.{members.extension}"
        return PackedFile(members, lambda _, content: open_video(file_name, self.backend, content))

    def _key(self, record: Record) -> str:
        return record.path.removeprefix(self.root).lstrip("/\\")

    def _find(self, keys: list[str]) -> np.ndarray:
        """Return the items (len(keys),) with these keys, -1 where there is none."""
        wanted = np.array([key.encode() for key in keys])
        place = np.minimum(np.searchsorted(self._sorted_keys, wanted), len(self._sorted_keys) - 1)
        return np.where(self._sorted_keys[place] == wanted, self._order[place], -1)


class PackedMembers:
    """The files of one item.

    Attributes:
        path: of the record.
        num_members: number of files.
        extension: ending of their names, without the dot.
    """

    def __init__(self, pack: PackedOpener, path: str, item: int) -> None:
        self.path = path
        self.num_members = int(pack.index.num_members[item])
        self.extension = pack.index.extensions[item].decode()
        self._pack = pack
        self._item = item
        self._first = int(pack._first_member[item])

    def name(self, number: int) -> str:
        """Say which file it is, for messages."""
        index = self._pack.index
        number = number if index.source == "frames" else None
        return f"member {member_name(index.keys[self._item].decode(), self.extension, number)} of {self._shard}"

    def read(self, numbers: Sequence[int]) -> list[bytes]:
        """Return the content of files.

        Raises:
            DecodeError: it cannot be read, or differs from what was packed.
        """
        index = self._pack.index
        members = [self._first + number for number in numbers]
        ranges = [(int(index.offsets[member]), int(index.sizes[member])) for member in members]
        try:
            contents = self._pack.storage.read(self._shard, ranges)
        except OSError as error:
            raise DecodeError(self.path, f"{self.name(numbers[0])} cannot be read: {error}") from error
        for number, member, (_, size), content in zip(numbers, members, ranges, contents, strict=True):
            if len(content) < size:
                raise DecodeError(self.path, f"{self.name(number)} is truncated: {len(content)} of {size} bytes")
            if zlib.crc32(content) != index.checksums[member]:
                raise DecodeError(self.path, f"{self.name(number)} is damaged: its checksum differs from the index")
        return contents

    @property
    def _shard(self) -> str:
        return str(self._pack.index.shards[self._pack.index.item_shard[self._item]])


def member_name(key: str, extension: str, number: int | None) -> str:
    """Return the name of a file inside its shard: ``key.extension``, or ``key.00001.extension`` for frame 0.

    WebDataset tools take what precedes the first dot of a file name for the sample and the rest for the field.
    """
    frame = "" if number is None else f".{number + 1:05d}"
    return f"{key}{frame}.{extension}"
