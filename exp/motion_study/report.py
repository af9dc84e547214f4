"""Tables and plots of the motion study: python exp/motion_study/report.py [FOLDER ...].

With folders (those of studies, or any above them), reads every finished run in them into results/runs.csv, in place of
what it had of them. Then writes results/tables.md, displacement.png and clips.png from results/runs.csv alone. Example:
  python exp/motion_study/report.py exp/motion_study/output
"""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from scipy import stats

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from slowfast.utils.errors import UserError, run_tool
from slowfast.utils.files import replacing
from slowfast.utils.metrics import ensemble, topk_correct
from slowfast.utils.results import SCORES, load_scores, read_epochs, read_results

CELL = ["start", "stimulus", "question", "displacement"]
KEYS = [*CELL, "arm", "seed"]
BASELINE = "joint"
MARGIN = 3.0  # points; an effect that is smaller, with its whole interval, is none
NUM_RESAMPLES = 2000
SIGNED = "{:+.1f} [{:+.1f}, {:+.1f}]"  # a difference and its interval
BY_T = "± by t"
TEXTURES = ("stripes", "cells", "dots")
# Colours of M. Okabe and K. Ito, which the colour-blind can tell apart; each arm has a marker of its own, too.
LOOKS = {"emim": ("#0072B2", "o"), "joint": ("#D55E00", "s"), "ee": ("#009E73", "^"), "no_motion": ("#CC79A7", "D")}
LOOKS |= {"ee_window_5": ("#E69F00", "v"), "ee_window_3": ("black", "x")}
LOOKS |= {"interval_2": ("#56B4E9", "<"), "interval_3": ("grey", ">")}
# Predictions 1 and 5, and what the motion features add: arms beside the one that they change.
CHANGED = {"no_motion": "emim", "ee_window_5": "ee", "ee_window_3": "ee", "interval_2": "emim", "interval_3": "emim"}


def read_run(folder: Path) -> dict | None:
    """Return the line of a run in ``runs.csv``; ``right`` has a bit for each video, as a hexadecimal number."""
    results = read_results(str(folder))
    if results is None:
        return None
    settings = yaml.safe_load(results["config"])
    stimuli = settings["DATA"]["ARGS"]
    validated = [(0, 0.0)] + [(event["epoch"], event["top1"]) for event in read_epochs(str(folder), "val")]
    clips = stimuli.get("num_train", 400)
    scores = load_scores(str(folder / SCORES))
    right = topk_correct(ensemble(scores.logits, results["ensemble_method"]), scores.labels, 1)
    if len(right) % 8:
        raise UserError(f"{folder} was tested on {len(right)} clips; allowed (DATA.ARGS.num_val): a multiple of 8")
    return {
        "start": "stills" if settings["MODEL"]["PRETRAINED"] else "scratch",
        "stimulus": stimuli["stimulus"],
        "question": stimuli["question"],
        "displacement": "{:g} to {:g}".format(*stimuli.get("displacement", (0.5, 1.5))),
        "arm": folder.parent.name,
        "seed": settings["RNG_SEED"],
        "clips": clips * settings["SOLVER"]["MAX_EPOCH"],
        "top1": results["top1"],
        "clips_to_50": clips_to(50.0, *zip(*((epoch * clips, top1) for epoch, top1 in validated))),
        "right": np.packbits(right).tobytes().hex(),
    }


def clips_to(accuracy: float, clips: Sequence[float], found: Sequence[float]) -> float | None:
    """Return after how many clips an accuracy was reached, interpolated linearly; None if it never was."""
    for (before, low), (after, high) in zip(zip(clips, found), zip(clips[1:], found[1:])):
        if high >= accuracy:
            return before + (after - before) * (accuracy - low) / (high - low)
    return None


def answers(runs: pd.DataFrame) -> np.ndarray:
    """Return which videos were answered right, (runs, videos) of 0 and 1."""
    return np.array([np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8)) for text in runs["right"]])


def resampled(of: Sequence[np.ndarray], combine: Callable = lambda x: x) -> tuple[float, float, float]:
    """Return ``combine`` of the mean accuracies of arms, and its 95 % interval, in percent.

    ``of`` has (seeds, videos) for each arm. The hierarchical bootstrap draws seeds, and from the videos, which are the
    same for all runs of a cell; arms of as many seeds are paired by seed.
    """
    rng, found = np.random.default_rng(0), []
    for _ in range(NUM_RESAMPLES):
        videos = rng.integers(of[0].shape[1], size=of[0].shape[1])
        seeds = {count: rng.integers(count, size=count) for count in sorted({len(arm) for arm in of})}
        found.append(combine(*(arm[seeds[len(arm)]][:, videos].mean() for arm in of)))
    low, high = np.percentile(found, (2.5, 97.5))
    return tuple(100 * float(x) for x in (combine(*(arm.mean() for arm in of)), low, high))


