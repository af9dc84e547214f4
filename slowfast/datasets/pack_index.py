"""The index of a pack: where in which tar shard the files of every clip lie.

It is one ``.npz`` file beside the shards, small enough to be kept in memory (12 bytes per file and less than 100 per
clip), and arrays only, so that forked workers share it. Dimension letters: `S` shards, `I` items (clips, videos or
images), `M` members (files) of all items.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np

from slowfast.datasets.storage import Storage

INDEX_FILE = "index.npz"

# Of a shard, at its start and at its end, that the fingerprint covers.
_EDGE_BYTES = 1 << 16
_CHECK_THREADS = 16
_VERSION = 1

# Fields that are kept in 32 bits where these suffice.
_COUNTS = ("item_shard", "num_members", "offsets", "sizes")


@dataclass(frozen=True, eq=False)
class PackIndex:
    """The members of all shards, item by item in the order in which they lie there.

    Attributes:
        plan: digest of what was to be packed; of the parts of an unfinished pack too.
        source: ``frames``, ``video`` or ``image``, what an item is.
        shards: (S,) file names.
        shard_bytes: (S,) sizes of the shards.
        fingerprints: (S,) checksums of the ends of the shards.
        keys: (I,) UTF-8 bytes, the names of the items.
        extensions: (I,) UTF-8 bytes, endings of the names of their files, without the dot.
        item_shard: (I,) in which shard an item lies.
        num_members: (I,) files of an item: frames of a folder, 1 for a video or an image.
        offsets: (M,) where the content of a file begins in its shard (bytes).
        sizes: (M,) of the content (bytes).
        checksums: (M,) CRC-32 of the content.
    """

    plan: str
    source: str
    shards: np.ndarray
    shard_bytes: np.ndarray
    fingerprints: np.ndarray
    keys: np.ndarray
    extensions: np.ndarray
    item_shard: np.ndarray
    num_members: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    checksums: np.ndarray

    def to_bytes(self) -> bytes:
        """Return the content of the index file: the same bytes for the same index."""
        arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        for name in _COUNTS:
            largest = int(arrays[name].max(initial=0))
            arrays[name] = arrays[name].astype(np.uint32 if largest < 1 << 32 else np.uint64)
        buffer = io.BytesIO()
        np.savez(buffer, version=np.int64(_VERSION), **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, origin: str) -> PackIndex:
        """Read the content of an index file; ``origin`` names it in messages.

        Raises:
            ValueError: it is no index, damaged, or of another version.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        # NumPy and zipfile raise what the damage leads them to.
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{origin} is not the index of a pack, or damaged: {error}") from error
        expected = {"version"} | {field.name for field in fields(cls)}
        if arrays.keys() != expected or int(arrays.pop("version")) != _VERSION:
            raise ValueError(f"{origin} is not an index of version {_VERSION}: pack the data again")
        index = cls(plan=str(arrays.pop("plan")), source=str(arrays.pop("source")), **arrays)
        num_members = int(index.num_members.sum())
        if not len(index.offsets) == len(index.sizes) == len(index.checksums) == num_members:
            raise ValueError(f"{origin} is damaged: its arrays disagree on the number of files")
        return index

    @classmethod
    def concatenate(cls, parts: Sequence[PackIndex]) -> PackIndex:
        """Join the indices of several shards of one pack."""
        first_shard = np.cumsum([0] + [len(part.shards) for part in parts])
        joined = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(cls)
            if field.name not in ("plan", "source", *_COUNTS)
        }
        # int64, because NumPy joins signed and unsigned numbers to floating-point ones.
        for name in ("num_members", "offsets", "sizes"):
            joined[name] = np.concatenate([getattr(part, name).astype(np.int64) for part in parts])
        item_shard = np.concatenate(
            [part.item_shard.astype(np.int64) + first for part, first in zip(parts, first_shard)]
        )
        return cls(plan=parts[0].plan, source=parts[0].source, item_shard=item_shard, **joined)

    def check_shards(self, storage: Storage) -> None:
        """Compare the shards with the index: their sizes, and the bytes at their ends.

        Raises:
            FileNotFoundError: a shard is missing.
            ValueError: a shard is not the one that was indexed.
        """

        def check(name: str, num_bytes: int, fingerprint: int) -> None:
            found = storage.size(name)
            if found != num_bytes:
                raise ValueError(
                    f"{storage.root}: shard {name} has {found} bytes, its index was made for {num_bytes}: the copy is "
                    "incomplete or the index stale; copy or pack the data again"
                )
            if shard_fingerprint(storage, name, found) != fingerprint:
                raise ValueError(
                    f"{storage.root}: shard {name} has other content than the one its index was made for: the index is "
                    "stale; pack the data again"
                )

        # Threads, because an object store takes its time for every request.
        with ThreadPoolExecutor(_CHECK_THREADS) as pool:
            for _ in pool.map(check, self.shards, self.shard_bytes, self.fingerprints):
                pass


def shard_fingerprint(storage: Storage, name: str, num_bytes: int) -> int:
    """Return the checksum of both ends of a shard; times are no proof, since copying changes them."""
    edge = min(_EDGE_BYTES, num_bytes)
    head, tail = storage.read(name, [(0, edge), (num_bytes - edge, edge)])
    return zlib.crc32(tail, zlib.crc32(head))


def load_index(storage: Storage) -> PackIndex:
    """Read the index of a finished pack and compare its shards with it.

    Raises:
        FileNotFoundError: there is no index, or a shard is missing.
        ValueError: the index is damaged or stale.
    """
    try:
        content = storage.read_all(INDEX_FILE)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{storage.root} (DATA.PACKED) has no {INDEX_FILE}: it is no pack, or packing was interrupted; "
            "`python tools/prepare_data.py pack` makes one and completes an interrupted one"
        ) from error
    index = PackIndex.from_bytes(content, f"{storage.root}/{INDEX_FILE}")
    try:
        index.check_shards(storage)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{storage.root}: a shard of {INDEX_FILE} is missing: {error}") from error
    return index
