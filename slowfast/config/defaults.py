"""Every configuration key with its default, range and meaning, in the order of the pipeline.

A YAML file (``cfg.merge_from_file``) and then ``KEY VALUE`` pairs (``cfg.merge_from_list``) override these values.
Reading a configuration touches no disk but the YAML files themselves. ``docs/configuration.md`` is made from here:
``python -m slowfast.config.document``.
"""

from slowfast.config.keys import Key, choice, flag, names, number, numbers, text
from slowfast.config.parser import KEYS, CfgNode

_C = CfgNode()


def _declare(section: str, **keys) -> None:
    """Add the keys of a section; "" is the top level."""
    node = _C
    if section:
        _C[section] = node = CfgNode()
    for name, key in keys.items():
        node[name] = key.default
        KEYS[f"{section}.{name}" if section else name] = key


_declare(
    "",
    RNG_SEED=number(0, "Seed of every random stream: weights, data order, augmentation.", low=0),
    OUTPUT_DIR=text(
        "",
        'Folder for checkpoints, logs and results of this run. "" takes the name of the YAML file, so that no two '
        "files share one: `exp/NAME/config.yaml` has `exp/NAME/output`, `configs/A/NAME.yaml` has `output/A/NAME`.",
    ),
    DEVICE=choice("auto", "cpu", "cuda", meaning="Device; auto is CUDA if present, else CPU."),
    LOG_PERIOD=number(
        10,
        "Training steps between two log lines. In between the host never waits for the device, and processes agree on "
        "nothing but gradients: with several of them a request to stop is heard every LOG_PERIOD steps.",
        low=1,
    ),
)

_declare(
    "DATA",
    DATASET=text(
        "VideoList",
        "Class in DATASET_REGISTRY (`slowfast/datasets/build.py`): VideoList (list files) | ImageFolder (still images "
        "in PATH_TO_DATA_DIR/{train,val}/CLASS/, labelled by the rank of the class folder's name).",
    ),
    PATH_TO_DATA_DIR=text("", "Folder that holds the list files, or the folders of the splits."),
    PATH_PREFIX=text("", 'Folder to which the paths in the list files are relative; "" means PATH_TO_DATA_DIR.'),
    LABEL_PATH_TEMPLATE=text(
        "{}.csv",
        'File name of a split\'s list, {} being train | val | test; a split "test" without a list of its own reads '
        '"val". Fields are separated by comma, tab or space, detected per file.',
    ),
    CLASS_NAMES_FILE=text(
        "", 'Text file with one class name a line, in label order; "" means classes.txt beside the lists if it exists.'
    ),
    EXCLUDE_FILE=text(
        "",
        "Videos to leave out of training and testing: the bad_items.csv that `tools/prepare_data.py check` writes, or "
        'a text file with one path a line. The log says how many; "" leaves out none.',
    ),
    EXPECTED_NUM_VIDEOS=numbers(
        [], "Training and validation videos of the complete data set, with which the check compares; [] if unknown."
    ),
    SOURCE=choice(
        "video",
        "frames",
        "image",
        meaning='Kind of list line: video ("path label") | frames (folder of images, "folder num_frames label") | '
        'image (a still, "path label"; NUM_FRAMES must be 1).',
    ),
    PACKED=text(
        "",
        "Folder or fsspec URL (s3://bucket/folder; the package of the protocol must be installed) of the archives that "
        '`tools/prepare_data.py pack` made; "" reads the files one by one.',
    ),
    IMAGE_TEMPLATE=text("{:05d}.jpg", "File name of one frame inside its folder."),
    FIRST_IMAGE=number(1, "Number of the first frame of a folder.", low=0),
    DECODING_BACKEND=choice(
        "auto",
        "pyav",
        "decord",
        meaning="Video decoder; auto is pyav. decord gives the same frames of the files that it can read exactly, and "
        "refuses the others.",
    ),
    FRAME_SAMPLING=choice(
        "sparse",
        "dense",
        meaning="Frames of a clip: sparse (one per equal segment of the whole video, TSN, arXiv 1608.00859) | dense "
        "(SAMPLING_RATE apart).",
    ),
    NUM_FRAMES=number(16, "Frames of one clip.", low=1),
    SAMPLING_RATE=number(4, "Step between the frames of a clip in dense sampling (frames).", low=1),
    MEAN=numbers([0.45, 0.45, 0.45], "Normalisation of RGB in [0, 1]: (x - MEAN) / STD.", length=3),
    STD=numbers([0.225, 0.225, 0.225], "See MEAN.", length=3, above=0),
    TRAIN_CROP_SIZE=number(224, "Side of the training crop (px).", low=1),
    TEST_CROP_SIZE=number(224, "Side of the testing crop (px).", low=1),
    TEST_SHORT_SIDE=number(
        0,
        "Length to which testing first scales the short side (px); 0 is TEST_CROP_SIZE. ImageNet models have 256.",
        low=0,
    ),
    TEST_INTERPOLATION=choice(
        "bilinear",
        "bicubic",
        meaning="Scaling in tests: bilinear (without antialiasing, as for video) | bicubic (antialiased, Pillow's, "
        "with the centre crop of ImageNet evaluations to the pixel).",
    ),
    TRAIN_JITTER_SCALES_RELATIVE=numbers(
        [0.08, 1.0],
        "Area drawn by the random resized crop (share of the frame).",
        length=2,
        rising=True,
        above=0,
        high=1,
    ),
    TRAIN_JITTER_ASPECT_RELATIVE=numbers(
        [0.75, 1.3333],
        "Aspect ratio (width / height) drawn by the random resized crop.",
        length=2,
        rising=True,
        above=0,
    ),
    RANDOM_FLIP=flag(
        False,
        "Mirror whole clips with probability 0.5 in training. Never for labels that contain directions "
        "(Something-Something).",
    ),
    MAX_BAD_SHARE=number(
        0.05, "Share of a training epoch's videos that may fail to decode before the run stops.", low=0, high=1
    ),
    ENSEMBLE_METHOD=choice(
        "sum_logits", "mean_probability", "max", meaning="Views of a video to one score; max is of logits."
    ),
)

