"""Every configuration key with its default, in the order of the pipeline.

A YAML file (``cfg.merge_from_file``) and then ``KEY VALUE`` pairs (``cfg.merge_from_list``) override these values.
Reading a configuration touches no disk but the YAML files themselves.
"""

from slowfast.config.parser import CfgNode

_C = CfgNode()

# Seed of every random stream: weights, data order, augmentation. Each process adds its rank where streams must differ.
_C.RNG_SEED = 0

# Folder for checkpoints, logs and results of this run.
_C.OUTPUT_DIR = "output"

# Device: auto (CUDA if present, else CPU) | cpu | cuda.
_C.DEVICE = "auto"

# Training steps between two log lines.
_C.LOG_PERIOD = 10

# ---------------------------------------------------------------- DATA: list files, frames, clip geometry
_C.DATA = CfgNode()

# Class in DATASET_REGISTRY (slowfast/datasets/build.py).
_C.DATA.DATASET = "VideoList"

# Folder that holds the list files.
_C.DATA.PATH_TO_DATA_DIR = ""

# Folder to which the paths in the list files are relative; "" means PATH_TO_DATA_DIR.
_C.DATA.PATH_PREFIX = ""

# File name of a split's list, {} being train | val | test; a split "test" without a list of its own reads "val".
_C.DATA.LABEL_PATH_TEMPLATE = "{}.csv"

# Separator between the fields of a list line: auto (comma, tab or space, detected per file) | "," | "\t" | " ".
_C.DATA.PATH_LABEL_SEPARATOR = "auto"

# Where the data set comes from and how to prepare it; part of the error when its list files are missing.
_C.DATA.MISSING_HINT = ""

# Text file with one class name a line, in label order; "" means classes.txt beside the lists if there is one.
_C.DATA.CLASS_NAMES_FILE = ""

# What a list line points at: video ("path label") | frames (folder of images, "folder num_frames label").
_C.DATA.SOURCE = "video"

# File name of one frame inside its folder, and the number of the first one.
_C.DATA.IMAGE_TEMPLATE = "{:05d}.jpg"
_C.DATA.FIRST_IMAGE = 1

# Video decoder: auto (decord where it is installed, else PyAV) | decord | pyav.
_C.DATA.DECODING_BACKEND = "auto"

# Which frames make a clip: sparse (one per equal segment of the whole video, TSN, arXiv 1608.00859) |
# dense (consecutive frames SAMPLING_RATE apart).
_C.DATA.FRAME_SAMPLING = "sparse"

# Frames of one clip, and the step between them in dense sampling (frames).
_C.DATA.NUM_FRAMES = 16
_C.DATA.SAMPLING_RATE = 4

# Normalisation of RGB in [0, 1]: (x - MEAN) / STD.
_C.DATA.MEAN = [0.45, 0.45, 0.45]
_C.DATA.STD = [0.225, 0.225, 0.225]

# Side of the training and of the testing crop (px). Testing first scales the short side to TEST_CROP_SIZE.
_C.DATA.TRAIN_CROP_SIZE = 224
_C.DATA.TEST_CROP_SIZE = 224

# Area (share of the frame) and aspect ratio (width / height) drawn by the random resized crop.
_C.DATA.TRAIN_JITTER_SCALES_RELATIVE = [0.08, 1.0]
_C.DATA.TRAIN_JITTER_ASPECT_RELATIVE = [0.75, 1.3333]

# Mirror whole clips with probability 0.5 in training. Never for labels that contain directions (Something-Something).
_C.DATA.RANDOM_FLIP = False

# Share of a training epoch's videos that may fail to decode before the run stops.
_C.DATA.MAX_BAD_SHARE = 0.05

# How the views of a video become one score: sum_logits | mean_probability | max (of logits).
_C.DATA.ENSEMBLE_METHOD = "sum_logits"

# ---------------------------------------------------------------- AUG: training augmentation
_C.AUG = CfgNode()

# Augmented copies of every decoded video (repeated augmentation, arXiv 1901.09335).
_C.AUG.NUM_SAMPLE = 2

