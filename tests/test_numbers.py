"""Every figure of README.md and the pages of docs has a source, from which it is read here, in the order of the page.

Figures are numbers with a point, a power of ten or thousands, percentages and GFLOPs. A figure that changes, or comes
new, on a page needs its source here; one that changes in its source fails until the page says the same.
"""

import csv
import hashlib
import json
import re
from pathlib import Path

import pytest

from slowfast.config import load_cfg
from slowfast.inference.exam import BLIND, read_references
from slowfast.models import document
from slowfast.models.zoo import ARCHITECTURES, ZOO
from slowfast.synthetic.stimuli import StimulusSpec

ROOT = Path(__file__).parents[1]
FIGURE = r"(?<![\w.,-])-?(?:\d[\d,]*\.\d+|\d{1,3}(?:,\d{3})+|\d+e-\d+|\d+(?= (?:and \d+ )?(?:%|GFLOPs)))(?!\w)"
# Pages without figures of their own: made from the code (tests/test_house.py, below), and times of named machines, each
# with its command.
ELSEWHERE = {"docs/configuration.md", "docs/models.md", "docs/notes/speed.md"}
TEXTS = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
with open(ROOT / "exp/results.csv", newline="", encoding="utf-8") as file:
    RESULTS = {row["name"]: row for row in csv.DictReader(file)}
# Of the package's network, by: python tools/visualize.py --model emim_tiny_motion --evaluate 240 --out tests/golden
EVALUATION = json.loads((ROOT / "tests/golden/evaluation.json").read_text())
WEIGHTS = "c2e93aded537a2fa285af39e8a3c710a9836a28b7d8810d18da26f54f1a9b4b6"
# Top-1 of the quickstart's network, by: python tools/test_net.py --cfg exp/quickstart/config.yaml --perturb ORDER
REVERSE, SHUFFLE, SINGLE_FRAME = "0.2", "24.0", "11.7"
QUICKSTART = [f"{float(RESULTS['quickstart']['our_top1']):.1f}", REVERSE, SHUFFLE, SINGLE_FRAME]
(PYTHON,) = re.findall(r'python_requires=">=([\d.]+)"', (ROOT / "setup.py").read_text())
BYTES = ["86,314,461", "199,378,501", "85,735,325", "199,525,573", "199,525,573"]  # as the Hub lists the files
INTERVAL = "95"  # percent, of all confidence intervals


def paper(*runs):
    return [RESULTS[run]["paper_top1"] for run in runs]


def cost(name):
    """Return the GFLOPs of an architecture in docs/models.md."""
    (counted,) = re.findall(rf"^\| `{name}` \|.* (\S+) \|$", TEXTS["docs/models.md"], flags=re.M)
    return counted


