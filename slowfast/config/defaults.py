"""Every configuration key with its default, range and meaning, in the order of the pipeline.

A YAML file (``cfg.merge_from_file``) and then ``KEY VALUE`` pairs (``cfg.merge_from_list``) override these values.
Reading a configuration touches no disk but the YAML files themselves. ``docs/configuration.md`` is made from here:
``python -m slowfast.config.document``.
"""

from slowfast.config.keys import Key, choice, flag, mapping, names, number, numbers, text
from slowfast.config.parser import CfgNode, declare

declare(
    "",
    RNG_SEED=number(0, "Seed of every random stream: weights, data order, augmentation.", low=0, high=2**32 - 1),
    OUTPUT_DIR=text(
        "", 'Checkpoints, logs, results; "" is `exp/NAME/output` of `exp/NAME/config.yaml`, else `output/NAME`.'
    ),
    DEVICE=choice("auto", "cpu", "cuda", meaning="auto is CUDA if present, else CPU."),
    USER_MODULES=names(
        [],
        "Python files, or folders of packages, that are imported first: they register models, attentions, data sets "
        "and losses of your own, and declare their keys (docs/extending.md). Relative to the file that names them.",
    ),
    LOG_PERIOD=number(10, "Steps between two log lines, between which nothing waits for device or processes.", low=1),
)

declare(
    "DATA",
    DATASET=text(
        "VideoList",
        "Class in DATASET_REGISTRY (`slowfast/datasets/build.py`): VideoList (list files) | ImageFolder (still images "
        "in PATH_TO_DATA_DIR/{train,val}/CLASS/, labelled by the rank of the class folder's name) | Rendered (stimuli "
        "that ARGS describes, rendered while the training goes on).",
    ),
    ARGS=mapping(
        "What Rendered shows and asks, over the defaults of `StimulusSpec` in `slowfast/synthetic/stimuli.py`, or of "
        "`GestureSpec` in `gestures.py` with the question gesture."
    ),
    PATH_TO_DATA_DIR=text("", "Folder of the list files, or of the folders of the splits."),
    PATH_PREFIX=text("", 'Folder to which paths in the lists are relative; "" means PATH_TO_DATA_DIR.'),
    LABEL_PATH_TEMPLATE=text("{}.csv", 'Name of a list, {} being train | val | test; "test" without one is "val".'),
    CLASS_NAMES_FILE=text("", 'Class names, one a line in label order; "" means classes.txt beside the lists, if any.'),
    MULTI_LABEL=flag(
        False, 'Label fields may have several labels, "3|17"; then mAP stands for the accuracies (docs/data.md).'
    ),
    EXCLUDE_FILE=text("", "Videos to leave out: the bad_items.csv of `tools/prepare_data.py check`, or a path a line."),
    EXPECTED_NUM_VIDEOS=numbers(
        [], "Training and validation videos of the complete set, for the check; [] if unknown."
    ),
    SOURCE=choice(
        "video",
        "frames",
        "image",
        meaning='Kind of list line: video ("path label") | frames (folder of images, "folder num_frames label") | '
        'image (a still, "path label"; NUM_FRAMES must be 1).',
    ),
    PACKED=text("", 'Folder or fsspec URL of archives that `tools/prepare_data.py pack` made; "" reads file by file.'),
    IMAGE_TEMPLATE=text("{:05d}.jpg", "File name of one frame inside its folder."),
    FIRST_IMAGE=number(1, "Number of the first frame of a folder.", low=0),
    DECODING_BACKEND=choice(
        "auto", "pyav", "decord", meaning="auto is pyav; decord refuses what it cannot read right."
    ),
    FRAME_SAMPLING=choice(
        "sparse",
        "dense",
        meaning="sparse: one frame per equal segment (TSN, arXiv 1608.00859) | dense: SAMPLING_RATE apart.",
    ),
    NUM_FRAMES=number(16, "Frames of one clip.", low=1),
    SHORT_VIDEO=choice(
        "repeat_last",
        "stretch",
        meaning="Dense clips of a video shorter than they: its last frame repeats | they span the whole video.",
    ),
    SAMPLING_RATE=number(4, "Step between the frames of a clip in dense sampling (frames).", low=1),
    MEAN=numbers([0.45, 0.45, 0.45], "Normalisation of RGB in [0, 1]: (x - MEAN) / STD.", length=3),
    STD=numbers([0.225, 0.225, 0.225], "See MEAN.", length=3, above=0),
    TRAIN_CROP_SIZE=number(224, "Side of the training crop (px).", low=1),
    TEST_CROP_SIZE=number(224, "Side of the testing crop (px).", low=1),
    TEST_SHORT_SIDE=number(0, "Length to which testing scales the short side (px); 0 is TEST_CROP_SIZE.", low=0),
    TEST_INTERPOLATION=choice(
        "bilinear", "bicubic", meaning="bilinear: not antialiased, as for video | bicubic: Pillow's, as for ImageNet."
    ),
    TRAIN_JITTER_SCALES_RELATIVE=numbers(
        [0.08, 1.0], "Area of the random resized crop (share of the frame).", length=2, rising=True, above=0, high=1
    ),
    TRAIN_JITTER_ASPECT_RELATIVE=numbers(
        [0.75, 1.3333], "Aspect ratio (width / height) of the random resized crop.", length=2, rising=True, above=0
    ),
    RANDOM_FLIP=flag(False, "Mirror half of the training clips; never where labels have directions."),
    TRAIN_SAMPLING=choice(
        "uniform", "balanced", meaning="uniform: every training video once an epoch | balanced: every class as often."
    ),
    MAX_BAD_SHARE=number(0.05, "Share of an epoch's videos that may fail to decode in training.", low=0, high=1),
    ENSEMBLE_METHOD=choice("sum_logits", "mean_probability", "max", meaning="Views of a video to one score."),
)

