"""EMIM with its appearance branch through NATTEN's neighbourhood attention (github.com/SHI-Labs/NATTEN, 0.21).

NATTEN keeps windows inside the map and has no relative bias; both are made up for here, exactly. On a map padded by the
window's radius the windows around the original places are never moved. And as a K x K window covers every residue
(y mod K, x mod K) once, a one-hot code of its residue in K * K extra channels lets each key pick its bias out of extra
channels of the query, in which the bias table lies permuted by the query's own residue.

NATTEN returns no affinities, so those that the motion branch reads are made beside it. ``Y X`` is the padded grid.
"""

import functools
import warnings

import torch
import torch.nn.functional as F

from slowfast.ops.emim.dense import affinity
from slowfast.ops.emim.motion import motion_features, scale_and_bias
from slowfast.ops.emim.rules import EmimRules

_MIN_HEAD_DIM, _MAX_HEAD_DIM = 8, 512  # of FlexAttention, which takes powers of two


def attend_natten(query, key, value, window, relative_bias, motion, rules):
    """EMIM between the frames of pairs, (B, F, H, W, N, D) each; see :func:`slowfast.ops.emim.emim_attention`."""
    out = _context(query, key, value, window, relative_bias, rules.pad_value)
    if motion is None:
        return out
    bias = None if relative_bias is None else relative_bias.flatten(1)  # (N, P)
    products = affinity(query, key, window, rules.pad_value)  # (B, F, H, W, N, P)
    return out + motion_features(scale_and_bias(products, bias, query.shape[-1]), motion).to(out.dtype)


def _context(query, key, value, window: int, relative_bias, pad_value: float) -> torch.Tensor:
    """Return F of Eq. 4 for tokens (B, F, H, W, N, D), queries not scaled, and a bias (N, K, K)."""
    natten, _ = _import_natten()
    batch, frames, height, width, _, channels = query.shape
    radius = window // 2
    query, key, value = (
        F.pad(x.flatten(0, 1), (0, 0, 0, 0, radius, radius, radius, radius), value=fill)  # (B*F, Y, X, N, D)
        for x, fill in ((query, 0.0), (key, pad_value), (value, pad_value))
    )
    if relative_bias is not None:
        query_code, key_code = _bias_codes(relative_bias * channels**0.5, *query.shape[1:3])
        query = torch.cat((query, query_code.to(query).expand(*query.shape[:-1], -1)), dim=-1)  # (B*F, Y, X, N, D+K*K)
        key = torch.cat((key, key_code.to(key).expand(*key.shape[:-1], -1)), dim=-1)  # (B*F, Y, X, N, D+K*K)
    head_dim = max(_MIN_HEAD_DIM, 1 << (query.shape[-1] - 1).bit_length())
    # Values must be as wide as queries and keys; the channels added here are zero.
    query, key, value = (F.pad(x, (0, head_dim - x.shape[-1])) for x in (query, key, value))
    out = natten.na2d(query, key, value, kernel_size=window, scale=channels**-0.5)  # (B*F, Y, X, N, head_dim)
    out = out[:, radius : radius + height, radius : radius + width, :, :channels]
    return out.unflatten(0, (batch, frames))


def why_not_natten(query: torch.Tensor, window: int, rules: EmimRules, needs_grad: bool) -> str | None:
    """Return why NATTEN cannot run EMIM (with a relative bias), or None if it can."""
    if rules.padding != "constant":
        return f"NATTEN has no masks, found EMIM.PADDING {rules.padding!r}"
    natten, error = _import_natten()
    if natten is None:
        return f"natten cannot be imported ({error}); see requirements-natten.txt"
    if query.device.type not in ("cpu", "cuda"):
        return f"NATTEN runs on CPU and CUDA tensors, found {query.device.type}"
    if query.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"NATTEN computes in float32, float16 and bfloat16, found {query.dtype}"
    if window < 2:
        return f"NATTEN has no windows of one token, found window {window}"
    if natten.HAS_LIBNATTEN and query.is_cuda:
        return None
    if needs_grad:
        # What remains is FlexAttention. It raises on CPUs; on GPUs NATTEN calls training with it highly discouraged.
        return f"gradients on {query.device.type} need NATTEN's compiled library, which is not there (HAS_LIBNATTEN)"
    channels = query.shape[-1] + window * window
    limit = f"NATTEN without its compiled library takes at most {_MAX_HEAD_DIM} channels per head, with a bias"
    return f"{limit}; {query.shape[-1]} and its {window}^2 make {channels}" if channels > _MAX_HEAD_DIM else None


def _bias_codes(bias: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return extra channels of queries, (Y, X, N, K*K), and keys, (Y, X, 1, K*K), whose product is ``bias`` (N, K, K).

    Channel a * K + b belongs to keys at places with y mod K = a and x mod K = b.
    """
    window = bias.shape[-1]
    device = bias.device
    residue = torch.arange(window, device=device)
    # From row y, the key of residue a in the window lies at index (a - y + R) mod K of that window.
    rows = (residue - torch.arange(height, device=device)[:, None] + window // 2) % window  # (Y, K)
    columns = (residue - torch.arange(width, device=device)[:, None] + window // 2) % window  # (X, K)
    query_code = bias[:, rows[:, None, :, None], columns[None, :, None, :]]  # (N, Y, X, K, K)
    own_row = torch.arange(height, device=device)[:, None] % window == residue  # (Y, K)
    own_column = torch.arange(width, device=device)[:, None] % window == residue  # (X, K)
    key_code = own_row[:, None, :, None] & own_column[None, :, None, :]  # (Y, X, K, K)
    return query_code.permute(1, 2, 0, 3, 4).flatten(-2), key_code.flatten(-2)[:, :, None]


@functools.cache
def _import_natten():
    """Import it late, since that takes time; return the package and "", or None and the reason."""
    try:
        import natten
    except (ImportError, OSError, RuntimeError) as error:  # a compiled library may not fit torch or the GPU's driver
        return None, f"{type(error).__name__}: {error}"
    # Two warnings of its use of FlexAttention, about which nobody here can do anything.
    for message in ("return_lse is deprecated", "flex_attention called without torch.compile"):
        warnings.filterwarnings("ignore", message, module=r"torch\.nn\.attention")
    return natten, ""