def half_width(of: Sequence[np.ndarray], combine: Callable) -> float:
    """Return half the 95 % interval of ``combine`` by Student's t over the seeds that all arms have, in percent."""
    count = min(map(len, of))
    found = [100 * combine(*(arm[seed].mean() for arm in of)) for seed in range(count)]
    return float(stats.t.ppf(0.975, count - 1) * np.std(found, ddof=1) / count**0.5) if count > 1 else float("inf")


def minus(first: float, second: float) -> float:
    return first - second


def compared(of: Sequence[np.ndarray], combine: Callable = minus) -> tuple[str, str, str]:
    """Return a difference with its interval, half that of Student's t, and what both of them show, in words."""
    found, low, high = resampled(of, combine)
    half = half_width(of, combine)
    return SIGNED.format(found, low, high), f"{half:.1f}", verdict((low, high), (found - half, found + half))


def verdict(*intervals: tuple[float, float]) -> str:
    """Say what all intervals of a difference show."""
    low, high = min(low for low, _ in intervals), max(high for _, high in intervals)
    if low > 0 or high < 0:
        return "ahead" if low > 0 else "behind"
    return "no effect" if max(-low, high) < MARGIN else "open"


def in_cell(runs: pd.DataFrame, cell: Sequence[str]) -> pd.DataFrame:
    """Return the runs of a cell, whose values are those of CELL."""
    return runs[(runs[CELL] == [*cell]).all(axis="columns")]


def paired(runs: pd.DataFrame, arm: str, baseline: str = BASELINE) -> list[np.ndarray]:
    """Return the answers of two arms in the seeds that both have."""
    both = [runs[runs["arm"] == name].set_index("seed") for name in (arm, baseline)]
    seeds = sorted(set(both[0].index) & set(both[1].index))
    return [answers(of.loc[seeds]) for of in both] if seeds else []


def tabulate(runs: pd.DataFrame) -> pd.DataFrame:
    """Return a line for each arm of each cell."""
    lines = []
    for (*cell, arm), own in runs.groupby([*CELL, "arm"], sort=True):
        mean, low, high = resampled([answers(own)])
        line = {**dict(zip(CELL, cell)), "arm": arm, "seeds": " ".join(map(str, own["seed"])), "mean": mean}
        line |= {"top-1 [95 %]": f"{mean:.1f} [{low:.1f}, {high:.1f}]", "low": low, "high": high}
        pair = paired(in_cell(runs, cell), arm) if arm != BASELINE else []
        if pair:
            line |= dict(zip(("minus joint", BY_T, "which is"), compared(pair)))
        reached = own["clips_to_50"].dropna()
        censored = len(own) - len(reached)
        typical = np.exp(np.log(own["clips_to_50"].fillna(own["clips"])).mean())
        line |= {"clips": typical, "clips to 50 %": f"{'at least ' if censored else ''}{typical:.0f}"}
        lines.append(line | {"of joint's": ratio_of_clips(in_cell(runs, cell), arm), "never": censored or ""})
    return pd.DataFrame(lines).fillna("")


def ratio_of_clips(cell: pd.DataFrame, arm: str) -> str:
    """Return the clips to 50 % of an arm as a multiple of the baseline's, with its interval; "" if one has none."""
    both = (cell[cell["arm"] == name].set_index("seed")["clips_to_50"] for name in (arm, BASELINE))
    pairs = pd.concat(both, axis=1, join="inner").to_numpy(float)
    if arm == BASELINE or len(pairs) < 2 or np.isnan(pairs).any():
        return ""
    logs = np.log(pairs[:, 0] / pairs[:, 1])
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5
    return "{:.2f} [{:.2f}, {:.2f}]".format(*np.exp([logs.mean(), logs.mean() - half, logs.mean() + half]))


def claim(runs: pd.DataFrame, start: str, displacement: str) -> str | None:
    """Return prediction 3 in words: what EMIM gains on motion over what it gains on appearance."""
    cells = [in_cell(runs, [start, "textured", question, displacement]) for question in ("motion", "appearance")]
    pairs = [paired(cell, "emim") for cell in cells]
    if not all(pairs):
        return None
    found, low, high = resampled([*pairs[0], *pairs[1]], lambda a, b, c, d: (a - b) - (c - d))
    half = np.hypot(*(half_width(pair, minus) for pair in pairs))  # of different runs, with seeds of their own
    said = verdict((low, high), (found - half, found + half))
    return f"* {start}, {displacement} tokens: {SIGNED.format(found, low, high)} points, ± {half:.1f} by t, {said}"


