"""Where the numbers of a run go: one JSON line per event, and TensorBoard."""

from __future__ import annotations

from slowfast.utils.logging import EventLog


class Recorder:
    """Records events of a run.

    Args:
        output_dir: folder of the run; ``log.jsonl`` and ``tensorboard/`` are written there.
        enabled: False records nothing (all processes but the main one).
        tensorboard: write scalars to TensorBoard too.
    """

    def __init__(self, output_dir: str, enabled: bool, tensorboard: bool) -> None:
        self._events = EventLog(output_dir, enabled)
        self._writer = None
        if enabled and tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(f"{output_dir}/tensorboard")

    def event(self, name: str, **fields) -> None:
        """Append a JSON line."""
        self._events.write(name, **fields)

    def scalars(self, name: str, step: int, **fields: float) -> None:
        """Append a JSON line and draw every field at ``step`` (training steps since the start of the run)."""
        self.event(name, step=step, **fields)
        if self._writer is not None:
            for field, value in fields.items():
                self._writer.add_scalar(f"{name}/{field}", value, step)

    def text(self, name: str, content: str) -> None:
        """Show preformatted text in TensorBoard."""
        if self._writer is not None:
            indented = "\n".join(f"    {line}" for line in content.splitlines())
            self._writer.add_text(name, indented)

    def close(self) -> None:
        """Write out what is still in memory."""
        if self._writer is not None:
            self._writer.close()
