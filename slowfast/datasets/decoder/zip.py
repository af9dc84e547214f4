"""Packs: a folder, or an fsspec URL of one, with uncompressed ZIP files of a few thousand items each.

A video or an image is a member under its path; a clip of frames is a ZIP file in the ZIP file, ``PATH.zip``: the
directories of millions of frames need not be held. An item is read with one request.
"""

import io
import zipfile
import zlib
from collections.abc import Sequence

import fsspec
import numpy as np

from slowfast.datasets.decoder import DecodeError, FrameFolder, FrameReader, ImageFile, open_video
from slowfast.datasets.manifest import Record
from slowfast.utils.errors import UserError

FRAMES_ENDING = ".zip"


class PackedOpener:
    """Function that opens records whose paths are ``root/name`` as ``source``; it may be forked and pickled."""

    def __init__(self, root: str, source: str, backend: str = "auto") -> None:
        self.root, self.source, self.backend = root, source, backend
        names, places = [], []
        try:
            fs, folder = fsspec.core.url_to_fs(root)
            self._shards = sorted(path for path in fs.ls(folder, detail=False) if path.endswith(".zip"))
            for number, path in enumerate(self._shards):
                with fs.open(path) as file, zipfile.ZipFile(file) as shard:
                    members = shard.infolist()
                    starts = [*(member.header_offset for member in members), shard.start_dir]
                if starts[0] > 0:  # the end record found is that of a clip
                    raise zipfile.BadZipFile(f"{path} is truncated")
                names += [member.filename.encode() for member in members]
                places += [(number, starts[i], starts[i + 1], m.file_size, m.CRC) for i, m in enumerate(members)]
        except Exception as error:  # every fsspec package has errors of its own
            raise UserError(f"DATA.PACKED is {root}, which cannot be read: {type(error).__name__}: {error}") from error
        if not names:
            raise UserError(f"DATA.PACKED is {root}, which has no ZIP files; `prepare_data.py pack` makes them")
        # Arrays instead of a dictionary: forked workers share them, whereas touching Python objects copies memory.
        order = np.argsort(names, kind="stable")
        self._names, self._places = np.array(names)[order], np.array(places)[order]

    def check(self, records: Sequence[Record]) -> None:
        """Raise UserError if a record is not in the pack."""
        missing = [record for record, place in zip(records, self._find(records), strict=True) if place < 0]
        if missing:
            raise UserError(
                f"{missing[0].origin}: {self._name(missing[0])!r} is not in {self.root} (DATA.PACKED), and so are "
                f"{len(missing)} of {len(records)} items; use the lists beside the ZIP files"
            )

    def __call__(self, record: Record) -> FrameReader:
        """Open a record."""
        place = self._find([record])[0]
        if place < 0:
            raise DecodeError(record.path, f"not in {self.root}")
        number, start, end, size, checksum = self._places[place].tolist()
        try:
            fs, _ = fsspec.core.url_to_fs(self.root)  # kept by fsspec, for each process
            block = fs.cat_file(self._shards[number], start, end)
        except Exception as error:
            raise DecodeError(record.path, f"{self._shards[number]} cannot be read: {error}") from error
        # The content follows a header of 30 bytes, the name and extra fields, whose lengths stand in the header.
        content = block[30 + int.from_bytes(block[26:28], "little") + int.from_bytes(block[28:30], "little") :][:size]
        if len(content) < size or (self.source != "frames" and zlib.crc32(content) != checksum):
            raise DecodeError(record.path, f"truncated or damaged in {self._shards[number]}")
        if self.source == "video":
            return open_video(record.path, self.backend, content)
        return (PackedFrames if self.source == "frames" else ImageFile)(record.path, content)

    def _name(self, record: Record) -> str:
        ending = FRAMES_ENDING if self.source == "frames" else ""
        return record.path.removeprefix(self.root).lstrip("/") + ending

    def _find(self, records: Sequence[Record]) -> np.ndarray:
        """Return the places (len(records),) of records, -1 where there is none."""
        wanted = np.array([self._name(record).encode() for record in records])
        place = np.minimum(np.searchsorted(self._names, wanted), len(self._names) - 1)
        return np.where(self._names[place] == wanted, place, -1)


class PackedFrames(FrameFolder):
    """Clip whose frames are the members of a ZIP file (its bytes ``content``), in that order."""

    def __init__(self, path: str, content: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except zipfile.BadZipFile as error:
            raise DecodeError(path, f"its ZIP file is damaged: {error}") from error
        self.path, self.names = path, self._zip.namelist()
        self.num_frames = len(self.names)

    def read_file(self, name: str) -> bytes:
        try:
            return self._zip.read(name)  # which compares the checksum
        except zipfile.BadZipFile as error:
            raise ValueError(f"damaged: {error}") from error
