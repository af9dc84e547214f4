"""Who is missing when the processes of a run wait for each other."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable

import torch.distributed as dist

logger = logging.getLogger(__name__)

_PERIOD_SEC = 1.0
# A process that gives no sign for this long while others look at it is taken for dead or stopped.
_LOOK_SEC = 6.0


class Attendance:
    """Signs of life of this process in the store of the group, and what can be read from those of the others.

    A collective that does not complete names nobody: gloo and NCCL know only that their neighbour is silent. So every
    process notes once a second, from a thread, which collective it has come to. One whose notes stop is dead, stopped
    or cut off; one whose notes go on but count fewer collectives is held up by something else than the others.

    Args:
        store: of the group; used from a thread, over a connection of its own.
        rank: of this process.
        names: what to call each process, in order of rank.
        patience_sec: seconds without a new collective after which a warning says who is waited for.
    """

    def __init__(self, store: dist.Store, rank: int, names: list[str], patience_sec: float = 60.0) -> None:
        self._store = store.clone()
        self._rank = rank
        self._names = names
        self._patience_sec = patience_sec
        self._count, self._position, self._entered = 0, "start", time.monotonic()
        self._beat, self._has_failed = 0, False
        self._over = threading.Event()
        self._lock = threading.Lock()  # of the connection: the thread's notes, the main thread's questions
        self._note()
        self._thread = threading.Thread(target=self._keep, name="attendance", daemon=True)

    def start(self) -> None:
        """Begin to note; every process must have made its own before."""
        self._thread.start()

    def enter(self, position: str) -> None:
        """Note that this process has come to a collective."""
        self._count, self._position, self._entered = self._count + 1, position, time.monotonic()

    def stop(self) -> None:
        """Leave; the last note stays."""
        self._over.set()
        self._thread.join(timeout=2 * _PERIOD_SEC)

    def explain_failure(self) -> str:
        """Say who is missing, after an error in a collective; takes some seconds in which the others are watched."""
        self._has_failed = True
        try:
            self._note()
            missing = self._missing(watch=time.sleep).values()
        except (RuntimeError, ValueError):
            missing = [f"{self._names[0]} does not answer, and it (or its torchrun agent) keeps the notes of all"]
        if self._rank == 0:
            time.sleep(_LOOK_SEC)  # the notes may go with this process, and the others are still reading
        here = f"{self._names[self._rank]} waited in {self._position} (collective {self._count})"
        found = "; ".join(missing) or "all processes are alive and have come as far: look at the network between them"
        return f"{here}; {found}"

    def _missing(self, watch: Callable[[float], None]) -> dict[int, str]:
        """Return what is wrong with each missing process, by rank; ``watch`` passes the seconds in between."""
        before = self._notes()
        watch(_LOOK_SEC)
        missing = {}
        for rank, (old, new) in enumerate(zip(before, self._notes())):
            reached = f"{new['position']} (collective {new['count']})"
            if new["has_failed"]:
                continue  # it waited, like this one
            if new["beat"] == old["beat"]:
                missing[rank] = (
                    f"no sign of life from {self._names[rank]}: stopped, killed or cut off, last in {reached}"
                )
            elif new["count"] < self._count:
                missing[rank] = f"{self._names[rank]} is alive, but has only come to {reached}"
        return missing

    def _notes(self) -> list[dict]:
        with self._lock:
            notes = self._store.multi_get([f"attendance/{rank}" for rank in range(len(self._names))])
        return [json.loads(note) for note in notes]

    def _note(self) -> None:
        self._beat += 1
        note = {
            "beat": self._beat, "count": self._count, "position": self._position, "has_failed": self._has_failed,
        }  # fmt: skip
        with self._lock:
            self._store.set(f"attendance/{self._rank}", json.dumps(note))

    def _keep(self) -> None:
        warn_at = self._patience_sec
        try:
            while self._goes_on_for(_PERIOD_SEC):
                waited = time.monotonic() - self._entered
                if waited < self._patience_sec:
                    warn_at = self._patience_sec
                elif waited >= warn_at and not self._has_failed:
                    warn_at = 2 * waited
                    self._warn(waited)
        except (RuntimeError, ValueError):
            return  # the store has gone with its process; the collectives will fail too

    def _goes_on_for(self, seconds: float) -> bool:
        """Note every period for some seconds; return whether the run goes on after them."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._over.wait(_PERIOD_SEC):
            self._note()
        return not self._over.is_set()

    def _warn(self, waited: float) -> None:
        missing = self._missing(watch=self._goes_on_for)
        present = [rank for rank in range(len(self._names)) if rank not in missing]
        if missing and self._rank == present[0] and not self._over.is_set():  # one of them is enough to say it
            logger.warning("waiting for %.0f s in %s: %s", waited, self._position, "; ".join(missing.values()))
