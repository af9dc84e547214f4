"""Video Motion Prompts against values of the released module, and in front of every backbone."""

import copy
import multiprocessing
import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo  # which wrappers of several processes import: here once, not in every process
from helpers_engine import free_port, state
from helpers_models import awake, make_cfg, tiny_cfg, tiny_model
from torch.nn.parallel import DistributedDataParallel

from slowfast.datasets.sampling import DenseSampler
from slowfast.engine.train import accumulate_gradients
from slowfast.models import MODEL_REGISTRY, Model, build_model
from slowfast.models.complexity import count_gmacs
from slowfast.models.motion_prompt import MotionPrompt, Prompted
from slowfast.models.pretrained import load_pretrained
from slowfast.utils.distributed import process_group
from slowfast.utils.errors import UserError

STD = (0.225,) * 3
ON = {"VMP__ENABLE": True, "AUG__RE_PROB": 0.0}
VIDEO_MODELS = sorted(name for name, kind in MODEL_REGISTRY if kind.TINY.get("DATA.NUM_FRAMES") != 1)

# Four frames of two pixels in [0, 1], and what the released module makes of them with m 0.3, n -0.2 in float64.
RED = [[0.1, 0.9], [0.2, 0.9], [0.4, 0.5], [0.4, 0.1]]
GREEN = [[0.3, 0.2], [0.3, 0.2], [0.6, 0.2], [0.5, 0.4]]
BLUE = [[0, 1], [0.5, 1], [0.5, 0], [1, 0]]
EXPECTED = {
    "rgb": {
        "red": [-1.09818959, 1.85679235, -0.2221182, 0.01698269, -0.20575826, -1.43914806],
        "green": [-0.65891376, -1.0315513, 0.6663546, -0.08491346, 0.20575826, -0.20559258],
        "blue": [0.21963792, 2.26941287, 0.2221182, -0.15284423, 2.26334084, -1.85033322],
        "penalty": 0.72588573,
    },
    "released": {
        "red": [-1.10848076, 1.85679235, -0.22199072, 0.00165297, -0.2198448, -1.53058757],
        "penalty": 0.90091580,
    },
}


def prompt_of(grey="rgb", init=(0.3, -0.2)):
    return MotionPrompt(STD, grey, init).double()


def set_exactly(prompt, m=0.3, n=-0.2):
    with torch.no_grad():
        prompt.m.fill_(m)
        prompt.n.fill_(n)
    return prompt


def example():
    levels = torch.tensor([RED, GREEN, BLUE], dtype=torch.float64)  # (3, T + 1, W)
    return ((levels - 0.45) / 0.225)[None, :, :, None]


@pytest.mark.parametrize("grey", EXPECTED)
def test_values_of_the_released_module(grey):
    prompt, expected = set_exactly(prompt_of(grey)), EXPECTED[grey]
    prompts, variation = prompt(example())
    for channel, name in enumerate(("red", "green", "blue")):
        if name in expected:
            found = prompts[0, channel].flatten()
            torch.testing.assert_close(found, torch.tensor(expected[name], dtype=torch.float64), rtol=0, atol=1e-7)
    assert 2 * variation.item() == pytest.approx(expected["penalty"], abs=1e-7)
    if grey == "released":
        gradients = torch.autograd.grad(prompts.sum() + 2 * variation, (prompt.m, prompt.n))
        assert [x.item() for x in gradients] == pytest.approx([-1.45194817, -2.81999531], abs=1e-7)
    assert prompt.scalars()["slope"] == pytest.approx(21.63652855) and prompt.shift.item() == pytest.approx(-0.11842519)


