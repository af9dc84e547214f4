"""Cases and checks for the Triton kernels of EMIM, on a GPU or, as a script, in the interpreter on CPU tensors.

TRITON_INTERPRET=1 python tests/ops/triton_cases.py prints a JSON object a line: the name of a case, and its traceback
or null.
"""

import dataclasses
import json
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import pytest
import torch
from emim_oracle import leaves, make_inputs
from torch.utils.flop_counter import FlopCounterMode

from slowfast.ops.emim import EmimRules, MotionWeights, emim_attention
from slowfast.ops.emim.triton import triton_forward

# Largest error of a result or gradient, by norm. The interpreter rounds bfloat16 towards zero; GPUs make float32
# products of three in TF32, and exponentials approximately.
TOLERANCE = {torch.float32: {"cpu": 2e-6, "cuda": 1e-5}}
TOLERANCE[torch.float16] = {"cpu": 2e-3, "cuda": 2e-3}
TOLERANCE[torch.bfloat16] = {"cpu": 2e-2, "cuda": 2e-2}
VISIBLE = EmimRules(pad_value=0.5)  # with 1e-6 an error outside the image would drown in rounding


@dataclasses.dataclass(frozen=True)
class Case:
    """Sizes and rules; ``hidden`` None is 4 P, 0 no motion features."""

    frames: int
    height: int
    width: int
    window: int
    rules: EmimRules = VISIBLE
    heads: int = 1
    channels: int = 32
    hidden: int | None = None
    has_bias: bool = True
    clips: int = 1
    dtype: torch.dtype = torch.float32
    autocast: torch.dtype | None = None
    layout: str = "projection"  # query, key and value as views of one tensor; or "separate", of unequal strides


def _rules(**kwargs) -> EmimRules:
    return EmimRules(pad_value=0.5, **kwargs)


CASES = [
    # Windows smaller, as large and larger than the map; maps that patches do not divide; one frame, one row.
    Case(2, 7, 7, 7),
    Case(2, 4, 5, 7, heads=2),
    Case(2, 7, 7, 11),
    Case(1, 3, 4, 5),
    Case(3, 1, 6, 3, heads=2),
    Case(2, 14, 14, 7, channels=64),
    Case(2, 6, 11, 5, clips=2, channels=64),
    Case(2, 3, 3, 1),
    Case(2, 3, 4, 3, clips=0),
    # Rules.
    Case(2, 5, 4, 5, EmimRules(), heads=2),
    Case(3, 5, 4, 3, _rules(last_frame="self"), heads=2),
    Case(5, 4, 5, 3, _rules(temporal_interval=2), clips=2),
    Case(3, 4, 5, 3, _rules(temporal_interval=2)),  # one frame has no pair within the clip, though others repeat
    Case(5, 4, 5, 3, _rules(temporal_interval=2, last_frame="self")),
    Case(3, 5, 4, 5, _rules(padding="mask"), heads=2),
    Case(3, 5, 4, 7, _rules(padding="mask", last_frame="self"), has_bias=False),
    # Without some of the parts; hidden channels that blocks do not divide.
    Case(2, 5, 4, 5, hidden=0, has_bias=False),
    Case(2, 5, 4, 5, has_bias=False, hidden=5),
    Case(2, 5, 4, 3, layout="separate", heads=2, clips=2),
    # Dtypes.
    Case(2, 7, 7, 7, dtype=torch.float16, heads=2),
    Case(3, 5, 4, 5, EmimRules(padding="mask"), dtype=torch.float16, channels=64),
    Case(2, 7, 7, 7, dtype=torch.bfloat16, heads=2),
    Case(3, 5, 4, 5, _rules(last_frame="self"), dtype=torch.bfloat16, channels=64),
    Case(2, 5, 4, 5, autocast=torch.bfloat16),
    Case(2, 5, 4, 5, dtype=torch.float16, autocast=torch.float16),
]


def draw(case: Case, device: str):
    """Return the inputs of a case, and the same values in float64 on the CPU; all are leaves."""
    places = case.window**2
    hidden = 4 * places if case.hidden is None else case.hidden
    query, key, value, window, bias, motion = make_inputs(
        case.frames, case.height, case.width, case.window, case.clips, case.heads, case.channels, max(hidden, 1)
    )
    scales = (places**-0.5, 1, max(hidden, 1) ** -0.5, 1)
    weight_dtype = torch.float32 if case.autocast else case.dtype

    def place(x, dtype, scale=1.0):
        return (x.detach() * scale).to(device, dtype).requires_grad_()

    tokens = [place(x, case.dtype) for x in (query, key, value)]
    bias = place(bias, weight_dtype) if case.has_bias else None
    motion = MotionWeights(*(place(x, weight_dtype, s) for x, s in zip(motion, scales))) if hidden else None
    exact = [None if x is None else x.detach().cpu().double().requires_grad_() for x in (*tokens, bias)]
    exact_motion = motion and MotionWeights(*(x.detach().cpu().double().requires_grad_() for x in motion))
    return (*tokens, window, bias, motion), (*exact[:3], window, exact[3], exact_motion)


