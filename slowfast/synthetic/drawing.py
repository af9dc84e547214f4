"""Textures, sprites and frames of the synthetic sets, on frames whose opposite borders are joined.

Dimension letters: `L` frames, `S` side of the frame in px, `R` side of the sprite's own pixel grid, `K` waves
per axis of a texture.
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
    """Evaluate a texture at rows `y` (H,) and columns `x` (W,), in periods; returns (H, W, 3) float32."""
    num_frequencies = len(coefficients) // 2
    waves = 2j * np.pi * np.arange(-num_frequencies, num_frequencies + 1)
    rows, columns = (np.exp(np.outer(grid, waves)).astype(np.complex64) for grid in (y, x))
    half = np.tensordot(rows, coefficients, axes=1)  # (H, K, 3)
    return np.matmul(columns, half).real  # (W, K) x (H, K, 3) -> (H, W, 3)


def sprite_grid(resolution: int) -> np.ndarray:
    """Return the coordinates (R,) of the pixels of a sprite along one axis, in diameters."""
    return (np.arange(resolution) + 0.5) / resolution


def make_sprite(pixels: np.ndarray, outline: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Cut a sprite (R, R, 4) float32 out of a picture: colour, and signed distance to the outline in radii, inside > 0.

    A distance instead of an opacity keeps the outline one pixel sharp at every scale.

    Args:
        pixels: Picture (R, R, 3), grey levels.
        outline: Maps angles in radians (any shape) to the distance of the outline from the centre, in any unit.
    """
    grid = sprite_grid(len(pixels))
    y, x = 2 * grid[:, None] - 1, 2 * grid - 1
    largest = outline(np.linspace(0, 2 * np.pi, 256)).max()
    distance = outline(np.arctan2(y, x)) / largest - np.hypot(y, x)
    return np.dstack([np.clip(pixels, 0, 255), distance]).astype(np.float32)


def paste(frame: np.ndarray, sprite: np.ndarray, x: float, y: float, diameter: float, angle: float) -> None:
    """Composite a sprite in place onto a frame (S, S, 3) float32 whose opposite borders are joined.

    Args:
        frame: Picture to draw on.
        sprite: Sprite (R, R, 4) from `make_sprite`.
        x: Column of the sprite's centre, px, any real number.
        y: Row of the sprite's centre, px.
        diameter: Diameter of the enclosing circle, px, at most `S - 3`.
        angle: Clockwise rotation as seen by the viewer, radians.
    """
    side = math.ceil(diameter) + 3
    left, top = math.floor(x) - side // 2, math.floor(y) - side // 2
    # The affine map from patch pixels to sprite pixels, that is the inverse of the sprite's own motion.
    scale = len(sprite) / diameter
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    centre, column, row = (len(sprite) - 1) / 2, x - left, y - top
    inverse = np.array([[cos, sin, centre - cos * column - sin * row], [-sin, cos, centre + sin * column - cos * row]])
    patch = cv2.warpAffine(
        sprite,
        inverse,
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0, -1),
    )
    opacity = np.clip(patch[..., 3:] * (diameter / 2) + 0.5, 0, 1)
    rows = (np.arange(top, top + side) % len(frame))[:, None]
    columns = np.arange(left, left + side) % len(frame)
    below = frame[rows, columns]
    frame[rows, columns] = below + opacity * (patch[..., :3] - below)


def film(
    rng: np.random.Generator,
    ground: np.ndarray,
    texture: np.ndarray,
    contrast: float,
    sprites: Sequence[tuple[np.ndarray, np.ndarray]],
    camera: np.ndarray,
    size: int,
    noise_std: float,
) -> np.ndarray:
    """Film sprites over a background.

    Args:
        rng: Source of the sensor noise.
        ground: Mean colour (3,) of the background, grey levels.
        texture: Texture (K, K, 3) of the background from `draw_texture`.
        contrast: Contrast of that texture.
        sprites: From back to front, a sprite (R, R, 4) and its states (L, 4): x, y and diameter in frame sides, angle
            in radians.
        camera: Shift (L, 2) of all that is seen, x and y, frame sides.
        size: Side of the frames, px.
        noise_std: Standard deviation of the noise, grey levels.

    Returns:
        RGB frames (L, S, S, 3) uint8.
    """
    grid = np.arange(size) / size
    clip = np.empty((len(camera), size, size, 3), np.uint8)
    for t, (shift_x, shift_y) in enumerate(camera):
        if t == 0 or (camera[t] != camera[t - 1]).any():
            pixels = evaluate_texture(texture, grid - shift_y, grid - shift_x)
            background = np.clip(ground + contrast * BACKGROUND_AMPLITUDE * pixels, 0, 255)
        frame = background.astype(np.float32)
        for sprite, states in sprites:
            x, y, diameter, angle = states[t]
            paste(frame, sprite, (x + shift_x) * size, (y + shift_y) * size, diameter * size, angle)
        if noise_std > 0:
            frame += noise_std * rng.standard_normal(frame.shape, np.float32)
        clip[t] = np.clip(np.rint(frame), 0, 255)
    return clip