def test_properties_of_the_layer():
    clips, prompt = torch.randn(2, 3, 5, 6, 7, dtype=torch.float64), prompt_of()
    prompts, variation = prompt(clips)
    assert prompts.shape == (2, 3, 4, 6, 7) and variation.shape == ()
    ratio = prompts / clips[:, :, 1:]
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))  # one map for the three channels, the later frame
    mirrored = copy.deepcopy(prompt)
    with torch.no_grad():
        mirrored.m.neg_()
    assert torch.equal(mirrored(clips)[0], prompts)
    still = clips[:, :, :1].expand(-1, -1, 5, -1, -1)
    prompts, variation = prompt(still)
    torch.testing.assert_close(prompts, (-prompt.slope * prompt.shift).sigmoid() * still[:, :, 1:])
    assert variation == 0
    assert torch.autograd.gradcheck(
        lambda m, n: torch.func.functional_call(prompt, {"m": m, "n": n}, clips), (prompt.m, prompt.n)
    )
    with pytest.raises(UserError, match="need 2 frames or more"):
        prompt(clips[:, :, :1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(dtype):
    for m, n in ((50.0, 50.0), (-50.0, 0.01), (0.01, -50.0)):
        prompt = set_exactly(MotionPrompt(STD), m, n)
        clips = torch.randn(2, 3, 4, 8, 8, requires_grad=True)
        with torch.autocast("cpu", dtype):
            prompts, variation = prompt(clips.to(dtype))
        assert prompts.dtype == dtype
        (prompts.float().square().mean() + variation).backward()
        assert all(x.isfinite().all() for x in (prompts, clips.grad, prompt.m.grad, prompt.n.grad))


@pytest.mark.parametrize("name", VIDEO_MODELS)
def test_every_backbone_behind_the_layer(name, tmp_path):
    torch.manual_seed(0)
    model = awake(tiny_model(name, **ON, VMP__PENALTY=2.0))
    assert isinstance(model, Prompted) and model.head is model.model.head
    clips = torch.randn(2, 3, 5, 64, 64)
    logits = model(clips)
    (logits.square().sum() + model.penalty).backward()
    assert model.penalty > 0 and not [key for key, p in model.named_parameters() if p.grad is None]
    groups = model.layer_groups()
    assert not groups or {x for group in groups for x in group} == set(model.parameters())
    model.eval()
    prompts = model.prompts(clips)
    assert model.penalty == 0 and torch.equal(model(clips), model.model(prompts))
    # The plain backbone's file fills it, and the other way round.
    plain = tiny_model(name)
    torch.save({"model": plain.state_dict()}, tmp_path / "plain.pth")
    report = load_pretrained(model, str(tmp_path / "plain.pth"))
    assert report.missing == ["vmps.m", "vmps.n"] and not report.unexpected
    torch.save(model.state_dict(), tmp_path / "prompted.pth")
    assert load_pretrained(plain, str(tmp_path / "prompted.pth")).unexpected == ["vmps.m", "vmps.n"]
    assert count_gmacs(model, (3, 5, 64, 64)) == count_gmacs(plain, (3, 4, 64, 64))


def test_a_run_with_prompts(run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = ("VMP.ENABLE", True, "VMP.PENALTY", 0.5, "VMP.INIT", "[0.3, -0.2]", "AUG.RE_PROB", 0.0)
    assert run(*settings, "TENSORBOARD.ENABLE", True, "SOLVER.MAX_EPOCH", 1).status == 0
    resumed = run(*settings, "TENSORBOARD.ENABLE", True, tasks=("train", "test"))
    assert resumed.status == 0 and "attention_of_stills" in resumed.out and "test: top-1" in resumed.out
    saved = state(tmp_path / "run", "epoch_00002.pyth")["model_state"]
    assert saved["vmps.m"].shape == (1,) and saved["vmps.m"] != torch.tensor([0.3]) and "model.head.weight" in saved
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    board.Reload()
    variation, penalty = (board.Scalars(f"model/{name}")[1].value for name in ("variation", "penalty"))
    assert penalty == pytest.approx(0.5 * variation) and penalty > 0
    assert len(board.Scalars("model/slope")) == 2 and board.Scalars("model/m")[1].value == pytest.approx(
        saved["vmps.m"].item()
    )
    refused = run("VMP.ENABLE", True, "OUTPUT_DIR", tmp_path / "new")
    assert refused.status == 2 and "AUG.RE_MODE is pixel with VMP.ENABLE" in refused.err


class Means(Model):
    """A classifier of mean colours: a clip's gradient is its own, without batch norms."""

    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 4)

    def forward(self, clips):
        return self.head(clips.mean((2, 3, 4)))


def gradients(rank, world_size, port, path):
    """Save the penalty and the gradients of a step over this process's share of eight clips."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    clips, targets = torch.randn(8, 3, 5, 6, 7).double().chunk(world_size)[rank], torch.eye(4).repeat(2, 1).double()
    with process_group("cpu"):
        model = Prompted(set_exactly(MotionPrompt(STD)), Means(), 2.0).double()
        wrapped = DistributedDataParallel(model) if world_size > 1 else model
        taken = SimpleNamespace(model=wrapped, plain_model=model, scaler=torch.amp.GradScaler("cpu", enabled=False))
        plan = SimpleNamespace(micro_batch=0, clips_per_step=len(clips), autocast=nullcontext)
        plan.loss = torch.nn.CrossEntropyLoss(reduction="sum")
        accumulate_gradients(taken, clips, targets.chunk(world_size)[rank], plan, 1.0)
        penalty = model.penalty.detach()
        if world_size > 1:
            torch.distributed.all_reduce(penalty)
        torch.save([penalty / world_size, *(p.grad for p in model.parameters())], f"{path}{rank}")


@pytest.mark.dist
def test_two_processes_have_the_penalty_and_the_gradients_of_one(tmp_path):
    fork, port = multiprocessing.get_context("fork"), free_port()
    runs = [(rank, size, port, tmp_path / f"{size}_") for size in (1, 2) for rank in range(size)]
    processes = [fork.Process(target=gradients, args=arguments) for arguments in runs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    alone, first, second = (torch.load(tmp_path / name) for name in ("1_0", "2_0", "2_1"))
    torch.testing.assert_close(first, alone, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert all(gradient.abs().max() > 1e-4 for gradient in alone[1:])


def test_short_videos_are_stretched_where_asked():
    assert DenseSampler(5, 4, stretch=True).test(9, 0, 1).tolist() == [0, 2, 4, 6, 8]
    assert DenseSampler(5, 4).test(9, 0, 1).tolist() == [0, 4, 8, 8, 8]
    assert DenseSampler(5, 4, stretch=True).test(100, 1, 2).tolist() == DenseSampler(5, 4).test(100, 1, 2).tolist()


def test_wrong_settings_are_named():
    for settings, message in (
        ({**ON, "DATA__SOURCE": "image"}, "still images do not move"),
        ({**ON, "DATA__NUM_FRAMES": 1, "VMP__PENALTY": 1.0}, "VMP.PENALTY 1 compares"),
    ):
        with pytest.raises(UserError, match=message), torch.device("meta"):
            build_model(make_cfg(**settings))
    assert tiny_cfg("Uniformer", **ON).VMP.ENABLE