_declare(
    "AUG",
    NUM_SAMPLE=number(2, "Augmented copies of every decoded video (repeated augmentation, arXiv 1901.09335).", low=1),
    SAMPLER_REPEATS=number(
        1,
        "How often in a row the sampler draws each video, over 1 / SAMPLER_REPEATS of the videos per epoch; the "
        "repeated-augmentation sampler of DeiT (arXiv 2012.12877) has 3.",
        low=1,
    ),
    AA_TYPE=text(
        "rand-m7-n4-mstd0.5-inc1",
        'RandAugment (arXiv 1909.13719), the same operations for all frames of a clip: "" (off) or rand-mM-nN[-mstdS]'
        "[-inc1], M magnitude 0 to 10, N operations, S standard deviation of the magnitude, inc1 the increasing set.",
    ),
    RE_PROB=number(
        0.25, "Probability of random erasing (arXiv 1708.04896), one box for the whole clip.", low=0, high=1
    ),
    RE_COUNT=number(1, "Erased boxes per clip.", low=1),
    RE_MODE=choice(
        "pixel",
        "const",
        meaning="Content of erased boxes: pixel (unit normal noise per pixel) | const (zero, after normalisation).",
    ),
)

_declare(
    "MIXUP",
    ENABLE=flag(True, "Mix clips and labels of a batch."),
    ALPHA=number(0.8, "Beta parameter of mixup (arXiv 1710.09412); 0 is off.", low=0),
    CUTMIX_ALPHA=number(1.0, "Beta parameter of CutMix (arXiv 1905.04899); 0 is off.", low=0),
    PROB=number(1.0, "Probability of mixing a batch.", low=0, high=1),
    SWITCH_PROB=number(0.5, "Probability of CutMix when both are on.", low=0, high=1),
    LABEL_SMOOTH_VALUE=number(0.1, "Label smoothing of the training targets, also without mixing.", low=0, below=1),
)