declare(
    "AUG",
    NUM_SAMPLE=number(2, "Augmented copies of every decoded video (repeated augmentation, arXiv 1901.09335).", low=1),
    SAMPLER_REPEATS=number(1, "Times in a row that the sampler draws a video; DeiT (arXiv 2012.12877) has 3.", low=1),
    AA_TYPE=text(
        "rand-m7-n4-mstd0.5-inc1",
        'RandAugment (arXiv 1909.13719), alike for all frames: "" (off) or rand-mM-nN[-mstdS][-inc1], M magnitude 0 to '
        "10, "
        "N operations, S standard deviation of the magnitude, inc1 the increasing-severity set.",
    ),
    RE_PROB=number(0.25, "Probability of random erasing (arXiv 1708.04896), one box for the clip.", low=0, high=1),
    RE_COUNT=number(1, "Erased boxes per clip.", low=1),
    RE_MODE=choice("pixel", "const", meaning="pixel: unit normal noise per pixel | const: zero, after normalisation."),
)

declare(
    "MIXUP",
    ENABLE=flag(True, "Mix clips and labels of a batch."),
    ALPHA=number(0.8, "Beta parameter of mixup (arXiv 1710.09412); 0 is off.", low=0),
    CUTMIX_ALPHA=number(1.0, "Beta parameter of CutMix (arXiv 1905.04899); 0 is off.", low=0),
    PROB=number(1.0, "Probability of mixing a batch.", low=0, high=1),
    SWITCH_PROB=number(0.5, "Probability of CutMix when both are on.", low=0, high=1),
    LABEL_SMOOTH_VALUE=number(0.1, "Label smoothing of the training targets, also without mixing.", low=0, below=1),
)

declare(
    "DATA_LOADER",
    NUM_WORKERS=number(8, "Worker processes per training process; 0 loads in the training process itself.", low=0),
)

