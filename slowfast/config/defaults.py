"""Every configuration key with its default, in the order of the pipeline.

A YAML file (``cfg.merge_from_file``) and then ``KEY VALUE`` pairs (``cfg.merge_from_list``) override these values.
Reading a configuration touches no disk but the YAML files themselves.
"""

from slowfast.config.parser import CfgNode, accept_words

_C = CfgNode()

# Seed of every random stream: weights, data order, augmentation. Each process adds its rank where streams must differ.
_C.RNG_SEED = 0

# Folder for checkpoints, logs and results of this run. "" takes the name of the YAML file, so that no two files
# share one: exp/NAME/config.yaml has exp/NAME/output, configs/FOLDER/NAME.yaml has output/FOLDER/NAME.
_C.OUTPUT_DIR = ""

# Device: auto (CUDA if present, else CPU) | cpu | cuda.
_C.DEVICE = "auto"

# Training steps between two log lines.
_C.LOG_PERIOD = 10

# ---------------------------------------------------------------- DATA: list files, frames, clip geometry
_C.DATA = CfgNode()

# Class in DATASET_REGISTRY (slowfast/datasets/build.py): VideoList (list files) | ImageFolder (still images in
# PATH_TO_DATA_DIR/{train,val}/CLASS/, labelled by the rank of the class folder's name; keys about list files, their
# paths and DATA.SOURCE are not read).
_C.DATA.DATASET = "VideoList"

# Folder that holds the list files, or the folders of the splits.
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

# Videos to leave out of training and testing: the bad_items.csv that "tools/prepare_data.py check" writes, or a text
# file with one path a line, as in the list files or in full. The log says how many; "" leaves out none.
_C.DATA.EXCLUDE_FILE = ""

# Training and validation videos of the complete data set, with which the check compares; [] if it is not known.
_C.DATA.EXPECTED_NUM_VIDEOS = []

# What a list line points at: video ("path label") | frames (folder of images, "folder num_frames label") |
# image (a still, "path label"; NUM_FRAMES must be 1).
_C.DATA.SOURCE = "video"

# Folder or fsspec URL (s3://bucket/folder; the package of the protocol must be installed) of ZIP files that
# "tools/prepare_data.py pack" made; "" reads the files one by one. The lists beside them name the items of the pack;
# PATH_PREFIX must be empty, IMAGE_TEMPLATE and FIRST_IMAGE are not read.
_C.DATA.PACKED = ""

# File name of one frame inside its folder, and the number of the first one.
_C.DATA.IMAGE_TEMPLATE = "{:05d}.jpg"
_C.DATA.FIRST_IMAGE = 1

# Video decoder: auto (pyav) | pyav | decord (optional; refuses files of which it would give other frames).
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

# Side of the training and of the testing crop (px).
_C.DATA.TRAIN_CROP_SIZE = 224
_C.DATA.TEST_CROP_SIZE = 224

# Length to which testing first scales the short side (px); 0 is TEST_CROP_SIZE. ImageNet models are tested with 256.
_C.DATA.TEST_SHORT_SIDE = 0

# How testing scales: bilinear (without antialiasing, as for video) | bicubic (antialiased, Pillow's, with the centre
# crop of ImageNet evaluations to the pixel).
_C.DATA.TEST_INTERPOLATION = "bilinear"

# Area (share of the frame) and aspect ratio (width / height) drawn by the random resized crop.
_C.DATA.TRAIN_JITTER_SCALES_RELATIVE = [0.08, 1.0]
_C.DATA.TRAIN_JITTER_ASPECT_RELATIVE = [0.75, 1.3333]

# Mirror whole clips with probability 0.5 in training. Never for labels that contain directions (Something-Something).
_C.DATA.RANDOM_FLIP = False