_declare(
    "DATA_LOADER",
    NUM_WORKERS=number(8, "Worker processes per training process; 0 loads in the training process itself.", low=0),
)

_declare(
    "MODEL",
    MODEL_NAME=text(
        "Uniformer",
        "Class in MODEL_REGISTRY (`slowfast/models/build.py`): Uniformer (video) | Uniformer2d (still images: "
        "DATA.NUM_FRAMES 1, EMIM.MOTION False).",
    ),
    NUM_CLASSES=number(174, "Number of classes.", low=2),
    PRETRAINED=text(
        "",
        "Weights to start from: a file (.pth or .safetensors, 2-D (inflated) or video), or an earlier experiment, by "
        "its folder (`exp/NAME`), its YAML file or its OUTPUT_DIR, which must be finished and whose best checkpoint is "
        'taken; "" trains from scratch.',
    ),
    COMPILE=flag(False, "Compile the model (torch.compile): slow first steps, faster later ones on most GPUs."),
    CHECKPOINT_NUM=numbers(
        [0, 0, 0, 0],
        "Activation checkpointing: number of first blocks of each stage that are recomputed in the backward pass. "
        "Models that are compiled may have it in stages 3 and 4 only.",
        low=0,
    ),
)

_declare(
    "UNIFORMER",
    EMBED_DIM=numbers([64, 128, 320, 512], "Channels per stage (arXiv 2201.09450).", length=4, low=1),
    DEPTH=numbers([3, 4, 8, 3], "Blocks per stage. S: 3, 4, 8, 3; B: 5, 8, 20, 7.", length=4, low=0),
    HEAD_DIM=number(64, "Channels per attention head.", low=1),
    MLP_RATIO=number(4.0, "Hidden width of the MLPs over their input width.", above=0),
    INIT_STD=number(0.02, "Standard deviation of the initial weights of linear layers (truncated normal).", above=0),
    DROP_DEPTH_RATE=number(
        0.1, "Stochastic depth of the last block; it grows linearly from 0 at the first block.", low=0, below=1
    ),
    TEMPORAL_DOWNSAMPLE=flag(
        False, "Halve the frame rate in the stem, as UniFormer was published. EMIM and its baselines do not."
    ),
    STAGE3_ATTENTION=names(
        ["emim", "joint"],
        "Attention of the blocks of stage 3: names from ATTENTIONS (`slowfast/models/attention.py`), repeated over the "
        "stage's depth and counted from its first block. [emim, joint] is the paper's E-O, [joint] the baseline, "
        "joint_cost_volume joint attention with a traditional cost volume beside it (Table 10).",
    ),
    STAGE4_ATTENTION=names(["emim", "joint"], "The same of stage 4."),
)

_declare(
    "EMIM",
    WINDOW=numbers(
        [7, 7],
        "Window side (tokens, odd) in stages 3 and 4. The release and the paper's Table 5 have 7; the sentence of "
        "arXiv 2510.18705 on a maximum displacement of 7, which would make it 15, fits neither its tables nor FLOPs.",
        length=2,
        low=1,
    ),
    MOTION=flag(True, "Add the motion features made from the affinities (Table 7)."),
    ZERO_INIT_MOTION=flag(
        True,
        "Start the motion branch at zero, so that pre-trained attention is what it was at step 0. The paper's authors "
        "note that this matters for fine-tuning and may be dropped when training from scratch.",
    ),
    RELATIVE_BIAS=flag(
        True, "Learn a bias per displacement, and per head as in the release (the paper's Eq. 3 writes one table)."
    ),
    SAMPLING=choice(
        "sliding",
        "tiled",
        meaning="Keys of a token (Table 6): sliding (a window centred on it) | tiled (the tile of WINDOW x WINDOW "
        "tokens that it lies in, with Swin's bias table, arXiv 2103.14030).",
    ),
    TEMPORAL_INTERVAL=number(1, "Frames from a query to its keys (Table 11), 1 in the paper's method.", low=1),
    LAST_FRAME=choice(
        "repeat",
        "self",
        meaning="A frame without a successor: repeat (the result of the frame TEMPORAL_INTERVAL before it; the release "
        "with interval 1) | self (attend to itself; the release's authors with interval 2). A frame without either, as "
        "in clips of fewer than 2 * TEMPORAL_INTERVAL frames, attends to itself in any case.",
    ),
    PADDING=choice(
        "constant",
        "mask",
        meaning="Keys and values outside the image: constant (1e-6 in every channel, with a share of the softmax; "
        "paper and release) | mask (no share; the motion features read an affinity of 0 there).",
    ),
    BACKEND=choice(
        "auto",
        "reference",
        "dense",
        "natten",
        "triton",
        meaning="Implementation: auto (the fastest that can run) | reference (the definition, slow) | dense (exact, "
        "fast on CPU) | natten (attended values by the NATTEN package) | triton (CUDA kernels, tested in the "
        "interpreter alone so far: auto does not choose them).",
    ),
)