def run(case: Case, inputs, backend: str):
    query, key, value, *others = inputs
    if case.layout == "projection":
        query, key, value = torch.stack((query, key, value), dim=-3).unbind(-3)
    else:
        query = query.transpose(2, 3).contiguous().transpose(2, 3)
        key = key.transpose(0, 1).contiguous().transpose(0, 1)
    return emim_attention(query, key, value, *others, case.rules, backend)


def check_errors(case: Case, device: str) -> None:
    """Compare the result and every gradient with the definition in float64."""
    inputs, exact = draw(case, device)
    with torch.autocast(device, case.autocast, enabled=case.autocast is not None):
        found = run(case, inputs, "triton")
    assert found.dtype == case.dtype
    expected = run(case, exact, "reference")
    grad = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(found.dtype)
    gradients = torch.autograd.grad(found, leaves(inputs), grad.to(device))
    wanted = torch.autograd.grad(expected, leaves(exact), grad.double())
    names = ["query", "key", "value"] + ["bias"] * case.has_bias + list(MotionWeights._fields if inputs[-1] else ())
    pairs = zip(["out", *names], [found, *gradients], [expected, *wanted])
    errors = {name: _error(a.detach().cpu().double(), b) for name, a, b in pairs}
    assert max(errors.values()) <= TOLERANCE[case.autocast or case.dtype][device], errors


def _error(found, expected) -> float:
    assert found.shape == expected.shape
    if not found.isfinite().all():
        return float("inf")
    # The floor is for gradients that cancel, as those of the softmax over a single place do.
    floor = 0.1 * max(expected.numel(), 1) ** 0.5
    return ((found - expected).norm() / expected.norm().clamp(min=floor)).item()


def arguments_of(case: Case, device: str):
    query, key, value, window, bias, motion = draw(case, device)[0]
    pairs = case.frames - case.rules.temporal_interval if case.rules.last_frame == "repeat" else case.frames
    settings = (window, pairs, case.rules.temporal_interval, case.rules.padding == "mask", 0.5, torch.float32)
    return (query, key, value, bias, list(motion or ()), *settings)


def check_registration(device: str) -> None:
    """Schema, autograd registration, fake tensors, and tracing with dynamic shapes."""
    for case in (Case(2, 3, 4, 3), Case(2, 3, 4, 3, VISIBLE, has_bias=False, hidden=0)):
        torch.library.opcheck(triton_forward, arguments_of(case, device))


def check_compilation(device: str) -> None:
    """One graph, with the results of eager mode."""
    case = Case(3, 4, 5, 3, heads=2)
    inputs, _ = draw(case, device)
    torch._dynamo.reset()
    compiled = torch.compile(run, fullgraph=True, backend="inductor" if device == "cuda" else "aot_eager")
    found, expected = compiled(case, inputs, "triton"), run(case, inputs, "triton")
    torch.testing.assert_close(found, expected)
    for a, b in zip(*(torch.autograd.grad(x.square().sum(), leaves(inputs)) for x in (found, expected))):
        torch.testing.assert_close(a, b)


def check_same_in_every_run(device: str) -> None:
    large = [Case(3, 14, 14, 7, clips=2, heads=3, channels=64, dtype=x) for x in (torch.float32, torch.bfloat16)]
    for case in large if device == "cuda" else [Case(2, 5, 4, 3, heads=2)]:
        inputs, _ = draw(case, device)
        first, second = (run(case, inputs, "triton") for _ in range(2))
        assert torch.equal(first, second)
        grads = [torch.autograd.grad(x.float().square().sum(), leaves(inputs)) for x in (first, second)]
        assert all(torch.equal(a, b) for a, b in zip(*grads))


def check_counts(device: str) -> None:
    """As many operations as the dense path, which counts by the equations."""
    case = Case(4, 3, 2, 3, _rules(temporal_interval=2), heads=2)
    totals = []
    for backend in ("triton", "dense"):
        inputs, _ = draw(case, device)
        with FlopCounterMode(display=False) as counter:
            run(case, inputs, backend).sum().backward()
        totals.append(counter.get_total_flops())
    assert totals[0] == totals[1], totals


def check_second_derivative_raises(device: str) -> None:
    case = Case(2, 3, 4, 3)
    inputs, _ = draw(case, device)
    (grad,) = torch.autograd.grad(run(case, inputs, "triton").sum(), inputs[0], create_graph=True)
    with pytest.raises(NotImplementedError, match="EMIM.BACKEND dense"):
        grad.sum().backward()


CHECKS = (check_registration, check_compilation, check_same_in_every_run, check_counts, check_second_derivative_raises)


def main() -> None:
    torch.set_num_threads(1)
    # Deterministic mode fills what torch.empty returns with NaN: a place that nobody writes shows.
    torch.use_deterministic_algorithms(True)
    jobs = [(repr(case), check_errors, (case, "cpu")) for case in CASES]
    jobs += [(check.__name__, check, ("cpu",)) for check in CHECKS]
    for name, check, arguments in jobs:
        failure = None
        try:
            check(*arguments)
        except Exception:
            failure = traceback.format_exc()
        print(json.dumps({"name": name, "failure": failure}), flush=True)


if __name__ == "__main__":
    main()