def change_lines(runs: pd.DataFrame) -> list[dict]:
    """Return arms that change another arm in one thing, and what that gives."""
    lines = []
    for *cell, arm in sorted(set(zip(*(runs[key] for key in [*CELL, "arm"])))):
        if arm in CHANGED and (pair := paired(in_cell(runs, cell), arm, CHANGED[arm])):
            line = dict(zip(CELL, cell)) | {"arm": arm, "minus": CHANGED[arm], "seeds": len(pair[0])}
            lines.append(line | dict(zip(("points", BY_T, "which is"), compared(pair))))
    return lines


def texture_lines(runs: pd.DataFrame, tests: pd.DataFrame) -> list[dict]:
    """Return prediction 2: what E-O and O-O lose on textures that they were not trained on."""
    lines = []
    for (*cell, texture), own in tests[tests["test"].isin(TEXTURES)].groupby([*CELL, "test"], sort=True):
        pair = paired(own, "emim")
        seeds = set(own[own["arm"] == "emim"]["seed"]) & set(own[own["arm"] == BASELINE]["seed"])
        trained = paired(in_cell(runs[runs["seed"].isin(seeds)], cell), "emim")
        if pair:
            four = [trained[0], pair[0], trained[1], pair[1]]
            loss, half, said = compared(four, lambda a, b, c, d: (a - b) - (c - d))
            line = dict(zip(CELL, cell)) | {"texture": texture, "emim top-1": f"{100 * pair[0].mean():.1f}"}
            line |= {"joint top-1": f"{100 * pair[1].mean():.1f}", "emim's loss minus joint's": loss, BY_T: half}
            lines.append(line | {"emim": {"ahead": "loses more", "behind": "loses less"}.get(said, said)})
    return lines


def mechanism_lines(runs: pd.DataFrame, tests: pd.DataFrame) -> list[dict]:
    """Return prediction 4: E-O without the order of its affinities, and whether their errors tell who is right."""
    lines = []
    for cell, own in tests[tests["arm"] == "emim"].groupby(CELL, sort=True):
        permuted, measured = (own[own["test"] == name].set_index("seed") for name in ("permuted", "displacements"))
        of_cell = in_cell(runs, cell).set_index("seed")
        both = [answers(of_cell[of_cell["arm"] == arm].reindex(permuted.index).dropna(subset="right"))
                for arm in ("emim", BASELINE)]  # fmt: skip
        without = answers(permuted)
        line = dict(zip(CELL, cell)) | {"permuted": f"{100 * without.mean():.1f}"}
        for arm, found in zip(("emim", "joint"), both):
            if len(found) == len(without):
                line[f"minus {arm}"], line[f"{BY_T} ({arm})"], line[f"which is ({arm})"] = compared([without, found])
        errors = np.array([np.fromstring(text, sep=" ") for text in measured["end_point_errors"]])
        line["error, tokens"] = f"{np.nanmean(errors):.2f}"
        shares = [share_of_pairs(error[hits == 0], error[hits == 1]) for error, hits in zip(errors, both[0])]
        lines.append(line | {"wrong clips err more": " ".join(f"{share:.2f}" for share in shares)})
    return lines


def share_of_pairs(wrong: np.ndarray, right: np.ndarray) -> float:
    """Return how often a clip that is answered wrong has the larger error of a pair; 0.5 is no relation."""
    return float((wrong[:, None] > right).mean()) if len(wrong) and len(right) else float("nan")


