"""Memory of training: an estimate before the first step, the largest micro-batch that fits, and what was used."""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from slowfast.engine.precision import autocast

logger = logging.getLogger(__name__)

MIB = 2**20

# Share of the memory that is free now which "auto" may plan with: the estimate knows nothing of temporary tensors.
CPU_SHARE = 0.5


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training holds: for parameters with gradients and optimizer state, and for every clip of a pass."""

    fixed: int
    per_clip: int

    def of(self, clips: int) -> int:
        """Return the bytes for passes of ``clips`` clips."""
        return self.fixed + clips * self.per_clip


def estimate_memory(
    model: nn.Module, clip_shape: tuple[int, int, int, int], precision: str, states_per_parameter: int
) -> MemoryEstimate:
    """Estimate the memory of training without computing anything.

    Activations are what the backward pass keeps of one clip, each storage counted once; recomputed blocks keep nothing.
    Temporary tensors and the allocator's reserve come on top.

    Args:
        model: on any device; it is left unchanged.
        clip_shape: (3, T, H, W).
        precision: fp32, bf16 or fp16.
        states_per_parameter: tensors beside weight and gradient: 2 for AdamW, 1 for SGD, one more for moving averages.
    """
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    kept: dict[int, int] = {}
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        # On the CPU, so that the estimate is the same everywhere.
        fakes = {name: torch.empty_like(tensor, device="cpu") for name, tensor in tensors.items()}
        for name, parameter in model.named_parameters():
            fakes[name].requires_grad_(parameter.requires_grad)
        own = {fake.untyped_storage()._cdata for fake in fakes.values()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage.nbytes()
            return tensor

        assert mode is not None
        clips = torch.empty((2, *clip_shape))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(precision, clips.device):
            logits = torch.func.functional_call(model, fakes, (clips,))
            F.cross_entropy(logits.float(), torch.zeros(2, dtype=torch.int64))
    return MemoryEstimate(fixed=(2 + states_per_parameter) * parameters, per_clip=sum(kept.values()) // 2)


def choose_micro_batch(
    model: nn.Module,
    clip_shape: tuple[int, int, int, int],
    precision: str,
    estimate: MemoryEstimate,
    clips_per_step: int,
    device: torch.device,
    processes_per_node: int,
) -> int:
    """Return the largest number of clips, a halving of ``clips_per_step``, with which a pass fits into memory.

    On CUDA passes are tried, beginning with all clips, beside what the optimizer will need. On a CPU, where the system
    kills what takes too much, the estimate decides.

    Args:
        model: on ``device``; parameters and buffers are left as they are, gradients are freed.
        clip_shape: (3, T, H, W).
        precision: fp32, bf16 or fp16.
        estimate: of this model and precision.
        clips_per_step: of this process.
        device: where training runs.
        processes_per_node: that share the memory of a CPU.
    """
    size = clips_per_step
    if device.type == "cuda":
        while size > 1 and not _fits(model, clip_shape, precision, estimate, size, device):
            size = (size + 1) // 2
        return size
    budget = CPU_SHARE * available_bytes() / processes_per_node
    while size > 1 and estimate.of(size) > budget:
        size = (size + 1) // 2
    return size


def _fits(model, clip_shape, precision, estimate, size, device) -> bool:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        reserve = torch.empty(estimate.fixed, dtype=torch.uint8, device=device)  # gradients and optimizer state to come
        clips = torch.randn((size, *clip_shape), device=device)
        with autocast(precision, device):
            logits = model(clips)
        logits.float().sum().backward()
        del reserve
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        model.zero_grad(set_to_none=True)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        torch.cuda.empty_cache()


def available_bytes() -> int:
    """Return the memory that new allocations may take without swapping, within the limits of a container."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return 8 * 2**30
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip().isdigit():
        available = min(available, int(limit.read_text()) - int(used.read_text()))
    return max(available, 0)


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that was in use so far: allocated on a CUDA device, else resident of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
