"""The recipe of training clips word for word, frame by frame in Pillow: what the fast pipeline must agree with."""

import os

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps

from slowfast.datasets.augment.rand_augment import GEOMETRIC, Operation
from slowfast.datasets.augment.transform import draw_crop_box
from slowfast.datasets.augment.warp import VALUE_TABLES
from slowfast.datasets.video_dataset import TrainVideos


def apply_with_pillow(image: Image.Image, operation: Operation) -> Image.Image:
    """Apply one operation of RandAugment to a frame, by its definition."""
    name, arguments = operation
    if name in GEOMETRIC:
        affine, bicubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
        return image.transform(image.size, affine, arguments, bicubic, fillcolor=(128, 128, 128))
    if name in ("Color", "Contrast", "Brightness", "Sharpness"):
        return getattr(ImageEnhance, name)(image).enhance(*arguments)
    if name in ("AutoContrast", "Equalize", "Invert"):
        return getattr(ImageOps, name.lower())(image)
    return image.point(VALUE_TABLES[name](*arguments).tolist() * 3)


def plain_clips(cfg, dataset: TrainVideos, video: int, frames: np.ndarray, rng, erasing) -> list[torch.Tensor]:
    """Make the clips of a video plainly: whole frames, one by one, each step in full, with the draws of the data set.

    Image files are decoded by Pillow too; of videos ``frames`` are taken, as decoded.
    """
    record, recipe = dataset.records[video], dataset.transform
    numbers = dataset.sampler.train(record.num_frames or len(frames), rng)
    images = [Image.fromarray(frame) for frame in frames]
    if os.path.isdir(record.path):
        names = (cfg.DATA.IMAGE_TEMPLATE.format(number + cfg.DATA.FIRST_IMAGE) for number in numbers)
        images = [Image.open(os.path.join(record.path, name)).convert("RGB") for name in names]
    width, height = images[0].size
    mean, std = torch.tensor([cfg.DATA.MEAN, cfg.DATA.STD])
    clips = []
    for _ in range(dataset.num_copies):
        augmented = images
        for operation in recipe.rand_augment.draw(rng, height, width) if recipe.rand_augment else ():
            augmented = [apply_with_pillow(image, operation) for image in augmented]
        clip = torch.from_numpy(np.stack([np.asarray(image) for image in augmented])).float() / 255  # (T, H, W, 3)
        clip = ((clip - mean) / std).permute(3, 0, 1, 2)  # (3, T, H, W)
        top, left, box_height, box_width = draw_crop_box(rng, height, width, recipe.area_range, recipe.aspect_range)
        clip = clip[:, :, top : top + box_height, left : left + box_width]
        clip = F.interpolate(clip, size=(recipe.size, recipe.size), mode="bilinear", align_corners=False)
        clips.append(clip.flip(-1) if rng.random() < recipe.flip_prob else clip)
    return [erasing(clip[None], rng)[0] for clip in clips]
