"""Times of the EMIM backends, as ratios of medians within one run."""

import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

from slowfast.ops.emim import BACKENDS, EmimRules, MotionWeights, emim_attention
from slowfast.utils.distributed import choose_device

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# A measurement repeats a short function for this long.
_MIN_RUN_SEC = 0.05


def time_in_turn(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time functions in turn, so that all see the same disturbances of the machine.

    Returns:
        For each name the median milliseconds of a call over the rounds, work that is queued on a GPU included.
    """
    threads = torch.get_num_threads()
    timers = {name: Timer("run()", globals={"run": run}, num_threads=threads) for name, run in functions.items()}
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, timer in timers.items():
            found[name].append(1000 * timer.blocked_autorange(min_run_time=_MIN_RUN_SEC).median)
    return {name: statistics.median(times) for name, times in found.items()}


def time_emim(
    clips: int, frames: int, size: int, heads: int, channels: int, window: int, precision: str, device: str, rounds: int
) -> tuple[str, dict]:
    """Time EMIM attention with every backend that can run: ``size`` x ``size`` tokens, ``channels`` of each head.

    Returns:
        The table as text; and ``machine``, ``title`` and ``times``: by backend ``forward_ms`` and ``step_ms``.
    """
    device = choose_device(device, 0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=DTYPES[precision], device=device, requires_grad=True)

    tokens = draw(clips, frames, size, size, 3, heads, channels)
    query, key, value = tokens.unbind(-3)  # views of one projection, as in the model
    places = window * window
    motion = MotionWeights(draw(4 * places, places), draw(4 * places), draw(channels, 4 * places), draw(channels))
    bias, rules = draw(heads, window, window), EmimRules()
    forward, steps = {}, {}
    for name, backend in BACKENDS.items():
        run = partial(emim_attention, query, key, value, window, bias, motion, rules, name)
        if backend.why_not(query, window, rules, False) is None:
            forward[name] = run
        if backend.why_not(query, window, rules, True) is None:
            steps[name] = partial(_step, run, (tokens, bias, *motion))
    with torch.no_grad():
        forward_ms = time_in_turn(forward, rounds)
    step_ms = time_in_turn(steps, rounds)
    title = f"EMIM attention, {clips} x {frames} x {size} x {size} tokens, {heads} heads of {channels}, window {window}"
    lines = [machine_line(device), f"{title}, {precision}, medians of {rounds} rounds in turn"]
    lines += ["in brackets: the speed, that of the reference being 1"]
    for name, ms in forward_ms.items():
        line = f"{name:>10}: forward {ms:9.3f} ms ({forward_ms['reference'] / ms:5.2f}x), "
        if name in step_ms:
            line += f"forward + backward {step_ms[name]:9.3f} ms ({step_ms['reference'] / step_ms[name]:5.2f}x)"
        lines.append(line if name in step_ms else f"{line}no gradients here")
    times = {name: {"forward_ms": ms, "step_ms": step_ms.get(name)} for name, ms in forward_ms.items()}
    return "\n".join(lines), {"machine": lines[0], "title": lines[1], "times": times}


def _step(run: Callable[[], torch.Tensor], inputs: Sequence[torch.Tensor]) -> None:
    out = run()
    torch.autograd.grad(out, inputs, torch.ones_like(out))


def machine_line(device: torch.device) -> str:
    """Return device, threads, version and date, without which a time means nothing."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    cpu = next((line.split(": ", 1)[-1] for line in lines if line.startswith("model name")), platform.machine())
    gpu = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, " if device.type == "cuda" else ""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return f"{gpu}{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}, {today}"