_declare(
    "SOLVER",
    OPTIMIZING_METHOD=choice(
        "adamw", "sgd", meaning="adamw (arXiv 1711.05101) with BETAS | sgd with MOMENTUM (Nesterov's, if not 0)."
    ),
    BASE_LR=number(2e-4, "Learning rate of one step of TRAIN.BATCH_SIZE videos.", above=0),
    BETAS=numbers([0.9, 0.999], "Decay of AdamW's moments.", length=2, low=0, below=1),
    MOMENTUM=number(0.9, "Momentum of sgd.", low=0, below=1),
    WEIGHT_DECAY=number(0.05, "Decoupled weight decay.", low=0, high=1),
    LAYER_DECAY=number(
        1.0, "Factor of the learning rate from each block to the one before it (arXiv 2106.08254).", above=0, high=1
    ),
    EMA_DECAY=number(
        0.0,
        "Moving average of the weights, w_average <- d w_average + (1 - d) w after every step, evaluated beside the "
        "raw ones and kept in checkpoints; 0 is off. TEST.WEIGHTS chooses which are tested.",
        low=0,
        below=1,
    ),
    DECAY_RELATIVE_BIAS=flag(
        False,
        "Decay EMIM's relative bias (parameters called rpb) like a weight. The paper's authors meant to spare it; but "
        "their list of names never matched, so that the published runs decayed it, as True does.",
    ),
    MAX_EPOCH=number(60, "Epochs.", low=1),
    WARMUP_EPOCHS=number(
        5.0, "Linear warm-up over the first epochs, then a half cosine down to COSINE_END_LR at MAX_EPOCH.", low=0
    ),
    WARMUP_START_LR=number(1e-6, "Learning rate at the first step of the warm-up.", low=0),
    COSINE_END_LR=number(1e-6, "Learning rate at the end; at most BASE_LR.", low=0),
    CLIP_GRADIENT=number(20.0, "Largest norm of the whole gradient; 0 switches clipping off.", low=0),
)