def read_table(name):
    """Return the lines of a table of filmed actions."""
    with open(ROOT / f"exp/filmed/results/{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def results_of(name):
    """Return the same by the name of the arm."""
    return {row["config"]: row for row in read_table(name)}


def readme():
    speed = re.findall(r"^\| fp32 \| ([\d.]+) \| ([\d.]+) \|", TEXTS["docs/notes/speed.md"], flags=re.M)[0]
    names = ("uniformer_s16", "emim_s16", "emim_b32")
    table = paper(*(f"{name}_{data}" for name in names for data in ("ssv1_k400", "ssv2_k400", "k400_in1k")))
    with open(ROOT / "exp/comparators/results/motion/motion.csv", newline="", encoding="utf-8") as file:
        comparison = {row["config"]: row for row in csv.DictReader(file)}
    motion = [f"{float(comparison[arm][key]):.1f}" for arm in ("emim", "joint") for key in ("top1", "top1_plus_minus")]
    filmed = (ROOT / "exp/filmed/README.md").read_text(encoding="utf-8")
    folds = results_of("egogestar")
    (middle,) = re.findall(r"^\| the middle one alone \| (\S+) ", filmed, flags=re.M)
    unseen, unseen_joint = (row for row in read_table("shots") if row["shots"] == "0")
    exam = {one["name"]: one for one in read_references()}
    trained = sum(exam["emim"]["exam"]["training_clips"].values())
    seen = [[f"{exam[name]['tests'][test]['percent']:.1f}" for name in ("emim", "joint", "r2plus1d")]
            for test in ("displacement 3", "noise")]  # fmt: skip
    best = results_of("weizmann")["emim_prompts"]
    tables = (ROOT / "exp/motion_study/results/tables.md").read_text(encoding="utf-8").partition("## From stills")[2]
    study = [
        re.findall(rf"^\| {stimulus} +\| motion +\| {displacement} +\| emim .*?\| [+]?(\S+) \[[+]?(\S+), [+](\S+)\]",
                   tables, flags=re.M)[0]
        for stimulus, displacement in (("camouflage", "0.5 to 1"), ("camouflage", "1 to 2"), ("camouflage", "2 to 3"),
                                       *(("textured", speed) for speed in ("0.5 to 1", "1 to 2", "2 to 3")))
    ]  # fmt: skip
    (agreement,) = re.findall(r"atol=(\S+)\)", (ROOT / "tests/models/test_golden.py").read_text())
    return [
        PYTHON,
        *QUICKSTART,
        agreement,
        *speed,
        *motion,
        f"{StimulusSpec().num_train * load_cfg(str(ROOT / 'configs/_base_/comparators.yaml')).SOLVER.MAX_EPOCH:,}",
        *(f"{trained:,}", f"{BLIND:.1f}", *seen[0], *seen[1]),
        *(f"{float(best[key]):.1f}" for key in ("top1", "low", "high")),
        *(f"{float(folds[arm][key]):.1f}" for arm in ("r2plus1d", "emim", "joint") for key in ("top1", "low", "high")),
        f"{float(folds['frames']['top1']):.1f}",
        *(f"{float(one[key]):.1f}" for one in (unseen, unseen_joint) for key in ("top1", "low", "high")),
        f"{float(unseen['turned']):.1f}",
        middle,
        *(figure for line in study for figure in line),
        *table,
        *(str(round(float(cost(name)))) for name in ("emim_s", "emim_b")),
    ]


def explanations():
    """Return the figures of docs/use.md, of which the first is the tolerance of an export."""
    maps, motion = EVALUATION["maps"], {}
    for row in EVALUATION["motion"]:
        motion.setdefault(row["network"], []).append(row)
    figures = [f"{maps[name][key]:.3f}" for name in maps for key in ("insertion", "deletion")]
    figures += [
        f"{abs(maps['cam'][f'{curve}_{end}']):.3f}"
        for curve in ("insertion", "deletion")
        for end in ("gain", "interval")
    ]
    figures += [INTERVAL]
    for network in ("trained", "random weights"):
        *heads, every = motion[network]
        for key in ("epe", "epe_readout"):
            figures += [f"{value:.2f}" for value in (min(head[key] for head in heads), every[key])]
    for network in ("raw patches", "no motion"):
        figures += [f"{motion[network][0][key]:.2f}" for key in ("epe", "epe_readout")]
    figures += [f"{motion[network][-1]['correlation']:.2f}" for network in ("trained", "random weights")]
    (tolerance,) = re.findall(r'"onnx": (\S+)\}', (ROOT / "slowfast/inference/export.py").read_text())
    return [tolerance, *figures]


SOURCES = {
    "README.md": readme,
    "docs/ablations.md": lambda: [*paper("emim_s16_ssv1_in1k"), INTERVAL],
    "docs/data.md": lambda: ["1,000"],  # classes of ImageNet-1K
    "docs/emim.md": lambda: re.findall(r"PAD_VALUE = (\S+)", (ROOT / "slowfast/ops/emim/rules.py").read_text()),
    "docs/faq.md": lambda: [PYTHON, "3.13"],  # the newest Python that has all wheels
    "docs/install.md": lambda: [PYTHON],
    "docs/results.md": lambda: [INTERVAL, *QUICKSTART, INTERVAL],
    "docs/use.md": explanations,
    "docs/weights.md": lambda: [*BYTES, "95"],  # percent, of tests/inference/test_predict.py
}


@pytest.mark.parametrize("page", sorted(TEXTS.keys() - ELSEWHERE))
def test_figures_have_their_sources(page):
    text = re.sub(r"^ *```.*?^ *```", "", TEXTS[page], flags=re.S | re.M)
    for not_a_figure in (r"`[^`]*`", r"\]\([^)]*\)", r"arXiv [\d.]+", r"\d{4}\.\d{5}"):
        text = re.sub(not_a_figure, "", text)
    assert re.findall(FIGURE, text) == SOURCES.get(page, list)()


def test_the_page_of_filmed_actions_states_its_tables():
    page = (ROOT / "exp/filmed/README.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `(\w+)` \| (\d+) \| (\S+ \[.*?\]) \| (\d+) \|", page, flags=re.M)

    def read(name, *keys):
        for row in read_table(name):
            ends = [
                (row[key], row.get(f"{key}_low") or row["low"], row.get(f"{key}_high") or row["high"]) for key in keys
            ]
            yield row, ["{:.1f} [{:.1f}, {:.1f}]".format(*map(float, three)) for three in ends]

    assert found == [
        (row["config"], row["right"], top1, f"{float(row['minutes']):.0f}")
        for name in ("weizmann", "egogestar")
        for row, (top1,) in read(name, "top1")
    ]
    for row, shares in read("egogestar_order", "right", "turned", "kept"):
        assert f"| `{row['config']}` | {' | '.join(shares)} |" in page
    for row, shares in read("shots", "top1", "turned", "kept"):
        assert f"| `{row['config']}` | {row['shots']} | {row['right']} | {' | '.join(shares)} |" in page


def test_figures_of_the_small_model_are_of_the_file_in_the_package():
    weights = ROOT / "slowfast/inference/weights/emim_tiny_motion.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == WEIGHTS, "measure again"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_models_have_the_counted_cost(name):
    if ARCHITECTURES[name].get("MODEL.MODEL_NAME", "").startswith("transformers/"):
        pytest.importorskip("transformers")
    assert document._row(name) in TEXTS["docs/models.md"]


def test_models_cost_what_their_experiments_do():
    page = (ROOT / "exp/README.md").read_text(encoding="utf-8")  # whose figures tests/exp/test_experiments.py holds
    for name in ("emim_s16", "emim_b16", "joint_s16", "uniformer_s16", "uniformer_b16", "slowfast_r50_8x8", "x3d_m"):
        (counted,) = re.findall(rf"^\| \[`{name}_k400(?:_in1k)?`\].* (\S+) x \d+ x \d \|$", page, flags=re.M)
        assert float(cost(name.removesuffix("16"))) == pytest.approx(float(counted), rel=1e-3)


def test_the_page_of_models_and_of_weights_are_those_of_the_code():
    page = TEXTS["docs/models.md"]
    assert page.startswith(document._HEAD) and page.endswith(document._TAIL)
    rows = re.findall(r"^\| `(\w+)` \| `(\S+)` \| (\S+) \| [\d,]+ \| `(\w+)` \|$", TEXTS["docs/weights.md"], flags=re.M)
    found = {name: (file, repository, sha256) for name, file, repository, sha256 in rows}
    starts = {name: one for name, one in ZOO.items() if "k600" not in name}
    assert found == {name: (one.file, one.repository, one.sha256) for name, one in starts.items()}
