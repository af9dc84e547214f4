"""Batch norms and residual position encodings folded into the layers beside them: the same function, fewer passes."""

from __future__ import annotations

import copy

import torch
from torch import nn

from slowfast.models.layers import BATCH_NORM, AttentionBlock, ConvBlock
from slowfast.models.uniformer import Uniformer


@torch.no_grad()
def folded(model: Uniformer) -> Uniformer:
    """Return a copy for inference in which no batch norm is left, and no sum after the position encodings.

    A batch norm that is not training is a scale and a shift per channel, which go into the weights of the layer behind
    it (stages 1 and 2, and the head); ``x + pos_embed(x)`` is one convolution whose kernel has one more in its centre.
    The parameters have other values then and must not be trained or saved as those of the model. ``forward_features``
    returns the map before the last norm.

    Args:
        model: UniFormer for clips or images; it is left alone.

    Raises:
        ValueError: another model, whose norms may lie elsewhere.
    """
    if not isinstance(model, Uniformer):
        raise ValueError(f"batch norms are folded in UniFormers alone (TEST.FOLD_NORMS), not in {type(model).__name__}")
    model = copy.deepcopy(model).eval()
    for block in model.modules():
        if isinstance(block, (ConvBlock, AttentionBlock)):
            _add_identity(block.pos_embed)
            block.is_folded = True
        if isinstance(block, ConvBlock):
            _fold(block.norm1, block.conv1)
            _fold(block.norm2, block.mlp.fc1)
            block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    _fold(model.norm, model.head)  # the mean over places lies between them, and is linear too
    model.norm = nn.Identity()
    return model


def _add_identity(depthwise: nn.Module) -> None:
    centre = tuple(size // 2 for size in depthwise.kernel_size)
    depthwise.weight[(slice(None), 0, *centre)] += 1


def _fold(norm: nn.Module, layer: nn.Module) -> None:
    """Put ``norm`` into ``layer``, a linear layer or a convolution of kernel 1 that reads its output."""
    assert isinstance(norm, tuple(BATCH_NORM.values()))
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    matrix = layer.weight.flatten(1)
    layer.bias += matrix @ shift
    layer.weight.copy_((matrix * scale).view_as(layer.weight))
