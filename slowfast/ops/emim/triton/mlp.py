"""The motion MLP, forward and backward, as Triton kernels over the affinities of all tokens (EMIM's Eq. 5).

Names in the kernels of this folder: ``i_`` index of the program, ``o_`` offsets of a block, ``m_`` mask, ``p_``
pointers, ``b_`` values of a block; a plain name is the address or size of a whole tensor. Block sizes are powers of
two: ``BM`` tokens of the program's own patch, ``BN`` tokens within their reach, ``BP`` displacements, ``BR`` rows of
affinities, ``BG`` hidden channels. ``DOT`` is the dtype of factors of products, ``PRECISION`` how float32 ones are
made; every block is cast when it is loaded, since Triton's interpreter has no arithmetic in bfloat16.

Affinities lie in bands (N, B*F*H*W, PS): a row of ``PS`` numbers per head and token, the K * K displacements and zeros
up to a multiple of 16 bytes. A row of hidden channels never leaves the multiprocessor. With s = 1.702 log2(e), weights
come as s * weight1, s * bias1 and weight2 / s, padded with zeros, so that QuickGELU is z / (1 + 2^-z).

Offsets of whole frames are 64-bit scalars, those inside a block 32-bit: fewer registers than 64-bit blocks.
"""

from __future__ import annotations

import triton
import triton.language as tl

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _sigmoid(b_z):
    """Return 1 / (1 + 2^-z); the square of a reciprocal root takes two instructions, a division eight."""
    b_root = tl.math.rsqrt(1.0 + tl.exp2(-b_z))
    return b_root * b_root