# RandAugment (arXiv 1909.13719), the same operations for all frames of a clip: "" (off) or rand-mM-nN[-mstdS][-inc1],
# M magnitude 0 to 10, N operations, S standard deviation of the magnitude, inc1 the increasing-severity set.
_C.AUG.AA_TYPE = "rand-m7-n4-mstd0.5-inc1"

# Interpolation of RandAugment's geometric operations: bicubic | bilinear.
_C.AUG.INTERPOLATION = "bicubic"

# Random erasing (arXiv 1708.04896), one box for the whole clip: probability, boxes, and their content:
# pixel (unit normal noise per pixel) | const (zero, after normalisation).
_C.AUG.RE_PROB = 0.25
_C.AUG.RE_COUNT = 1
_C.AUG.RE_MODE = "pixel"

# ---------------------------------------------------------------- MIXUP: mixing clips and labels of a batch
_C.MIXUP = CfgNode()

# Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899): beta parameters, probability of mixing a batch, and the
# probability of CutMix when both are on (0 switches one of them off).
_C.MIXUP.ENABLE = True
_C.MIXUP.ALPHA = 0.8
_C.MIXUP.CUTMIX_ALPHA = 1.0
_C.MIXUP.PROB = 1.0
_C.MIXUP.SWITCH_PROB = 0.5

# Label smoothing of the training targets, with or without mixing.
_C.MIXUP.LABEL_SMOOTH_VALUE = 0.1

# ---------------------------------------------------------------- DATA_LOADER
_C.DATA_LOADER = CfgNode()

# Worker processes per training process; 0 loads in the training process itself.
_C.DATA_LOADER.NUM_WORKERS = 8

# Batches that every worker holds ready.
_C.DATA_LOADER.PREFETCH_FACTOR = 2

# ---------------------------------------------------------------- MODEL
_C.MODEL = CfgNode()

# Class in MODEL_REGISTRY (slowfast/models/build.py).
_C.MODEL.MODEL_NAME = "Uniformer"

# Number of classes.
_C.MODEL.NUM_CLASSES = 174

# Weights to start from: .pth or .safetensors, 2-D (inflated) or video; "" trains from scratch.
_C.MODEL.PRETRAINED = ""

# Where PRETRAINED comes from; part of the error when it is missing.
_C.MODEL.PRETRAINED_HINT = ""

# Smallest share of the model's tensors (head aside) that PRETRAINED must fill, else loading is an error.
_C.MODEL.PRETRAINED_MIN_MATCH = 0.5

# Activation checkpointing: number of first blocks of each stage that are recomputed in the backward pass.
_C.MODEL.CHECKPOINT_NUM = [0, 0, 0, 0]

# ---------------------------------------------------------------- UNIFORMER (arXiv 2201.09450)
_C.UNIFORMER = CfgNode()

# Channels and blocks per stage. S: depth 3, 4, 8, 3; B: depth 5, 8, 20, 7.
_C.UNIFORMER.EMBED_DIM = [64, 128, 320, 512]
_C.UNIFORMER.DEPTH = [3, 4, 8, 3]

# Channels per attention head.
_C.UNIFORMER.HEAD_DIM = 64

# Hidden width of the MLPs over their input width.
_C.UNIFORMER.MLP_RATIO = 4.0

# Bias of the query, key and value projection.
_C.UNIFORMER.QKV_BIAS = True

# Standard deviation of the initial weights of linear layers (truncated normal).
_C.UNIFORMER.INIT_STD = 0.02

# Stochastic depth of the last block; it grows linearly from 0 at the first block.
_C.UNIFORMER.DROP_DEPTH_RATE = 0.1

# Halve the frame rate in the stem, as UniFormer was published. EMIM and its baselines do not.
_C.UNIFORMER.TEMPORAL_DOWNSAMPLE = False

# Attention of the blocks of stages 3 and 4: names from ATTENTIONS (slowfast/models/attention.py), repeated over the
# stage's depth and counted from the stage's first block. ["emim", "joint"] is the paper's E-O, ["joint"] the baseline.
_C.UNIFORMER.STAGE3_ATTENTION = ["emim", "joint"]
_C.UNIFORMER.STAGE4_ATTENTION = ["emim", "joint"]

# ---------------------------------------------------------------- EMIM (arXiv 2510.18705)
_C.EMIM = CfgNode()

