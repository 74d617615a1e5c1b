"""The decode step's own GPU kernels, in Triton: a handful, each doing what PyTorch takes several for.

One token at a time is a row of matrix-vector products whose time is that of reading the weights. What
stands between them (norms, residuals, activations, biases, adapters) is therefore folded into them, so
that a layer is seven launches and no intermediate travels more than once. Everything accumulates in
32 bits. Addresses never change and the position is read from device memory, so the whole step can be
captured in one CUDA graph and still reads no more of the KV cache than is filled.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def matvec_kernel(
    x,
    weight,
    out,
    gain,
    bias,
    residual,
    lora_x,
    lora_b,
    nf4_values,
    absmax,
    absmax_values,
    absmax_scale,
    absmax_offset,
    rows_total,
    second,
    third,
    eps,
    K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    NORM: tl.constexpr,
    SILU: tl.constexpr,
    BIAS: tl.constexpr,
    RESIDUAL: tl.constexpr,
    RANK: tl.constexpr,
    NF4: tl.constexpr,
):
    """``out[n] = weight[n] · norm(x) + bias[n] + adapter[n] + residual[n]``.

    NORM is RMSNorm with `gain`: since ``weight · (gain x / rms) = (weight · gain x) / rms``, both sums
    run in one pass. SILU computes rows n and n + rows_total, ``silu(first) * second``, the gated MLP.
    RANK > 0 adds ``lora_b[n] · lora_x``, of which each stacked projection has its own RANK numbers; they
    begin at the rows `second` and `third`. NF4 reads bitsandbytes' packed weights with doubly quantised
    scales: byte i holds weights 2i (high half) and 2i + 1, one scale for 64 weights, itself
    ``absmax_values[absmax] * absmax_scale + absmax_offset`` with one of both for 256 scales.
    """
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    ok = rows < rows_total
    if NF4:
        first, squares = _dot_nf4(
            x, weight, gain, nf4_values, absmax, absmax_values, absmax_scale, absmax_offset,
            rows, ok, K, BLOCK_K, NORM,
        )  # fmt: skip
    else:
        first, squares = _dot(x, weight, gain, rows, ok, K, BLOCK_K, NORM)
    shrink = 1.0
    if NORM:
        shrink = tl.rsqrt(squares / K + eps)
    first = first * shrink
    if BIAS:
        first += tl.load(bias + rows, mask=ok, other=0.0).to(tl.float32)
    if RANK > 0:
        part = tl.where(rows >= third, 2, tl.where(rows >= second, 1, 0))
        first += _adapter(lora_x, lora_b, rows, part, ok, RANK)
    if SILU:
        others = rows + rows_total
        if NF4:
            other, _ = _dot_nf4(
                x, weight, gain, nf4_values, absmax, absmax_values, absmax_scale, absmax_offset,
                others, ok, K, BLOCK_K, NORM,
            )  # fmt: skip
        else:
            other, _ = _dot(x, weight, gain, others, ok, K, BLOCK_K, NORM)
        other = other * shrink
        if BIAS:
            other += tl.load(bias + others, mask=ok, other=0.0).to(tl.float32)
        if RANK > 0:
            other += _adapter(lora_x, lora_b, others, tl.full([BLOCK_N], 1, tl.int32), ok, RANK)
        first = first * tl.sigmoid(first) * other
    if RESIDUAL:
        first += tl.load(residual + rows, mask=ok, other=0.0).to(tl.float32)
    tl.store(out + rows, first, mask=ok)


@triton.jit
def _dot(x, weight, gain, rows, ok, K: tl.constexpr, BLOCK_K: tl.constexpr, NORM: tl.constexpr):
    """``weight[rows] · (gain x)``, and the sum of x²."""
    total = tl.zeros([rows.shape[0], BLOCK_K], tl.float32)
    squares = tl.zeros([BLOCK_K], tl.float32)
    start = rows.to(tl.int64) * K
    for k in tl.range(0, K, BLOCK_K):
        columns = k + tl.arange(0, BLOCK_K)
        inside = columns < K
        w = tl.load(weight + start[:, None] + columns[None, :], mask=ok[:, None] & inside[None, :], other=0.0)
        value = tl.load(x + columns, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            squares += value * value
            value *= tl.load(gain + columns, mask=inside, other=0.0).to(tl.float32)
        total += w.to(tl.float32) * value[None, :]
    return tl.sum(total, 1), tl.sum(squares, 0)


@triton.jit
def _dot_nf4(
    x, weight, gain, nf4_values, absmax, absmax_values, absmax_scale, absmax_offset, rows, ok,
    K: tl.constexpr, BLOCK_K: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """As `_dot`, over packed weights. A block of 64 weights is summed before its scale is applied."""
    BLOCKS: tl.constexpr = BLOCK_K // 64
    total = tl.zeros([rows.shape[0], BLOCKS], tl.float32)
    squares = tl.zeros([BLOCKS], tl.float32)
    first_block = rows.to(tl.int64) * (K // 64)
    byte = tl.arange(0, 32)
    for k in tl.range(0, K // 64, BLOCKS):
        blocks = k + tl.arange(0, BLOCKS)
        inside = blocks < K // 64
        both = ok[:, None] & inside[None, :]
        index = first_block[:, None] + blocks[None, :]
        packed = tl.load(
            weight + index[:, :, None] * 32 + byte[None, None, :], mask=both[:, :, None], other=0
        ).to(tl.int32)
        columns = blocks[:, None] * 64 + byte[None, :] * 2
        even = tl.load(x + columns, mask=inside[:, None], other=0.0).to(tl.float32)
        odd = tl.load(x + columns + 1, mask=inside[:, None], other=0.0).to(tl.float32)
        if NORM:
            squares += tl.sum(even * even + odd * odd, 1)
            even *= tl.load(gain + columns, mask=inside[:, None], other=0.0).to(tl.float32)
            odd *= tl.load(gain + columns + 1, mask=inside[:, None], other=0.0).to(tl.float32)
        product = tl.load(nf4_values + (packed >> 4)) * even[None, :, :]
        product += tl.load(nf4_values + (packed & 15)) * odd[None, :, :]
        code = tl.load(absmax + index, mask=both, other=0).to(tl.int32)
        largest = tl.load(absmax_values + code)
        largest = largest * tl.load(absmax_scale + index // 256, mask=both, other=0.0)
        largest += tl.load(absmax_offset + index // 256, mask=both, other=0.0)
        total += tl.sum(product, 2) * largest
    return tl.sum(total, 1), tl.sum(squares, 0)


@triton.jit
def _adapter(lora_x, lora_b, rows, part, ok, RANK: tl.constexpr):
    """``lora_b[rows] · lora_x``, with the numbers of the projection that each row belongs to."""
    rank = tl.arange(0, RANK)
    b = tl.load(lora_b + rows.to(tl.int64)[:, None] * RANK + rank[None, :], mask=ok[:, None], other=0.0)
    a = tl.load(lora_x + part[:, None] * RANK + rank[None, :])
    return tl.sum(b.to(tl.float32) * a.to(tl.float32), 1)


@triton.jit
def rope_kernel(
    qkv,
    queries,
    keys,
    values,
    q_gain,
    k_gain,
    cosine,
    sine,
    position,
    capacity,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    NORM: tl.constexpr,
):
    """One head a program: norm each query and key head (Qwen3), rotate it, put keys and values away.

    Rotation as Transformers' ``rotate_half``: ``first cos - second sin``, ``second cos + first sin``.
    """
    head = tl.program_id(0)
    at = tl.load(position)
    half = tl.arange(0, HALF)
    first = tl.load(qkv + head * 2 * HALF + half).to(tl.float32)
    second = tl.load(qkv + head * 2 * HALF + HALF + half).to(tl.float32)
    if head >= HEADS + KV_HEADS:
        row = values + ((head - HEADS - KV_HEADS) * capacity + at) * 2 * HALF
        tl.store(row + half, first)
        tl.store(row + HALF + half, second)
    else:
        if NORM:
            shrink = tl.rsqrt((tl.sum(first * first) + tl.sum(second * second)) / (2 * HALF) + eps)
            gain = q_gain if head < HEADS else k_gain
            first = first * shrink * tl.load(gain + half).to(tl.float32)
            second = second * shrink * tl.load(gain + HALF + half).to(tl.float32)
        cos = tl.load(cosine + at * 2 * HALF + half).to(tl.float32)
        sin = tl.load(sine + at * 2 * HALF + half).to(tl.float32)
        if head < HEADS:
            row = queries + head * 2 * HALF
        else:
            row = keys + ((head - HEADS) * capacity + at) * 2 * HALF
        tl.store(row + half, first * cos - second * sin)
        tl.store(row + HALF + half, second * cos + first * sin)


@triton.jit
def attention_kernel(
    queries,
    keys,
    values,
    partial,
    partial_max,
    partial_sum,
    position,
    capacity,
    scale,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Attention of one key-value head's queries over one share of the positions (split-K).

    Online softmax (Milakov and Gimelshein 2018); `merge_kernel` puts the shares together.
    """
    kv_head = tl.program_id(0)
    split = tl.program_id(1)
    length = tl.load(position) + 1
    share = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    begin = split * share
    end = tl.minimum(begin + share, length)
    member = tl.arange(0, GROUP_PAD)
    dim = tl.arange(0, HEAD_DIM)
    real = member < GROUP
    q = tl.load(
        queries + (kv_head * GROUP + member[:, None]) * HEAD_DIM + dim[None, :], mask=real[:, None], other=0.0
    )
    best = tl.full([GROUP_PAD], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    result = tl.zeros([GROUP_PAD, HEAD_DIM], tl.float32)
    base = kv_head.to(tl.int64) * capacity * HEAD_DIM
    for start in range(begin, end, BLOCK):
        places = start + tl.arange(0, BLOCK)
        inside = places < end
        where = base + places.to(tl.int64)[:, None] * HEAD_DIM + dim[None, :]
        k = tl.load(keys + where, mask=inside[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k)) * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        new_best = tl.maximum(best, tl.max(scores, 1))
        weights = tl.exp(scores - new_best[:, None])
        fade = tl.exp(best - new_best)
        total = total * fade + tl.sum(weights, 1)
        v = tl.load(values + where, mask=inside[:, None], other=0.0)
        result = result * fade[:, None] + tl.dot(weights.to(v.dtype), v)
        best = new_best
    slot = (kv_head * GROUP + member) * SPLITS + split
    tl.store(partial_max + slot, best, mask=real)
    tl.store(partial_sum + slot, total, mask=real)
    tl.store(partial + slot[:, None] * HEAD_DIM + dim[None, :], result, mask=real[:, None])


@triton.jit
def merge_kernel(partial, partial_max, partial_sum, out, HEAD_DIM: tl.constexpr, SPLITS: tl.constexpr):
    """Put one head's shares of the attention together."""
    head = tl.program_id(0)
    slots = head * SPLITS + tl.arange(0, SPLITS)
    dim = tl.arange(0, HEAD_DIM)
    best = tl.load(partial_max + slots)
    weight = tl.exp(best - tl.max(best, 0))
    total = tl.sum(weight * tl.load(partial_sum + slots), 0)
    shares = tl.load(partial + slots[:, None] * HEAD_DIM + dim[None, :])
    tl.store(out + head * HEAD_DIM + dim, tl.sum(shares * weight[:, None], 0) / total)