declare(
    "MODEL",
    MODEL_NAME=text(
        "Uniformer",
        "Class in MODEL_REGISTRY: Uniformer (video) | Uniformer2d (stills: no EMIM.MOTION) | SlowFast | X3D, or a "
        "network of a library: torchvision/NAME | transformers/NAME | timm/NAME; see docs/models.md.",
    ),
    ARGS=mapping(
        "Arguments of the model's constructor by name, over its defaults, where docs/models.md names them: "
        "`MODEL.ARGS.alpha 8`. Files add to those of their `_BASE_`; null is the default."
    ),
    NUM_CLASSES=Key(
        0,
        "Number of classes; 0: as many as class names, else the largest label of training and validation + 1.",
        "0 or at least 2",
        lambda value: value == 0 or value >= 2,
    ),
    PRETRAINED=text(
        "",
        "Weights to start from: a file (.pth, .safetensors; 2-D ones are inflated), published ones by name "
        "(`uniformer_s_in1k`, `hf-hub:USER/REPOSITORY[/FILE]`), or a finished experiment, by its folder (`exp/NAME`), "
        'YAML file or OUTPUT_DIR, whose best checkpoint is taken; "" trains from scratch.',
    ),
    INFLATION=choice(
        "average",
        "center",
        meaning="2-D weights in 3-D convolutions: the same in all frames, which blurs what moves | in the middle one.",
    ),
    FREEZE=names(
        [],
        "Parameters that are not trained, patterns of names as of files: `patch_embed1.*`, `blocks[12].*`. Batch norms "
        "of which nothing is trained keep their statistics.",
    ),
    COMPILE=flag(False, "Compile the model (torch.compile): slow first steps, faster later ones on most GPUs."),
    CHECKPOINT_NUM=numbers(
        [0, 0, 0, 0],
        "First blocks per stage that recompute activations; those with batch norms are then not compiled. Networks of "
        "transformers and timm: all of them where a number is not 0.",
        length=4,
        low=0,
    ),
)

declare(
    "UNIFORMER",
    EMBED_DIM=numbers([64, 128, 320, 512], "Channels per stage (arXiv 2201.09450).", length=4, low=1),
    DEPTH=numbers([3, 4, 8, 3], "Blocks per stage. S: 3, 4, 8, 3; B: 5, 8, 20, 7.", length=4, low=0),
    HEAD_DIM=number(64, "Channels per attention head.", low=1),
    MLP_RATIO=number(4.0, "Hidden width of the MLPs over their input width.", above=0),
    INIT_STD=number(0.02, "Standard deviation of the initial weights of linear layers.", above=0),
    DROP_DEPTH_RATE=number(0.1, "Stochastic depth of the last block, growing linearly from 0.", low=0, below=1),
    TEMPORAL_DOWNSAMPLE=flag(False, "Halve the frame rate in the stem, as UniFormer; EMIM and its baselines do not."),
    STAGE3_ATTENTION=names(
        ["emim", "joint"],
        "Attention of the blocks of stage 3: names from ATTENTIONS (`slowfast/models/attention.py`), repeated from its "
        "first block on. [emim, joint] is the paper's E-O, [joint] the baseline, joint_cost_volume that of Table 10.",
    ),
    STAGE4_ATTENTION=names(["emim", "joint"], "The same of stage 4."),
)

declare(
    "EMIM",
    WINDOW=numbers(
        [7, 7],
        "Window side (tokens, odd) in stages 3 and 4. The release and Table 5 have 7; the paper's sentence on a "
        "maximum displacement of 7, which would make it 15, fits neither its tables nor its FLOPs (arXiv 2510.18705).",
        length=2,
        low=1,
        high=31,  # more than twice the map at 224 px
    ),
    MOTION=flag(True, "Add the motion features made from the affinities (Table 7)."),
    ZERO_INIT_MOTION=flag(True, "Start the motion branch at zero: step 0 is the pre-trained attention."),
    RELATIVE_BIAS=flag(True, "Learn a bias per displacement and head, as in the release (Eq. 3 writes one table)."),
    SAMPLING=choice(
        "sliding",
        "tiled",
        meaning="Keys (Table 6): a window around the token | its tile of WINDOW x WINDOW, Swin's bias.",
    ),
    TEMPORAL_INTERVAL=number(1, "Frames from a query to its keys (Table 11).", low=1),
    LAST_FRAME=choice(
        "repeat",
        "self",
        meaning="A frame without a successor: repeat the result of the frame TEMPORAL_INTERVAL before it (the release, "
        "interval 1) | attend to itself (the release, interval 2; also where there is no such frame).",
    ),
    PADDING=choice(
        "constant",
        "mask",
        meaning="Keys and values outside the image: 1e-6 in every channel, with a share of the softmax (paper and "
        "release) | no share, and an affinity of 0 for the motion features.",
    ),
    BACKEND=choice(
        "auto",
        "reference",
        "dense",
        "natten",
        "triton",
        meaning="auto: dense, so far | reference: the definition | dense: exact, fast on CPU | natten: "
        "values attended by NATTEN | triton: CUDA kernels, tested in the interpreter alone so far, not chosen by auto.",
    ),
)