# Window side (tokens, odd) in stages 3 and 4.
_C.EMIM.WINDOW = [7, 7]

# Add the motion features made from the affinities (Table 7).
_C.EMIM.MOTION = True

# Start the motion branch at zero, so that pre-trained attention is what it was at step 0. The paper's authors note
# that this matters for fine-tuning and may be dropped when training from scratch.
_C.EMIM.ZERO_INIT_MOTION = True

# Implementation: auto (the fastest that runs here) | reference (the definition) | dense (exact, fast on CPU).
_C.EMIM.BACKEND = "auto"

# ---------------------------------------------------------------- SOLVER
_C.SOLVER = CfgNode()

# AdamW (arXiv 1711.05101); the rate of one step of TRAIN.BATCH_SIZE videos.
_C.SOLVER.BASE_LR = 2e-4
_C.SOLVER.BETAS = [0.9, 0.999]
_C.SOLVER.EPS = 1e-8
_C.SOLVER.WEIGHT_DECAY = 0.05

# Linear warm-up over the first epochs, then a half cosine down to COSINE_END_LR at MAX_EPOCH.
_C.SOLVER.MAX_EPOCH = 60
_C.SOLVER.WARMUP_EPOCHS = 5.0
_C.SOLVER.WARMUP_START_LR = 1e-6
_C.SOLVER.COSINE_END_LR = 1e-6

# Largest norm of the whole gradient; 0 switches clipping off.
_C.SOLVER.CLIP_GRADIENT = 20.0

# ---------------------------------------------------------------- TRAIN
_C.TRAIN = CfgNode()
# Whether tools/run_net.py trains (likewise TEST.ENABLE below); train_net.py and test_net.py do not ask.
_C.TRAIN.ENABLE = True

# Videos per optimisation step over all processes (each gives AUG.NUM_SAMPLE clips).
_C.TRAIN.BATCH_SIZE = 32

# Clips of one forward and backward pass of a process; gradients are accumulated over the passes of a step, so that
# BATCH_SIZE stays what the recipe says on machines with less memory. 0 takes all clips at once.
_C.TRAIN.MICRO_BATCH_SIZE = 0

# Precision: auto (bf16 on GPUs that have it, fp16 on others, fp32 on CPU) | fp32 | bf16 | fp16 (dynamic loss scaling).
# The paper's runs used fp16.
_C.TRAIN.PRECISION = "auto"

# Epochs between two validations and between two checkpoints; the last epoch always does both.
_C.TRAIN.EVAL_PERIOD = 5
_C.TRAIN.CHECKPOINT_PERIOD = 1

# Continue from the newest checkpoint in OUTPUT_DIR.
_C.TRAIN.AUTO_RESUME = True

# ---------------------------------------------------------------- TEST
_C.TEST = CfgNode()
_C.TEST.ENABLE = True

# Clips per step over all processes, in validation and test (each test clip gives NUM_SPATIAL_CROPS views).
_C.TEST.BATCH_SIZE = 32

# Views of one video: temporal clips x spatial crops (1: centre, 3: along the longer side).
_C.TEST.NUM_ENSEMBLE_VIEWS = 1
_C.TEST.NUM_SPATIAL_CROPS = 3

# Checkpoint to test; "" means the best of OUTPUT_DIR.
_C.TEST.CHECKPOINT_FILE_PATH = ""

# Precision of validation and test: auto | fp32 | bf16 | fp16.
_C.TEST.PRECISION = "fp32"

# A video that cannot be decoded: error (stop, naming it) | count_wrong (scored as wrong and listed in the results).
_C.TEST.ON_BAD_VIDEO = "error"

# ---------------------------------------------------------------- TENSORBOARD, DIST
_C.TENSORBOARD = CfgNode()
_C.TENSORBOARD.ENABLE = True

_C.DIST = CfgNode()
# Process group: auto (nccl on CUDA, else gloo) | nccl | gloo. World size and ranks come from torchrun.
_C.DIST.BACKEND = "auto"
# Minutes after which a collective or a rendezvous that does not complete is an error.
_C.DIST.TIMEOUT_MIN = 30.0


def get_cfg() -> CfgNode:
    """Return a fresh, unfrozen copy of the defaults."""
    return _C.clone()
