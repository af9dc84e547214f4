"""Classify a video by model.onnx and model.json beside this script: run_onnx.py VIDEO (numpy, onnxruntime, av)."""

import json
import sys
from pathlib import Path

import av
import numpy as np
import onnxruntime


def resized(clip, size, axis):
    """Resize bilinearly along one axis of (T, H, W, 3): pixels are areas, the borders repeat."""
    places = np.clip((np.arange(size) + 0.5) * clip.shape[axis] / size - 0.5, 0, clip.shape[axis] - 1)
    first = places.astype(int)
    share = (places - first).astype(np.float32).reshape([-1] + [1] * (3 - axis))
    second = np.minimum(first + 1, clip.shape[axis] - 1)
    return clip.take(first, axis) * (1 - share) + clip.take(second, axis) * share


def main(path):
    how = json.loads(Path(__file__).with_name("model.json").read_text(encoding="utf-8"))
    if how["interpolation"] != "bilinear":
        sys.exit(f"this script resizes bilinearly, the model wants {how['interpolation']} frames")
    with av.open(path) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    number, last, span = how["num_frames"], len(frames) - 1, how["num_frames"] * how["sampling_rate"]
    if how["frame_sampling"] == "sparse":  # the middles of equal segments
        chosen = np.rint(last / number * np.arange(number)) + int(last / number / 2)
    else:  # a window in the middle
        steps = np.arange(number) * (span - 1) / max(number - 1, 1)
        chosen = np.clip(max(len(frames) - span, 0) // 2 + steps, 0, last)
    clip = np.stack([frames[index] for index in chosen.astype(int)]).astype(np.float32)  # (T, H, W, 3)
    crop, sides = how["crop_size"], clip.shape[1:3]
    for axis in (1, 2):
        clip = resized(clip, clip.shape[axis] * how["short_side"] // min(sides), axis)
        start = -(-(clip.shape[axis] - crop) // 2)
        clip = clip.take(range(start, start + crop), axis)
    clip = (np.rint(clip) / 255 - np.float32(how["mean"])) / np.float32(how["std"])
    session = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"))
    (logits,) = session.run(None, {"clips": clip.transpose(3, 0, 1, 2)[None].astype(np.float32)})
    shares = np.exp(logits[0] - logits[0].max())
    for label in np.argsort(-logits[0])[:5]:
        print(f"{how['class_names'][label]} {100 * shares[label] / shares.sum():.1f} %")


if __name__ == "__main__":
    main(sys.argv[1])