declare(
    "LOSS",
    NAME=text(
        "soft_target_cross_entropy",
        "Function in LOSSES (`slowfast/models/losses.py`): soft_target_cross_entropy (one class per video) | "
        "binary_cross_entropy (each class against the rest, mean over the classes).",
    ),
    CLASS_WEIGHTS=numbers(
        [],
        "Weights of the classes in the loss: [] for none | balanced: inverse to the number of their training videos, 1 "
        "in the mean over the videos | a number per class.",
        words=("balanced",),
        low=0,
    ),
)

declare(
    "VMP",
    ENABLE=flag(False, "Put Video Motion Prompts (arXiv 2407.03179) before the model; clips get one more frame."),
    PENALTY=number(0.0, "Weight of the variation of the attention over time in the training loss.", low=0),
    INIT=numbers([], "Slope m and shift n at the start; [] draws them from a normal distribution, as released.", 2),
    GREY=choice("rgb", "released", meaning="Weights of the channels: BT.601 | red and blue exchanged, as released."),
)

declare(
    "SOLVER",
    OPTIMIZING_METHOD=choice("adamw", "sgd", meaning="adamw (arXiv 1711.05101): BETAS | sgd: Nesterov's MOMENTUM."),
    BASE_LR=number(2e-4, "Learning rate of one step of TRAIN.BATCH_SIZE videos.", above=0),
    BETAS=numbers([0.9, 0.999], "Decay of AdamW's moments.", length=2, low=0, below=1),
    MOMENTUM=number(0.9, "Momentum of sgd.", low=0, below=1),
    WEIGHT_DECAY=number(0.05, "Weight decay: apart from the gradient for adamw, added to it for sgd.", low=0, high=1),
    LAYER_DECAY=number(1.0, "Factor of the rate from a block to the one before (arXiv 2106.08254).", above=0, high=1),
    EMA_DECAY=number(0.0, "Decay d of averaged weights, w_a <- d w_a + (1 - d) w each step; 0: off.", low=0, below=1),
    DECAY_RELATIVE_BIAS=flag(False, "Decay EMIM's relative bias, as the published runs did, though not on purpose."),
    MAX_EPOCH=number(60, "Epochs.", low=1, high=100_000),
    STOP_AFTER=number(
        0, "Validations in a row without a better result than before after which training ends; 0: never.", low=0
    ),
    WARMUP_EPOCHS=number(5.0, "Epochs of linear warm-up, followed by half a cosine.", low=0),
    WARMUP_START_LR=number(1e-6, "Learning rate at the first step of the warm-up.", low=0),
    COSINE_END_LR=number(1e-6, "Learning rate at the end; at most BASE_LR.", low=0),
    CLIP_GRADIENT=number(20.0, "Largest norm of the whole gradient; 0 switches clipping off.", low=0),
)