@triton.jit
def mlp_forward(
    band,  # (N, rows, PS)
    out,  # (B, T, H*W, N, D), holding what the features are added to
    weight1,  # (GP, BP)
    bias1,  # (GP,)
    weight2,  # (D, GP)
    bias2,  # (D,)
    rows,  # B * F * H * W
    clip_rows,  # F * H * W
    clip_gap,  # (T - F) * H * W, the rows of ``out`` that no pair writes
    heads,
    D: tl.constexpr, GP: tl.constexpr, PS: tl.constexpr, BP: tl.constexpr, BG: tl.constexpr, BR: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add the motion features of BR rows of one head to ``out``."""
    i_h = tl.program_id(1)
    first = tl.program_id(0) * BR
    o_r = tl.arange(0, BR)
    o_p = tl.arange(0, BP)
    o_d = tl.arange(0, D)
    m_r = (first + o_r < rows)[:, None]
    p_band = band + (i_h.to(tl.int64) * rows + first) * PS + (o_r[:, None] * PS + o_p[None, :])
    b_a = tl.load(p_band, mask=m_r & (o_p < PS)[None, :], other=0.0).to(DOT)
    start = first + first // clip_rows * clip_gap
    o_out = first + o_r + (first + o_r) // clip_rows * clip_gap - start
    p_out = out + (start.to(tl.int64) * heads + i_h) * D + (o_out[:, None] * (heads * D) + o_d[None, :])
    b_out = tl.load(p_out, mask=m_r, other=0.0).to(tl.float32) + tl.load(bias2 + o_d).to(tl.float32)[None, :]
    for i_g in tl.range(0, GP, BG):
        o_g = i_g + tl.arange(0, BG)
        b_w1 = tl.load(weight1 + o_g[:, None] * BP + o_p[None, :]).to(DOT)
        b_z = tl.dot(b_a, tl.trans(b_w1), input_precision=PRECISION) + tl.load(bias1 + o_g)[None, :]
        b_hidden = b_z * _sigmoid(b_z)
        b_w2 = tl.load(weight2 + o_d[:, None] * GP + o_g[None, :]).to(DOT)
        b_out = tl.dot(b_hidden.to(DOT), tl.trans(b_w2), acc=b_out, input_precision=PRECISION)
    tl.store(p_out, b_out.to(out.dtype.element_ty), mask=m_r)


@triton.jit
def mlp_backward_band(
    band,  # (N, rows, PS)
    grad_out,  # (rows, N, D)
    grad_band,  # (N, rows, PS)
    weight1,  # (GP, BP)
    bias1,  # (GP,)
    weight2,  # (D, GP)
    rows,
    heads,
    D: tl.constexpr, GP: tl.constexpr, PS: tl.constexpr, BP: tl.constexpr, BG: tl.constexpr, BR: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradient of BR rows of affinities of one head."""
    i_h = tl.program_id(1)
    first = tl.program_id(0) * BR
    o_r = tl.arange(0, BR)
    o_p = tl.arange(0, BP)
    o_d = tl.arange(0, D)
    m_r = (first + o_r < rows)[:, None]
    m_band = m_r & (o_p < PS)[None, :]
    row = i_h.to(tl.int64) * rows + first
    o_band = o_r[:, None] * PS + o_p[None, :]
    b_a = tl.load(band + row * PS + o_band, mask=m_band, other=0.0).to(DOT)
    p_do = grad_out + (first.to(tl.int64) * heads + i_h) * D + (o_r[:, None] * (heads * D) + o_d[None, :])
    b_do = tl.load(p_do, mask=m_r, other=0.0).to(DOT)
    b_da = tl.zeros((BR, BP), tl.float32)
    for i_g in tl.range(0, GP, BG):
        o_g = i_g + tl.arange(0, BG)
        b_w1 = tl.load(weight1 + o_g[:, None] * BP + o_p[None, :]).to(DOT)
        b_w2 = tl.load(weight2 + o_d[:, None] * GP + o_g[None, :]).to(DOT)
        b_z = tl.dot(b_a, tl.trans(b_w1), input_precision=PRECISION) + tl.load(bias1 + o_g)[None, :]
        b_sigmoid = _sigmoid(b_z)
        b_slope = b_sigmoid * (1.0 + LN2 * b_z * (1.0 - b_sigmoid))
        b_dz = tl.dot(b_do, b_w2, input_precision=PRECISION) * b_slope
        b_da = tl.dot(b_dz.to(DOT), b_w1, acc=b_da, input_precision=PRECISION)
    tl.store(grad_band + row * PS + o_band, b_da.to(grad_band.dtype.element_ty), mask=m_band)


@triton.jit
def mlp_backward_weights(
    band,  # (N, rows, PS)
    grad_out,  # (rows, N, D)
    weight1,  # (GP, BP)
    bias1,  # (GP,)
    weight2,  # (D, GP)
    grad_weight1,  # (splits, GP, BP)
    grad_bias1,  # (splits, GP)
    grad_weight2,  # (splits, D, GP)
    grad_bias2,  # (splits, D)
    rows,
    heads,
    BLOCKS: tl.constexpr,  # blocks of rows per program
    D: tl.constexpr, GP: tl.constexpr, PS: tl.constexpr, BP: tl.constexpr, BG: tl.constexpr, BR: tl.constexpr,
    DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sum the gradients of BG hidden channels' weights over BLOCKS blocks of rows; partial sums are added later."""
    i_g = tl.program_id(0)
    i_s = tl.program_id(1)
    o_g = i_g * BG + tl.arange(0, BG)
    o_r = tl.arange(0, BR)
    o_p = tl.arange(0, BP)
    o_d = tl.arange(0, D)
    b_w1 = tl.load(weight1 + o_g[:, None] * BP + o_p[None, :]).to(DOT)
    b_w2 = tl.load(weight2 + o_d[:, None] * GP + o_g[None, :]).to(DOT)
    b_b1 = tl.load(bias1 + o_g)
    b_dw1 = tl.zeros((BG, BP), tl.float32)
    b_dw2 = tl.zeros((D, BG), tl.float32)
    b_db1 = tl.zeros((BG,), tl.float32)
    b_db2 = tl.zeros((D,), tl.float32)
    blocks_of_head = tl.cdiv(rows, BR)
    for i in tl.range(0, BLOCKS):
        block = i_s * BLOCKS + i
        i_h = block // blocks_of_head
        first = block % blocks_of_head * BR
        # Blocks beyond the last head have no rows; a gradient of zero makes every term below zero.
        m_r = (first + o_r < tl.where(i_h < heads, rows, 0))[:, None]
        p_band = band + (i_h.to(tl.int64) * rows + first) * PS + (o_r[:, None] * PS + o_p[None, :])
        b_a = tl.load(p_band, mask=m_r & (o_p < PS)[None, :], other=0.0).to(DOT)
        p_do = grad_out + (first.to(tl.int64) * heads + i_h) * D + (o_r[:, None] * (heads * D) + o_d[None, :])
        b_do = tl.load(p_do, mask=m_r, other=0.0).to(DOT)
        b_db2 += tl.sum(b_do.to(tl.float32), 0)
        b_z = tl.dot(b_a, tl.trans(b_w1), input_precision=PRECISION) + b_b1[None, :]
        b_sigmoid = _sigmoid(b_z)
        b_dw2 = tl.dot(tl.trans(b_do), (b_z * b_sigmoid).to(DOT), acc=b_dw2, input_precision=PRECISION)
        b_slope = b_sigmoid * (1.0 + LN2 * b_z * (1.0 - b_sigmoid))
        b_dz = tl.dot(b_do, b_w2, input_precision=PRECISION) * b_slope
        b_db1 += tl.sum(b_dz, 0)
        b_dw1 = tl.dot(tl.trans(b_dz.to(DOT)), b_a, acc=b_dw1, input_precision=PRECISION)
    tl.store(grad_weight1 + (i_s * GP + o_g)[:, None] * BP + o_p[None, :], b_dw1)
    tl.store(grad_weight2 + (i_s * D + o_d)[:, None] * GP + o_g[None, :], b_dw2)
    tl.store(grad_bias1 + i_s * GP + o_g, b_db1)
    # All chunks of hidden channels see the same rows: the first one's sum is the bias's.
    tl.store(grad_bias2 + i_s * D + o_d, b_db2, mask=o_d < tl.where(i_g == 0, D, 0))
