"""EMIM (arXiv 2510.18705) beside, or in place of, the attention of the blocks of other libraries' networks."""

import torch
from torch import nn

from slowfast.models.attention import EmimAttention
from slowfast.utils.errors import UserError


class EmimBeside:
    """Forward hook of an attention: EMIM of the same normalised tokens is added to the result.

    Args:
        emim: maps (B, T, H, W, C) to that shape.
        grid: frames, height and width of the tokens of frames, (B T, tokens before the grid + H W, C), such as a class
            token, to which nothing is added; None where tokens are (B, T, H, W, C).
        num_first: tokens before the grid.
    """

    def __init__(self, emim: EmimAttention, grid: tuple[int, int, int] | None = None, num_first: int = 0) -> None:
        self.emim, self.grid, self.num_first = emim, grid, num_first

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if self.grid is None:
            return output + self.emim(inputs[0])
        frames, height, width = self.grid
        num_tokens = inputs[0].shape[1] - self.num_first
        if num_tokens != height * width:
            raise UserError(
                f"emim has a grid of {height} x {width} tokens, frames have {num_tokens}; allowed: one size"
            )
        tokens = inputs[0][:, self.num_first :].unflatten(1, (height, width)).unflatten(0, (-1, frames))
        added = self.emim(tokens).flatten(0, 1).flatten(1, 2)  # (B T, H W, C)
        return output + nn.functional.pad(added, (0, 0, self.num_first, 0))


class OnGrid:
    """Hooks of an attention on tokens (B T, H W, C) that itself maps (B, T, H, W, C): ``split`` before, ``join`` after.

    ``grid`` are frames, height and width of the tokens.
    """

    def __init__(self, grid: tuple[int, int, int]) -> None:
        self.grid = grid

    def split(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], masks: dict) -> tuple[tuple, dict]:
        return (inputs[0].unflatten(1, self.grid[1:]).unflatten(0, (-1, self.grid[0])),), {}

    def join(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output.flatten(0, 1).flatten(1, 2)


def add_emim(
    stages: dict[int, list[nn.Module]],
    every: int,
    cfg,
    grid: tuple[int, int, int] | None = None,
    in_place: bool = False,
    num_first: int = 0,
) -> None:
    """Put EMIM beside the attention of one in ``every`` blocks of each stage, from its first on, as ``block.emim``.

    Its projection starts at zero: at first the network is the plain one, exactly. EMIM ``in_place`` of the attention is
    ``block.attn``, with its projections, so that files of the plain network fill it: but it is another network from
    the start, since a token attends to a window of the next frame and to nothing else.

    Args:
        stages: blocks with an attention ``attn`` by the stage whose keys of the section EMIM count, 3 or 4.
        grid, num_first: see :class:`EmimBeside`; in place there may be no tokens before the grid.
    """
    if every < 1:
        raise UserError(f"MODEL.ARGS: emim_in_place needs emim, one in so many blocks, found {every}")
    for stage, blocks in stages.items():
        for block in blocks[::every]:
            attention = getattr(block, "attn", None)
            if not hasattr(attention, "qkv") or not hasattr(attention, "num_heads"):
                rule = "blocks with an attention attn of qkv and num_heads"
                raise UserError(f"MODEL.ARGS: emim needs {rule}, {cfg.MODEL.MODEL_NAME} has {type(block).__name__}")
            emim = EmimAttention.from_config(cfg, stage, attention.qkv.in_features, attention.num_heads)
            if in_place:
                emim.qkv, emim.proj, block.attn = attention.qkv, attention.proj, emim
                if grid is not None:
                    hooks = OnGrid(grid)
                    emim.register_forward_pre_hook(hooks.split, with_kwargs=True)
                    emim.register_forward_hook(hooks.join)
                continue
            nn.init.trunc_normal_(emim.qkv.weight, std=0.02)
            for x in (emim.qkv.bias, emim.proj.weight, emim.proj.bias):
                nn.init.zeros_(x)
            block.emim = emim
            attention.register_forward_hook(EmimBeside(emim, grid, num_first))
