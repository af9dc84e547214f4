"""Cost of whole models: operations counted, and times and memory as ratios within one run."""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from slowfast.benchmark.op import DTYPES, machine_line, time_in_turn
from slowfast.config import configuration_name, load_cfg
from slowfast.datasets.build import with_num_classes
from slowfast.engine.test import autocast
from slowfast.models import build_model
from slowfast.models.complexity import count_macs, count_parameters, training_clip_shape
from slowfast.utils.distributed import choose_device
from slowfast.utils.errors import UserError


def count_flops(cfg: str, opts: Sequence[str]) -> tuple[str, dict]:
    """Count the parameters of a configuration (a file), and its multiply-accumulates for one training clip.

    Returns:
        The table as text; and ``parameters`` and ``gflops``, also ``by_stage`` and ``by_kind`` of operator.
    """
    settings = load_cfg(cfg, opts)
    try:
        settings = with_num_classes(settings)
    except UserError as error:
        raise UserError(f"MODEL.NUM_CLASSES is 0, and the data do not tell it: {error}; or set it") from error
    with torch.device("meta"):
        model = build_model(settings)
    counts = count_macs(model, training_clip_shape(settings))
    found = {"cfg": cfg, "parameters": count_parameters(model), "gflops": counts.macs / 1e9}
    size = _text(training_clip_shape(settings))
    lines = [f"{cfg}: {found['parameters']:,} parameters"]
    lines += [f"{found['gflops']:.2f} GFLOPs (multiply-accumulates, as papers print them) per clip of {size}"]
    for title, macs in (("stage", counts.by_stage), ("kind", counts.by_kind)):
        found[f"by_{title}"] = {name: value / 1e9 for name, value in macs.items()}
        lines.append(f"{title:<32} GFLOPs    share")
        lines += [f"  {name:<28} {value / 1e9:8.2f} {value / counts.macs:8.1%}" for name, value in macs.items()]
    return "\n".join(lines), found


def time_models(
    cfg: str,
    against: Sequence[str],
    opts: Sequence[str],
    precision: Sequence[str],
    device: str,
    clips: int,
    rounds: int,
) -> tuple[str, dict]:
    """Time forward passes and training steps (forward, loss, backward) of models in turn, and measure their memory.

    Args:
        cfg: configuration file of the model that the others are compared with.
        against: further configuration files, of clips of the same size; ``opts`` are over all of them.
        precision: names in ``DTYPES``; forward passes have weights of that type, training steps autocast.

    Returns:
        The table as text; and ``machine``, ``clip`` and a list of ``models``: ``name``, ``precision``, the medians
        ``forward_ms`` and ``step_ms``, and ``forward_bytes`` and ``step_bytes``, see ``peak_bytes``.
    """
    # Values play no part in times nor a few classes in memory, and weights to start from or data may not be there.
    names = [configuration_name(path) for path in (cfg, *against)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"several configurations are called {twice[0]}, and lines by their names; allowed: other files")
    cfgs = {configuration_name(path): load_cfg(path, [*opts, "MODEL.PRETRAINED", ""]) for path in (cfg, *against)}
    classes = {name: settings.MODEL.NUM_CLASSES or 2 for name, settings in cfgs.items()}
    cfgs = {name: settings.with_settings("MODEL.NUM_CLASSES", classes[name]) for name, settings in cfgs.items()}
    sizes = {name: training_clip_shape(settings) for name, settings in cfgs.items()}
    if len(set(sizes.values())) > 1:
        raise UserError(f"clips (DATA.NUM_FRAMES, DATA.TRAIN_CROP_SIZE) must be of one size, found {sizes}")
    size, where = next(iter(sizes.values())), choose_device(device, 0)
    batch = torch.randn(clips, *size, device=where)
    models = {name: build_model(settings) for name, settings in cfgs.items()}
    lines = [machine_line(where), f"batches of {clips} x {_text(size)}, medians of {rounds} rounds in turn"]
    lines += ["in brackets: the speed and the memory, those of the first line being 1 and 100 %"]
    width = max(map(len, models))
    lines.append(f"{'':{width + 6}}  {'forward':<32}  forward + backward")
    rows: list[dict] = []
    for name_of_type in precision:
        forward, steps = {}, {}
        for name, model in models.items():
            inference = copy.deepcopy(model).to(where, DTYPES[name_of_type]).eval()
            forward[name] = partial(_forward, inference, batch.to(DTYPES[name_of_type]))
            steps[name] = partial(_step, copy.deepcopy(model).to(where).train(), batch, name_of_type)
        ms = {"forward": time_in_turn(forward, rounds), "step": time_in_turn(steps, rounds)}
        for name in models:
            rows.append({"name": name, "precision": name_of_type})
            for kind, functions in (("forward", forward), ("step", steps)):
                rows[-1] |= {f"{kind}_ms": ms[kind][name], f"{kind}_bytes": peak_bytes(functions[name], where)}
            columns = [_column(rows[-1], rows[0], kind) for kind in ms]
            lines.append(f"{name:{width}} {name_of_type:>5}  {'  '.join(columns)}")
    return "\n".join(lines), {"machine": lines[0], "clip": f"{clips} x {_text(size)}", "rounds": rounds, "models": rows}


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Return the peak of the memory that tensors take in a call, beyond what is held before it.

    Tensors alone are counted, on a GPU and on a CPU alike; a library's own scratch memory is not.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())


def _forward(model: nn.Module, clips: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(clips)


def _step(model: nn.Module, clips: torch.Tensor, precision: str) -> None:
    with autocast(precision, clips.device)():
        logits = model(clips)
    F.cross_entropy(logits.float(), torch.zeros(len(clips), dtype=torch.int64, device=clips.device)).backward()
    model.zero_grad(set_to_none=True)  # gradients are part of the memory of the step


def _column(row: dict, base: dict, kind: str) -> str:
    ms, num_bytes = row[f"{kind}_ms"], row[f"{kind}_bytes"]
    speed, memory = base[f"{kind}_ms"] / ms, num_bytes / base[f"{kind}_bytes"]
    return f"{ms:8.1f} ms ({speed:5.2f}x) {num_bytes / 2**20:5.0f} MiB ({100 * memory:3.0f} %)"


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape[1:]))