_declare(
    "TRAIN",
    ENABLE=flag(True, "Whether `tools/run_net.py` trains; `train_net.py` and `test_net.py` do not ask."),
    BATCH_SIZE=number(32, "Videos per optimisation step over all processes (each gives AUG.NUM_SAMPLE clips).", low=1),
    MICRO_BATCH_SIZE=number(
        0,
        "Clips of one forward and backward pass of a process; gradients are accumulated over the passes of a step. 0 "
        "takes all clips at once, auto as many as fit into the memory of a GPU. Gradients are those of one pass, "
        "except that batch norms (stages 1 and 2, and the last one) see smaller batches.",
        word="auto",
        low=0,
    ),
    PRECISION=choice(
        "auto",
        "fp32",
        "bf16",
        "fp16",
        meaning="auto is bf16 on GPUs that have it, fp16 on others, fp32 on CPU. fp16 has dynamic loss scaling; the "
        "paper's runs used it.",
    ),
    EVAL_PERIOD=number(5, "Epochs between two validations; the last epoch always has one.", low=1),
    CHECKPOINT_PERIOD=number(1, "Epochs between two checkpoints; the last epoch always has one.", low=1),
    CHECKPOINT_STEPS=number(
        0,
        "Steps between two checkpoints within an epoch, for epochs that take hours; 0 keeps to CHECKPOINT_PERIOD. A "
        "run that gets SIGTERM keeps one in any case before it ends.",
        low=0,
    ),
    KEEP_CHECKPOINTS=number(
        2, "How many of the newest checkpoints are kept, in case the newest is damaged; the best one besides.", low=2
    ),
    ON_NONFINITE=choice(
        "stop",
        "skip",
        meaning="A step whose loss or gradient is not finite never changes the weights: stop (naming step, learning "
        "rate and videos) | skip (go on, up to ten times in a row). Either way the videos are written to OUTPUT_DIR.",
    ),
    RESUME_CHANGED=flag(
        False,
        "Continue the run in OUTPUT_DIR although its configuration was another one in keys that change the model, the "
        "data or the recipe; False stops and lists them.",
    ),
)

_declare(
    "TEST",
    ENABLE=flag(True, "Whether `tools/run_net.py` tests."),
    BATCH_SIZE=number(
        32, "Clips per step over all processes, in validation and test (each gives NUM_SPATIAL_CROPS views).", low=1
    ),
    NUM_ENSEMBLE_VIEWS=number(1, "Temporal clips of one video.", low=1),
    NUM_SPATIAL_CROPS=Key(
        3, "Spatial crops of a clip: 1 (centre) or 3 (along the longer side).", "1 (centre) | 3", (1, 3).__contains__
    ),
    WEIGHTS=choice("model", "ema", meaning="Weights of a checkpoint that are tested; ema needs SOLVER.EMA_DECAY."),
    CHECKPOINT_FILE_PATH=text(
        "",
        "Checkpoint to test, or a weight file as others publish it, which must fill every tensor of the model; "
        '"" means the best of OUTPUT_DIR.',
    ),
    PRECISION=choice("fp32", "auto", "bf16", "fp16", meaning="Precision of validation and test."),
    ON_BAD_VIDEO=choice(
        "error",
        "count_wrong",
        meaning="A video that cannot be decoded, or whose logits are not finite: error (stop, naming it) | count_wrong "
        "(scored as wrong and listed in the results).",
    ),
)

_declare(
    "TENSORBOARD",
    ENABLE=flag(True, "Scalars, the configuration, pictures and histograms in OUTPUT_DIR/tensorboard."),
    IMAGES_PERIOD=number(
        10,
        "Epochs between two pictures of a training batch as the model sees it, augmented and mixed, beginning with the "
        "first epoch; 0 for none. The newest one is OUTPUT_DIR/train_batch.png, without TensorBoard too.",
        low=0,
    ),
    HISTOGRAM_PERIOD=number(
        0, "Epochs between two sets of histograms of all weights and last gradients; 0 for none.", low=0
    ),
)

_declare(
    "WANDB",
    ENABLE=flag(
        False,
        "Weights & Biases (pip install wandb): what TensorBoard shows. Its environment variables (WANDB_MODE, "
        "WANDB_ENTITY, WANDB_NAME) choose the rest.",
    ),
    PROJECT=text("slowfast", "Project, made if there is none."),
)

_declare(
    "DIST",
    BACKEND=choice("auto", "nccl", "gloo", meaning="Process group; auto is nccl on CUDA, else gloo."),
    TIMEOUT_MIN=number(
        30.0, "Minutes after which a collective that does not complete is an error, also the first one.", above=0
    ),
    SYNC_BATCHNORM=flag(
        False, "Batch norms take the statistics of all processes' clips together (CUDA only); the paper's runs did not."
    ),
)


def get_cfg() -> CfgNode:
    """Return a fresh, unfrozen copy of the defaults."""
    return _C.clone()