# Where training crops are resized: cpu (in the loader's workers, which send clips as bytes; the resize is rounded to
# whole grey levels) | device (the training device: workers send the augmented crops in the sizes they have, nothing is
# rounded). Normalisation, flip, erasing and mixing are done on the training device either way; validation and test
# always scale in the workers, to whole grey levels.
_C.DATA.AUGMENT_DEVICE = "cpu"

# Share of a training epoch's videos that may fail to decode before the run stops.
_C.DATA.MAX_BAD_SHARE = 0.05

# How the views of a video become one score: sum_logits | mean_probability | max (of logits).
_C.DATA.ENSEMBLE_METHOD = "sum_logits"

# ---------------------------------------------------------------- AUG: training augmentation
_C.AUG = CfgNode()

# Augmented copies of every decoded video (repeated augmentation, arXiv 1901.09335).
_C.AUG.NUM_SAMPLE = 2

# Times that the order of an epoch draws each of its videos in a row, over the global batch, as the sampler of DeiT
# (arXiv 2012.12877) does: with R of them an epoch of the same length sees a share 1 / R of the videos, R times each.
_C.AUG.SAMPLER_REPEATS = 1

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

# Class in MODEL_REGISTRY (slowfast/models/build.py): Uniformer (video) | Uniformer2d (still images: DATA.NUM_FRAMES 1,
# EMIM.MOTION False).
_C.MODEL.MODEL_NAME = "Uniformer"

# Number of classes.
_C.MODEL.NUM_CLASSES = 174

# Weights to start from: a file (.pth or .safetensors, 2-D (inflated) or video), or an earlier experiment, by its folder
# (exp/NAME), its YAML file or its OUTPUT_DIR, which must be finished and whose best checkpoint is taken; "" trains from
# scratch.
_C.MODEL.PRETRAINED = ""

# Where a weight file comes from; part of the error when it is missing.
_C.MODEL.PRETRAINED_HINT = ""

# Smallest share of the model's tensors (head aside) that PRETRAINED must fill, else loading is an error.
_C.MODEL.PRETRAINED_MIN_MATCH = 0.5

# Compile the model (torch.compile): the first steps take minutes, later ones are faster on most GPUs.
_C.MODEL.COMPILE = False

# Activation checkpointing: number of first blocks of each stage that are recomputed in the backward pass. Models
# that are compiled may have it in stages 3 and 4 only.
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
# stage's depth and counted from the stage's first block. ["emim", "joint"] is the paper's E-O, ["joint"] the baseline,
# "joint_cost_volume" joint attention with a traditional cost volume beside it (Table 10).
_C.UNIFORMER.STAGE3_ATTENTION = ["emim", "joint"]
_C.UNIFORMER.STAGE4_ATTENTION = ["emim", "joint"]

# ---------------------------------------------------------------- EMIM (arXiv 2510.18705)
_C.EMIM = CfgNode()

# Window side (tokens, odd) in stages 3 and 4. The release and the paper's Table 5 have 7; the paper's sentence on a
# maximum displacement of 7, which would make it 15, fits neither its tables nor its FLOPs.
_C.EMIM.WINDOW = [7, 7]

# Add the motion features made from the affinities (Table 7).
_C.EMIM.MOTION = True

# Start the motion branch at zero, so that pre-trained attention is what it was at step 0. The paper's authors note
# that this matters for fine-tuning and may be dropped when training from scratch.
_C.EMIM.ZERO_INIT_MOTION = True

# Learn a bias per displacement. The paper writes one table (Eq. 3); the release has one per head, and so has this.
_C.EMIM.RELATIVE_BIAS = True

# What a token attends to (Table 6): sliding (a window centred on it) | tiled (the tile of WINDOW x WINDOW tokens that
# it lies in, with Swin's bias table, arXiv 2103.14030; grids that are no multiple of it are extended as PADDING says).
_C.EMIM.SAMPLING = "sliding"

# Frames from a query to its keys (Table 11), 1 in the paper's method.
_C.EMIM.TEMPORAL_INTERVAL = 1