declare(
    "TRAIN",
    ENABLE=flag(True, "Whether `tools/run_net.py` trains; `train_net.py` and `test_net.py` do not ask."),
    BATCH_SIZE=number(32, "Videos per step over all processes (each gives AUG.NUM_SAMPLE clips).", low=1),
    MICRO_BATCH_SIZE=number(
        0,
        "Clips of one forward and backward pass of a process, over which gradients accumulate; 0: all, auto: as many "
        "as fit a GPU. Batch norms (stages 1 and 2, and the last one) see smaller batches.",
        "auto",
        low=0,
    ),
    PRECISION=choice(
        "auto",
        "fp32",
        "bf16",
        "fp16",
        meaning="auto: bf16 on GPUs that have it, else fp16; fp32 on CPU. The paper: fp16.",
    ),
    EVAL_PERIOD=number(5, "Epochs between two validations; the last epoch always has one.", low=1),
    EVAL_VIEWS=Key(
        [1, 1],
        "Clips of a video, and crops of a clip, in validation, combined by DATA.ENSEMBLE_METHOD.",
        "2 values, at least 1 and 1 (centre) | 3",
        lambda values: len(values) == 2 and values[0] >= 1 and values[1] in (1, 3),
    ),
    CHECKPOINT_PERIOD=number(1, "Epochs between two checkpoints; the last epoch always has one.", low=1),
    CHECKPOINT_STEPS=number(0, "Steps between two checkpoints within an epoch; 0 for none.", low=0),
    KEEP_CHECKPOINTS=number(2, "How many of the newest checkpoints are kept; the best one besides.", low=2),
    ON_NONFINITE=choice(
        "stop",
        "skip",
        meaning="A step that is not finite never changes weights: end the run | go on, at most ten in a row.",
    ),
    RESUME_CHANGED=flag(False, "Continue the run in OUTPUT_DIR although its model, data or recipe was another one."),
)

declare(
    "TEST",
    ENABLE=flag(True, "Whether `tools/run_net.py` tests."),
    BATCH_SIZE=number(32, "Clips per step over all processes (each gives NUM_SPATIAL_CROPS views).", low=1),
    NUM_ENSEMBLE_VIEWS=number(1, "Temporal clips of one video.", low=1),
    NUM_SPATIAL_CROPS=Key(3, "Crops of a clip, along its longer side.", "1 (centre) | 3", (1, 3).__contains__),
    WEIGHTS=choice("model", "ema", meaning="Weights of a checkpoint that are tested; ema needs SOLVER.EMA_DECAY."),
    CHECKPOINT=number(
        "best",
        "Checkpoint of OUTPUT_DIR to test: that of the best validation (of the raw weights) | the newest | that of so "
        "many epochs, which training keeps.",
        "best",
        "last",
        low=1,
    ),
    CHECKPOINT_FILE_PATH=text("", 'Checkpoint or published weight file to test instead; "" means TEST.CHECKPOINT.'),
    PRECISION=choice("fp32", "auto", "bf16", "fp16", meaning="Precision of validation and test."),
    ON_BAD_VIDEO=choice("error", "count_wrong", meaning="A video without a finite score: stop | count as wrong."),
)

declare(
    "TENSORBOARD",
    ENABLE=flag(True, "Scalars, the configuration, pictures and histograms in OUTPUT_DIR/tensorboard."),
    IMAGES_PERIOD=number(10, "Epochs between two pictures of a training batch (train_batch.png); 0 for none.", low=0),
    HISTOGRAM_PERIOD=number(0, "Epochs between two sets of histograms of weights and gradients; 0 for none.", low=0),
)

declare(
    "WANDB",
    ENABLE=flag(False, "Mirror TensorBoard on Weights & Biases; WANDB_MODE, WANDB_ENTITY, WANDB_NAME choose the rest."),
    PROJECT=text("slowfast", "Project, made if there is none."),
)

declare(
    "DIST",
    BACKEND=choice("auto", "nccl", "gloo", meaning="Process group; auto is nccl on CUDA, else gloo."),
    TIMEOUT_MIN=number(30.0, "Minutes after which a collective that does not complete is an error.", above=0),
    SYNC_BATCHNORM=flag(False, "Batch norms take the statistics of all processes (CUDA only); not the paper's."),
)


def get_cfg() -> CfgNode:
    """Return a fresh, unfrozen tree of the defaults."""
    cfg = CfgNode()
    cfg.add_declared()
    return cfg
