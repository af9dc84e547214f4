"""Textures, sprites and frames of the synthetic sets, on frames whose opposite borders are joined.

Dimension letters: those of ``scenes`` and ``K`` waves per axis of a texture. A sprite (R, R, 4) float32 is its colour
and the signed distance to its outline in radii, inside > 0, which keeps the outline one pixel sharp at every scale.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

BACKGROUND_AMPLITUDE = 60.0  # grey levels (standard deviation) at texture_contrast 1


def draw_texture(rng: np.random.Generator, num_frequencies: int) -> np.ndarray:
    """Draw the Fourier coefficients (K, K, 3) of a smooth periodic colour texture with unit variance."""
    frequencies = np.arange(-num_frequencies, num_frequencies + 1)
    radius = np.hypot(frequencies[:, None], frequencies)
    is_used = (radius > 0) & (radius <= num_frequencies)  # the mean is not
    weight = np.where(is_used, 1 / np.maximum(radius, 1), 0)
    coefficients = rng.standard_normal((*weight.shape, 3)) + 1j * rng.standard_normal((*weight.shape, 3))
    return (coefficients * (weight / np.linalg.norm(weight))[..., None]).astype(np.complex64)


def evaluate_texture(coefficients: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Evaluate a texture at rows ``y`` (H,) and columns ``x`` (W,), in periods; returns (H, W, 3) float32."""
    num_frequencies = len(coefficients) // 2
    waves = 2j * np.pi * np.arange(-num_frequencies, num_frequencies + 1)
    rows, columns = (np.exp(np.outer(grid, waves)).astype(np.complex64) for grid in (y, x))
    half = np.tensordot(rows, coefficients, axes=1)  # (H, K, 3)
    return np.matmul(columns, half).real  # (W, K) x (H, K, 3) -> (H, W, 3)


def paste(frame: np.ndarray, sprite: np.ndarray, x: float, y: float, diameter: float, angle: float) -> None:
    """Composite a sprite (R, R, 4) onto a frame (S, S, 3) in place: px, clockwise radians, diameter up to S - 3."""
    side = math.ceil(diameter) + 3
    left, top = math.floor(x) - side // 2, math.floor(y) - side // 2
    # The affine map from patch pixels to sprite pixels, that is the inverse of the sprite's own motion.
    scale = len(sprite) / diameter
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    centre, column, row = (len(sprite) - 1) / 2, x - left, y - top
    inverse = np.array([[cos, sin, centre - cos * column - sin * row], [-sin, cos, centre + sin * column - cos * row]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(sprite, inverse, (side, side), flags=how, borderValue=(0, 0, 0, -1))
    opacity = np.clip(patch[..., 3:] * (diameter / 2) + 0.5, 0, 1)
    rows = (np.arange(top, top + side) % len(frame))[:, None]
    columns = np.arange(left, left + side) % len(frame)
    below = frame[rows, columns]
    frame[rows, columns] = below + opacity * (patch[..., :3] - below)


def film(
    backdrop: Callable[[np.ndarray, np.ndarray], np.ndarray],
    sprites: Sequence[tuple[np.ndarray, np.ndarray]],
    camera: np.ndarray,
    size: int,
) -> np.ndarray:
    """Film sprites over a background; returns RGB frames (L, S, S, 3) float32.

    ``backdrop`` maps rows and columns in frame sides to colours (S, S, 3). Sprites come from back to front, with states
    (L, 4): x, y and diameter in frame sides, angle in radians. ``camera`` is the shift (L, 2) of all that is seen.
    """
    grid = np.arange(size) / size
    frames = np.empty((len(camera), size, size, 3), np.float32)
    for t, (shift_x, shift_y) in enumerate(camera):
        if t == 0 or (camera[t] != camera[t - 1]).any():
            background = backdrop(grid - shift_y, grid - shift_x)
        frames[t] = background
        for sprite, states in sprites:
            x, y, diameter, angle = states[t]
            paste(frames[t], sprite, (x + shift_x) * size, (y + shift_y) * size, diameter * size, angle)
    return frames