# What a frame without a successor does, of which the paper says nothing: repeat (the result of the frame
# TEMPORAL_INTERVAL before it; the release with interval 1) | self (attend to itself; the release's authors with
# interval 2). A frame without either, as in clips of fewer than 2 * TEMPORAL_INTERVAL frames, attends to
# itself in any case.
_C.EMIM.LAST_FRAME = "repeat"

# Keys and values outside the image: constant (1e-6 in every channel, with a share of the softmax; paper and release) |
# mask (no share; the motion features read an affinity of 0 there).
_C.EMIM.PADDING = "constant"

# Implementation: auto (the fastest that can run) | reference (the definition, slow) | dense (exact, fast on CPU) |
# natten (attended values by the NATTEN package) | triton (kernels for CUDA devices, tested in the interpreter alone so
# far: auto does not choose them).
_C.EMIM.BACKEND = "auto"

# ---------------------------------------------------------------- SOLVER
_C.SOLVER = CfgNode()

# adamw (arXiv 1711.05101) with BETAS and EPS | sgd with MOMENTUM (Nesterov's, if not 0).
_C.SOLVER.OPTIMIZING_METHOD = "adamw"

# The rate of one step of TRAIN.BATCH_SIZE videos.
_C.SOLVER.BASE_LR = 2e-4
_C.SOLVER.BETAS = [0.9, 0.999]
_C.SOLVER.EPS = 1e-8
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.WEIGHT_DECAY = 0.05

# Factor of the learning rate from each block to the one before it (BEiT, arXiv 2106.08254); 1 is off.
_C.SOLVER.LAYER_DECAY = 1.0

# Moving average of the weights, w_average <- d w_average + (1 - d) w after every step, evaluated beside the raw ones
# and kept in checkpoints; 0 is off. TEST.WEIGHTS chooses which are tested.
_C.SOLVER.EMA_DECAY = 0.0

# Decay EMIM's relative bias (parameters called rpb) like a weight. Biases and norms are never decayed, and the paper's
# authors meant to spare rpb as well; but their released list of names never matched, so that the published runs decayed
# it. True does as those runs did.
_C.SOLVER.DECAY_RELATIVE_BIAS = False

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
# BATCH_SIZE stays what the recipe says on machines with less memory. 0 takes all clips at once, auto as many as fit.
# Gradients are those of one pass, except that batch norms (stages 1 and 2, and the last one) see smaller batches.
_C.TRAIN.MICRO_BATCH_SIZE = 0
accept_words("TRAIN.MICRO_BATCH_SIZE", "auto")

# Precision: auto (bf16 on GPUs that have it, fp16 on others, fp32 on CPU) | fp32 | bf16 | fp16 (dynamic loss scaling).
# The paper's runs used fp16.
_C.TRAIN.PRECISION = "auto"

# Epochs between two validations and between two checkpoints; the last epoch always does both.
_C.TRAIN.EVAL_PERIOD = 5
_C.TRAIN.CHECKPOINT_PERIOD = 1

# Steps between two checkpoints within an epoch, for epochs that take hours; 0 keeps to CHECKPOINT_PERIOD. A run that
# gets SIGTERM keeps one in any case before it ends.
_C.TRAIN.CHECKPOINT_STEPS = 0

# How many of the newest checkpoints are kept (2 or more: the one before the newest serves if that is damaged), and
# every how many epochs one is kept for good; 0 keeps none. The best one on the validation split is kept besides.
_C.TRAIN.KEEP_CHECKPOINTS = 2
_C.TRAIN.KEEP_EVERY = 0

# A step whose loss or gradient is not finite: stop (naming step, learning rate and videos) | skip (leave the weights as
# they are, up to ten times in a row). Either way the videos are written to OUTPUT_DIR.
_C.TRAIN.ON_NONFINITE = "stop"

