"""EMIM's equations as loops over every token, and random inputs for them."""

import torch

from slowfast.ops.emim import BACKENDS, EmimRules, MotionWeights, bias_shape

EXACT = [name for name in BACKENDS if name not in ("natten", "triton")]  # those have no float64 and files of their own
# (T, H, W, K): two, three and sixteen frames, odd and unequal maps, windows larger than the map, a single frame.
AWKWARD = [(2, 7, 7, 7), (2, 5, 9, 9), (3, 5, 9, 3), (3, 4, 5, 7), (16, 4, 5, 11)]
AWKWARD += [(1, 3, 4, 5), (3, 1, 6, 3), (5, 6, 6, 1)]


def make_inputs(
    frames, height, width, window, clips=2, heads=2, channels=4, hidden=6, rules=None, seed=0, dtype=torch.float64
):
    """Return query, key, value, window, relative bias and motion weights; all tensors require gradients."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()

    query, key, value = (draw(clips, frames, height, width, heads, channels) for _ in range(3))
    places = window * window
    motion = MotionWeights(draw(hidden, places), draw(hidden), draw(channels, hidden), draw(channels))
    return query, key, value, window, draw(*bias_shape(heads, window, rules or EmimRules())), motion


def leaves(inputs):
    """Return the tensors of ``make_inputs`` that are there."""
    *tensors, _, bias, motion = inputs
    return [*tensors, *([] if bias is None else [bias]), *(motion or ())]


def lowered(inputs, dtype):
    """Return copies of the inputs in ``dtype``, which require gradients."""
    *tensors, window, bias, motion = inputs
    *tensors, bias = (None if x is None else x.detach().to(dtype).requires_grad_() for x in (*tensors, bias))
    return *tensors, window, bias, motion and MotionWeights(*(x.detach().to(dtype).requires_grad_() for x in motion))


def oracle(query, key, value, window, bias, motion, rules):
    """Return F + M by looping over frames and places, from Eqs. 3 to 5 and the rules in words."""
    _, frames, height, width, _, channels = query.shape
    out = []
    for t in range(frames):
        source, target = meeting_frames(t, frames, rules)
        for y in range(height):
            for x in range(width):
                places, bias_index = window_of(y, x, window, rules)
                inside = torch.tensor([0 <= v < height and 0 <= u < width for v, u in places])
                ys = torch.tensor([v for v, _ in places]).clamp(0, height - 1)
                xs = torch.tensor([u for _, u in places]).clamp(0, width - 1)
                keys, values = (
                    torch.where(inside[:, None, None], z[:, target, ys, xs], rules.pad_value) for z in (key, value)
                )  # (B, P, N, D)
                affinity = (query[:, source, y, x, None] * keys).sum(-1) / channels**0.5  # (B, P, N)
                if bias is not None:
                    affinity = affinity + torch.stack([bias[:, i, j] for i, j in bias_index])  # (P, N)
                scores = affinity
                if rules.padding == "mask":
                    scores = torch.where(inside[:, None], affinity, -torch.inf)
                    affinity = torch.where(inside[:, None], affinity, 0.0)
                attended = (scores.softmax(1)[..., None] * values).sum(1)  # (B, N, D)
                if motion is not None:
                    hidden = affinity.transpose(1, 2) @ motion.weight1.T + motion.bias1
                    hidden = hidden / (1 + torch.exp(-1.702 * hidden))
                    attended = attended + hidden @ motion.weight2.T + motion.bias2
                out.append(attended)
    return torch.stack(out, dim=1).unflatten(1, (frames, height, width))


def meeting_frames(t, frames, rules):
    """Return the frames of queries and keys of output frame ``t``."""
    step = rules.temporal_interval
    if t + step <= frames - 1:
        return t, t + step
    return (t - step, t) if rules.last_frame == "repeat" and t - step >= 0 else (t, t)


def window_of(y, x, window, rules):
    """Return the places that (y, x) attends to, in order, and where the bias of each is found."""
    if rules.sampling == "tiled":
        top, left = y // window * window, x // window * window
        places = [(top + i, left + j) for i in range(window) for j in range(window)]
        return places, [(v - y + window - 1, u - x + window - 1) for v, u in places]
    radius = window // 2
    places = [(y + i - radius, x + j - radius) for i in range(window) for j in range(window)]
    return places, [(i, j) for i in range(window) for j in range(window)]
