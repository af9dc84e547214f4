"""Classify a video by model.onnx and model.json beside this script: run_onnx.py VIDEO (numpy, onnxruntime, av, opencv).

It shows the central view; frames are as they are stored, whatever rotation the file asks of a player.
"""

import json
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import onnxruntime

how = json.loads(Path(__file__).with_name("model.json").read_text(encoding="utf-8"))
if how["interpolation"] != "bilinear":
    sys.exit(f"this script resizes bilinearly, the model wants {how['interpolation']} frames")
with av.open(sys.argv[1]) as video:
    frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
number, last, crop = how["num_frames"], len(frames) - 1, how["crop_size"]
if how["frame_sampling"] == "sparse":  # the middles of equal segments
    chosen = np.rint(last / number * np.arange(number)) + int(last / number / 2)
else:  # a window in the middle
    span = min(number * how["sampling_rate"], len(frames) if how["short_video"] == "stretch" else sys.maxsize)
    chosen = max(len(frames) - span, 0) // 2 + np.arange(number) * (span - 1) / max(number - 1, 1)
height, width = (side * how["short_side"] // min(frames[0].shape[:2]) for side in frames[0].shape[:2])
resized = [cv2.resize(np.float32(frames[int(min(i, last))]), (width, height)) for i in chosen]
top, left = (height - crop + 1) // 2, (width - crop + 1) // 2
clip = np.rint(resized)[:, top : top + crop, left : left + crop] / 255  # (T, H, W, 3)
clip = np.float32((clip - how["mean"]) / how["std"]).transpose(3, 0, 1, 2)[None]
session = onnxruntime.InferenceSession(Path(__file__).with_name("model.onnx"))
logits = session.run(None, {"clips": clip})[0][0]
shares = np.exp(logits - logits.max())
shares = 1 / (1 + np.exp(-logits)) if how["multi_label"] else shares / shares.sum()
for label in np.argsort(-logits)[:5]:
    print(f"{how['class_names'][label]} {100 * shares[label]:.1f} %")