# Continue from the newest checkpoint in OUTPUT_DIR, also in the middle of an epoch.
_C.TRAIN.AUTO_RESUME = True

# ---------------------------------------------------------------- TEST
_C.TEST = CfgNode()
_C.TEST.ENABLE = True

# Clips per step over all processes, in validation and test (each test clip gives NUM_SPATIAL_CROPS views).
_C.TEST.BATCH_SIZE = 32

# Views of one video: temporal clips x spatial crops (1: centre, 3: along the longer side).
_C.TEST.NUM_ENSEMBLE_VIEWS = 1
_C.TEST.NUM_SPATIAL_CROPS = 3

# Which weights of a checkpoint are tested: model | ema (with SOLVER.EMA_DECAY).
_C.TEST.WEIGHTS = "model"

# Checkpoint to test, or a weight file as others publish it, which must fill every tensor of the model; "" means the
# best of OUTPUT_DIR.
_C.TEST.CHECKPOINT_FILE_PATH = ""

# Precision of validation and test: auto | fp32 | bf16 | fp16.
_C.TEST.PRECISION = "fp32"

# Whether the test folds batch norms and the sums of position encodings into the layers beside them: the same function
# but for rounding, a little faster (docs/speed.md).
_C.TEST.FOLD_NORMS = False

# A video that cannot be decoded, or whose logits are not finite: error (stop, naming it) | count_wrong (scored as wrong
# and listed in the results).
_C.TEST.ON_BAD_VIDEO = "error"

# ---------------------------------------------------------------- TENSORBOARD, WANDB
_C.TENSORBOARD = CfgNode()

# Scalars, the configuration, pictures and histograms in OUTPUT_DIR/tensorboard.
_C.TENSORBOARD.ENABLE = True

# Epochs between two pictures of a training batch as the model sees it, augmented and mixed, beginning with the first
# epoch; 0 for none. The newest one is OUTPUT_DIR/train_batch.png, without TensorBoard too.
_C.TENSORBOARD.IMAGES_PERIOD = 10

# Epochs between two sets of histograms of all weights, and of their gradients in the last step of the epoch (after
# clipping); 0 for none.
_C.TENSORBOARD.HISTOGRAM_PERIOD = 0

# Weights & Biases (pip install wandb; https://docs.wandb.ai): the same scalars, pictures and configuration. All
# commands with the same OUTPUT_DIR continue one run, whose identity is in OUTPUT_DIR/wandb_run_id.txt.
_C.WANDB = CfgNode()
_C.WANDB.ENABLE = False

# Project, made if there is none; user or team, "" for your default one; name of the run, "" for that of OUTPUT_DIR,
# or of the folder above if that is called output.
_C.WANDB.PROJECT = "slowfast"
_C.WANDB.ENTITY = ""
_C.WANDB.NAME = ""

# online | offline (kept in OUTPUT_DIR/wandb until "wandb sync" sends it) | "" (what the environment variable WANDB_MODE
# says, else online).
_C.WANDB.MODE = ""

# ---------------------------------------------------------------- DIST
_C.DIST = CfgNode()
# Process group: auto (nccl on CUDA, else gloo) | nccl | gloo. World size and ranks come from torchrun or SLURM.
_C.DIST.BACKEND = "auto"
# Minutes after which a collective that does not complete is an error; it names the processes that did not come.
_C.DIST.TIMEOUT_MIN = 30.0
# Minutes within which all processes have to have started and found each other.
_C.DIST.RENDEZVOUS_TIMEOUT_MIN = 5.0
# Batch norms take the statistics of all processes' clips together (CUDA only); the paper's runs did not.
_C.DIST.SYNC_BATCHNORM = False
# Tell DistributedDataParallel that every step uses the same parameters, which saves a search in each.
_C.DIST.STATIC_GRAPH = False


def get_cfg() -> CfgNode:
    """Return a fresh, unfrozen copy of the defaults."""
    return _C.clone()
