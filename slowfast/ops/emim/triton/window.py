"""Attention of a patch of tokens to the windows around them in the paired frame, forward and backward, in Triton.

A program owns a patch of TH x TW tokens, at most BM. What their windows reach inside the image lies in KH x KW tokens,
at most BN, so that all products are dense tiles of queries x keys for the tensor cores; a precomputed ``bias_tile``
holds the relative bias where the key is in the query's window and NOTHING where it is not. The whole window of a query
is in one tile: the softmax is direct. Places outside the image are one virtual key, ``pad`` in every channel, with
affinity c = scale * pad * sum(q) plus each place's own bias; ``share`` is the log of the sum of exp(bias) over them.

Affinities are written as the bands of ``mlp`` (names and dtypes are explained there): first whole rows as if
every place lay outside the image, then, behind a barrier, what lies inside. No atomics: gradients of keys and values
are gathered by the program that owns them. Exponentials and logs are to base 2, for which there are instructions.

Pairs of frames: pair f < F of a clip has queries from frame f and keys from frame f + step, or f if that is beyond the
clip.
"""

from __future__ import annotations

import triton
import triton.language as tl

NOTHING = tl.constexpr(-1e30)  # finite, so that rows without tokens make no NaN
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _places(
    i_t, H, W,
    RADIUS: tl.constexpr, TH: tl.constexpr, TW: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Return rows, columns and mask of the tokens of patch ``i_t``, and of those that their windows reach."""
    across = tl.cdiv(W, TW)
    top = i_t // across * TH
    left = i_t % across * TW
    o_m = tl.arange(0, BM)
    y = top + o_m // TW
    x = left + o_m % TW
    m_own = (o_m < TH * TW) & (y < H) & (x < W)
    o_n = tl.arange(0, BN)
    near_y = tl.maximum(tl.minimum(top - RADIUS, H - KH), 0) + o_n // KW
    near_x = tl.maximum(tl.minimum(left - RADIUS, W - KW), 0) + o_n % KW
    m_near = (o_n < KH * KW) & (near_y < H) & (near_x < W)
    return y, x, m_own, near_y, near_x, m_near


@triton.jit
def _pair(H, W, T, F, step, patches, clip_stride, frame_stride, D: tl.constexpr):
    """Return patch, pair and head of a program; its frame among those of all clips; where queries, keys, rows start."""
    i_t = tl.program_id(0) % patches
    i_f = tl.program_id(0) // patches
    i_h = tl.program_id(1)
    clip = (i_f // F).to(tl.int64)
    source = i_f % F
    target = tl.where(source + step < T, source + step, source)
    start = clip * clip_stride + i_h * D
    at_q = start + source.to(tl.int64) * frame_stride
    at_k = start + target.to(tl.int64) * frame_stride
    row = (i_h.to(tl.int64) * (tl.num_programs(0) // patches) + i_f) * H * W
    return i_t, i_f, i_h, clip * T + source, at_q, at_k, row


@triton.jit
def _offsets(
    y, x, near_y, near_x, W, token_stride, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Return the numbers of a patch's tokens, and offsets of their channels, of those in reach, and of the tile."""
    token = y * W + x
    o_d = tl.arange(0, D)[None, :]
    o_tile = tl.arange(0, BM)[:, None] * BN + tl.arange(0, BN)[None, :]
    return token, token[:, None] * token_stride + o_d, (near_y * W + near_x)[:, None] * token_stride + o_d, o_tile


@triton.jit
def _window_offsets(token, y, x, near_y, near_x, K: tl.constexpr, PS: tl.constexpr):
    """Return offsets in a band; a key's displacement is its place minus the query's: one number for each of them."""
    return (token * PS - (y * K + x))[:, None] + ((near_y + K // 2) * K + near_x + K // 2)[None, :]


@triton.jit
def attend_forward(
    q, k, v,  # (B, T, H*W, N, D) with strides of clips, frames and tokens
    out,  # (B, T, H*W, N, D)
    band, lse,  # (N, B*F, H*W, PS); (N, B*F, H*W), to base 2
    bias, share, bias_tile,  # (N, K*K), (N, H*W), (N, patches, BM, BN)
    H, W, T, F, step, heads, patches, clip_stride, frame_stride, token_stride, scale, pad,
    K: tl.constexpr, D: tl.constexpr, PS: tl.constexpr, BP: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    USE_BAND: tl.constexpr, USE_MASK: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write attended values, log of the softmax's sum, and (USE_BAND) affinities of one patch of one pair and head."""
    i_t, _, i_h, frame, at_q, at_k, row = _pair(H, W, T, F, step, patches, clip_stride, frame_stride, D)
    y, x, m_q, near_y, near_x, m_k = _places(i_t, H, W, K // 2, TH, TW, KH, KW, BM, BN)
    token, o_q, o_k, o_tile = _offsets(y, x, near_y, near_x, W, token_stride, D, BM, BN)
    o_p = tl.arange(0, BP)
    b_q = tl.load(q + at_q + o_q, mask=m_q[:, None], other=0.0)
    b_k = tl.load(k + at_k + o_k, mask=m_k[:, None], other=0.0)
    b_v = tl.load(v + at_k + o_k, mask=m_k[:, None], other=0.0)
    p_bias = bias_tile + (i_h * patches + i_t) * (BM * BN) + o_tile
    b_bias = tl.load(p_bias)
    b_c = tl.sum(b_q.to(tl.float32), 1) * (scale * pad)
    p_band = band + row * PS
    if USE_BAND:
        b_pad = tl.load(bias + i_h * (K * K) + o_p, mask=o_p < K * K, other=0.0)
        if USE_MASK:
            b_pad = tl.zeros((BM, BP), tl.float32)
        else:
            b_pad = tl.where((o_p < K * K)[None, :], b_c[:, None] + b_pad[None, :], 0.0)
        m_row = m_q[:, None] & (o_p < PS)[None, :]
        tl.store(p_band + (token[:, None] * PS + o_p[None, :]), b_pad.to(band.dtype.element_ty), mask=m_row)
        tl.debug_barrier()

    b_s = tl.dot(b_q.to(DOT), tl.trans(b_k.to(DOT)), input_precision=PRECISION) * scale + b_bias
    if USE_BAND:
        o_window = _window_offsets(token, y, x, near_y, near_x, K, PS)
        b_bias = tl.load(p_bias)  # again, since held until here it would take registers that are not there
        tl.store(p_band + o_window, b_s.to(band.dtype.element_ty), mask=b_bias > NOTHING)
    b_max = tl.max(b_s, 1) * LOG2_E
    if not USE_MASK:
        b_virtual = (b_c + tl.load(share + i_h * (H * W) + token, mask=m_q, other=NOTHING)) * LOG2_E
        b_max = tl.maximum(b_max, b_virtual)
    b_e = tl.exp2(b_s * LOG2_E - b_max[:, None])
    b_sum = tl.sum(b_e, 1)
    b_out = tl.dot(b_e.to(DOT), b_v.to(DOT), input_precision=PRECISION)
    if not USE_MASK:
        b_virtual = tl.exp2(b_virtual - b_max)
        b_sum += b_virtual
        b_out += (b_virtual * pad)[:, None]
    b_out = b_out * (1.0 / b_sum)[:, None]
    p_out = out + (frame * H * W * heads + i_h) * D + (token[:, None] * (heads * D) + tl.arange(0, D)[None, :])
    tl.store(p_out, b_out.to(out.dtype.element_ty), mask=m_q[:, None])
    tl.store(lse + row + token, b_max + tl.log2(b_sum), mask=m_q)


@triton.jit
def attend_backward_query(
    q, k, v,  # (B, T, H*W, N, D) with strides of clips, frames and tokens
    grad_out,  # (B, F, H*W, N, D)
    lse, bias, share, bias_tile,  # (N, B*F, H*W) to base 2, (N, K*K), (N, H*W), (N, patches, BM, BN)
    grad_band, grad_affinity,  # (N, B*F, H*W, PS), through the motion features and in all
    grad_q,  # (B, T, H*W, N, D)
    H, W, T, F, step, heads, patches, clip_stride, frame_stride, token_stride, scale, pad,
    K: tl.constexpr, D: tl.constexpr, PS: tl.constexpr, BP: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    USE_BAND: tl.constexpr, USE_MASK: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the affinities and of the queries of one patch of one pair and head."""
    i_t, i_f, i_h, frame, at_q, at_k, row = _pair(H, W, T, F, step, patches, clip_stride, frame_stride, D)
    y, x, m_q, near_y, near_x, m_k = _places(i_t, H, W, K // 2, TH, TW, KH, KW, BM, BN)
    token, o_q, o_k, o_tile = _offsets(y, x, near_y, near_x, W, token_stride, D, BM, BN)
    o_p = tl.arange(0, BP)
    o_out = token[:, None] * (heads * D) + tl.arange(0, D)[None, :]
    b_q = tl.load(q + at_q + o_q, mask=m_q[:, None], other=0.0)
    b_k = tl.load(k + at_k + o_k, mask=m_k[:, None], other=0.0).to(DOT)
    b_v = tl.load(v + at_k + o_k, mask=m_k[:, None], other=0.0).to(DOT)
    b_do = tl.load(grad_out + (i_f.to(tl.int64) * H * W * heads + i_h) * D + o_out, mask=m_q[:, None], other=0.0)
    b_lse = tl.load(lse + row + token, mask=m_q, other=0.0)
    p_bias = bias_tile + (i_h * patches + i_t) * (BM * BN) + o_tile
    b_bias = tl.load(p_bias)
    b_s = tl.dot(b_q.to(DOT), tl.trans(b_k), input_precision=PRECISION) * scale + b_bias
    b_p = tl.exp2(b_s * LOG2_E - b_lse[:, None])
    b_dp = tl.dot(b_do.to(DOT), tl.trans(b_v), input_precision=PRECISION)
    b_delta = tl.sum(b_p * b_dp, 1)

    p_affinity = grad_affinity + row * PS
    o_row = token[:, None] * PS + o_p[None, :]
    m_row = m_q[:, None] & (o_p < PS)[None, :]
    if USE_MASK:
        b_pad = tl.zeros((BM, BP), tl.float32)
    else:
        b_c = tl.sum(b_q.to(tl.float32), 1) * (scale * pad)
        b_share = tl.load(share + i_h * (H * W) + token, mask=m_q, other=NOTHING)
        b_virtual = tl.exp2((b_c + b_share) * LOG2_E - b_lse)
        b_dvirtual = tl.sum(b_do.to(tl.float32), 1) * pad
        b_delta += b_virtual * b_dvirtual
        b_dvirtual -= b_delta
        b_dc = b_virtual * b_dvirtual
        b_pad = tl.load(bias + i_h * (K * K) + o_p, mask=o_p < K * K, other=0.0)
        b_pad = tl.exp2((b_c[:, None] + b_pad[None, :]) * LOG2_E - b_lse[:, None]) * b_dvirtual[:, None]
        if USE_BAND:
            b_through = tl.load(grad_band + row * PS + o_row, mask=m_row, other=0.0).to(tl.float32)
            b_pad += b_through
            b_dc += tl.sum(b_through, 1)  # less what lies inside, below
    tl.store(p_affinity + o_row, b_pad.to(grad_affinity.dtype.element_ty), mask=m_row)
    tl.debug_barrier()

    b_ds = b_p * (b_dp - b_delta[:, None])
    o_window = _window_offsets(token, y, x, near_y, near_x, K, PS)
    b_bias = tl.load(p_bias)  # again, as above
    if USE_BAND:
        b_inside = tl.load(grad_band + row * PS + o_window, mask=b_bias > NOTHING, other=0.0).to(tl.float32)
        b_ds += b_inside
    tl.store(p_affinity + o_window, b_ds.to(grad_affinity.dtype.element_ty), mask=b_bias > NOTHING)
    b_dq = tl.dot(b_ds.to(DOT), b_k, input_precision=PRECISION)
    if not USE_MASK:
        if USE_BAND:
            b_dc -= tl.sum(b_inside, 1)
        b_dq += (b_dc * pad)[:, None]
    p_dq = grad_q + (frame * H * W * heads + i_h) * D + o_out
    tl.store(p_dq, (b_dq * scale).to(grad_q.dtype.element_ty), mask=m_q[:, None])


@triton.jit
def attend_backward_key(
    q, k,  # (B, T, H*W, N, D) with strides of clips, frames and tokens
    grad_out,  # (B, F, H*W, N, D)
    lse,  # (N, B*F, H*W), to base 2
    bias_tile,  # (N, patches, BN, BM), here of BN queries and the BM keys of a patch
    grad_affinity,  # (N, B*F, H*W, PS)
    grad_k, grad_v,  # (B, T, H*W, N, D)
    H, W, T, F, step, heads, patches, clip_stride, frame_stride, token_stride, scale,
    K: tl.constexpr, D: tl.constexpr, PS: tl.constexpr,
    TH: tl.constexpr, TW: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    MEETINGS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a patch of keys and values of one frame and head: sums over the queries that see them."""
    i_t = tl.program_id(0) % patches
    i_f = tl.program_id(0) // patches
    i_h = tl.program_id(1)
    clip = i_f // T
    frame = i_f % T
    y, x, m_k, near_y, near_x, m_q = _places(i_t, H, W, K // 2, TH, TW, KH, KW, BM, BN)
    token = near_y * W + near_x
    o_d = tl.arange(0, D)
    head = clip.to(tl.int64) * clip_stride + i_h * D
    o_k = (y * W + x)[:, None] * token_stride + o_d[None, :]
    b_k = tl.load(k + (head + frame.to(tl.int64) * frame_stride) + o_k, mask=m_k[:, None], other=0.0).to(DOT)
    o_tile = tl.arange(0, BN)[:, None] * BM + tl.arange(0, BM)[None, :]
    b_bias = tl.load(bias_tile + (i_h * patches + i_t) * (BM * BN) + o_tile)
    o_window = _window_offsets(token, near_y, near_x, y, x, K, PS)
    b_dk = tl.zeros((BM, D), tl.float32)
    b_dv = tl.zeros((BM, D), tl.float32)
    pairs = tl.num_programs(0) // patches // T * F
    # Who sees a key: the queries of the frame ``step`` before it, and of its own frame if that has no successor, which
    # with MEETINGS = 1 no frame needs.
    for i in tl.static_range(MEETINGS):
        source = frame - step + i * step
        if (source >= 0) & (source < F) & (frame + step >= i * T):
            pair = (clip * F + source).to(tl.int64)
            p_q = q + (head + source.to(tl.int64) * frame_stride) + (token[:, None] * token_stride + o_d[None, :])
            b_q = tl.load(p_q, mask=m_q[:, None], other=0.0).to(DOT)
            p_do = grad_out + (pair * H * W * heads + i_h) * D + (token[:, None] * (heads * D) + o_d[None, :])
            b_do = tl.load(p_do, mask=m_q[:, None], other=0.0).to(DOT)
            row = (i_h.to(tl.int64) * pairs + pair) * H * W
            b_lse = tl.load(lse + row + token, mask=m_q, other=0.0)
            b_s = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION) * scale + b_bias
            b_p = tl.exp2(b_s * LOG2_E - b_lse[:, None])
            b_dv = tl.dot(tl.trans(b_p.to(DOT)), b_do, acc=b_dv, input_precision=PRECISION)
            b_ds = tl.load(grad_affinity + row * PS + o_window, mask=b_bias > NOTHING, other=0.0).to(DOT)
            b_dk = tl.dot(tl.trans(b_ds), b_q, acc=b_dk, input_precision=PRECISION)
    o_out = ((clip * T + frame).to(tl.int64) * H * W * heads + i_h) * D
    o_k = (y * W + x)[:, None] * (heads * D) + o_d[None, :]
    tl.store(grad_k + o_out + o_k, (b_dk * scale).to(grad_k.dtype.element_ty), mask=m_k[:, None])
    tl.store(grad_v + o_out + o_k, b_dv.to(grad_v.dtype.element_ty), mask=m_k[:, None])
