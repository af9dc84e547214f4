"""Write a trained model for others: python tools/export.py --model SOURCE --format FORMAT --out DIR [--half]

  safetensors  model.safetensors, one file for load_model
  hf-folder    model.safetensors, config.json and a model card, README.md: a repository of the Hugging Face Hub
  onnx         model.onnx, model.json (preprocessing), run_onnx.py (runs it without torch); needs the extra "export"
  pt2          model.pt2, a program of torch.export that runs without this package, and model.json

Each is read back and compared with the model, in batches of several sizes, before it is put in place. SOURCE is that of
tools/predict.py. Example:
  python tools/export.py --model emim_tiny_motion --format onnx --out output/onnx
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from slowfast.utils.errors import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="SOURCE", help="trained model")
    parser.add_argument("--format", required=True, choices=("safetensors", "hf-folder", "onnx", "pt2"))
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the files, made if need be")
    parser.add_argument("--half", action="store_true", help="round weights to float16 (safetensors, hf-folder)")
    args = parser.parse_args()
    from slowfast.inference.export import export  # torch takes seconds

    return export(**vars(args))


if __name__ == "__main__":
    run_tool(main)