def plot(lines: pd.DataFrame, value: str, label: str, path: Path) -> None:
    """Draw a panel for each start and stimulus: a value of the arms against the displacement."""
    lines = lines[lines["question"] == "motion"]
    panels = sorted(set(zip(lines["start"], lines["stimulus"])), reverse=True)
    figure = Figure(figsize=(1 + 3 * len(panels), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    places = {name: place for place, name in enumerate(sorted(set(lines["displacement"])))}
    for axis, (start, stimulus) in zip(axes, panels):
        shown = lines[(lines["start"] == start) & (lines["stimulus"] == stimulus)]
        for number, (arm, own) in enumerate(shown.groupby("arm", sort=True)):
            color, marker = LOOKS.get(arm, ("black", "x"))
            x = [places[name] + 0.06 * (number - 1.5) for name in own["displacement"]]
            spread = [own["mean"] - own["low"], own["high"] - own["mean"]] if value == "mean" else None
            axis.errorbar(x, own[value], yerr=spread, label=arm, color=color, marker=marker, capsize=3, linewidth=1)
            if value == "clips":  # where some seed never reached it, at least so many
                least = [place if never else np.nan for place, never in zip(x, own["never"])]
                axis.plot(least, own[value], marker, color=color, markerfacecolor="white", zorder=3)
        axis.set_xticks(list(places.values()), places)
        axis.set_xlim(-0.4, len(places) - 0.6)
        axis.set(title=f"{stimulus}, from {start}", xlabel="tokens a frame")
        axis.grid(alpha=0.3)
        if value == "mean":
            axis.axhline(12.5, color="grey", linestyle=":", linewidth=1)
            axis.text(-0.4, 13, " chance", fontsize=7, color="grey")
        else:
            axis.set_yscale("log")
            for of_axis in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
                of_axis("{x:,.0f}")
    axes[0].set_ylabel(label)
    arms = {name: mark for axis in axes for mark, name in zip(*axis.get_legend_handles_labels())}
    figure.legend(arms.values(), arms.keys(), loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path, dpi=110)


def write_report(folder: Path) -> None:
    """Write everything that follows from ``runs.csv``."""
    runs = pd.read_csv(folder / "runs.csv", dtype={"right": str})
    lines = tabulate(runs)
    shown = lines.drop(columns=["mean", "low", "high", "clips"])
    text = ["# Motion study", ""]
    for start, own in shown.groupby("start", sort=False):
        text += [f"## From {start}", "", own.drop(columns="start").to_markdown(index=False, missingval=""), ""]
    claims = [claim(runs, start, name) for start, name in sorted(set(zip(runs["start"], runs["displacement"])))]
    if any(claims):
        text += ["## EMIM's gain on motion minus its gain on appearance, textured", "", *filter(None, claims), ""]
    if changes := change_lines(runs):
        text += ["## Arms that change one thing", "", pd.DataFrame(changes).to_markdown(index=False), ""]
    if (folder / "tests.csv").exists():
        tests = pd.read_csv(folder / "tests.csv", dtype={"right": str})
        for title, lines_of in (
            ("New textures (trained on grain)", texture_lines(runs, tests)),
            ("Mechanism: E-O with the channels of its affinities permuted", mechanism_lines(runs, tests)),
        ):
            if lines_of:
                text += [f"## {title}", "", pd.DataFrame(lines_of).fillna("").to_markdown(index=False), ""]
    counts = ", ".join(f"{count} of {clips}" for clips, count in runs["clips"].value_counts().items())
    text += [
        f"{len(runs)} runs ({counts} clips), chance 12.5 %. Intervals: hierarchical bootstrap over seeds and videos, "
        f"{NUM_RESAMPLES} resamples; beside them half an interval by Student's t over the seeds. Ahead, behind: 0 is "
        f"in neither interval. No effect: both are within {MARGIN:g} points. Clips to 50 %: the geometric mean over "
        "the seeds, with the whole training for those that never reached it, who are counted; beside it, as a multiple "
        "of joint's, with an interval by t over the logarithms, where all seeds reached it."
    ]
    with replacing(folder / "tables.md") as file:
        file.write("\n".join(text) + "\n")
    plot(lines, "mean", "top-1 (%), 95 % interval", folder / "displacement.png")
    plot(lines, "clips", "clips to 50 % (hollow: at least)", folder / "clips.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="runs to read, or folders above them")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of runs.csv and of the report")
    args = parser.parse_args()
    path = args.results / "runs.csv"
    lines = {tuple(line[key] for key in KEYS): line for line in csv.DictReader(path.open())} if path.exists() else {}
    found = [read_run(file.parent) for folder in args.folders for file in sorted(folder.glob(f"**/seed*/{SCORES}"))]
    for line in filter(None, found):
        line = {key: "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
                for key, value in line.items()}  # fmt: skip
        lines[tuple(line[key] for key in KEYS)] = line
    args.results.mkdir(exist_ok=True)
    with replacing(path) as file:
        writer = csv.DictWriter(file, [*KEYS, "clips", "top1", "clips_to_50", "right"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines[key] for key in sorted(lines))
    write_report(args.results)
    print(f"{len(lines)} runs; tables and plots are in {args.results}")
    return 0


if __name__ == "__main__":
    run_tool(main)
