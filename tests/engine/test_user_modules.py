"""Parts of one's own (USER_MODULES): the files of docs/extending.md train, and what is wrong with one is told."""

import pickle
import re
import sys

import numpy as np
import pytest
import yaml
from helpers_engine import ROOT, results

from slowfast.config.defaults import get_cfg
from slowfast.config.parser import KEYS
from slowfast.datasets.build import DATASET_REGISTRY
from slowfast.models import MODEL_REGISTRY
from slowfast.models.attention import ATTENTIONS
from slowfast.models.losses import LOSSES
from slowfast.utils.errors import UserError

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
PARTS = re.findall(r"```python\n# (\w+\.py)\n(.*?)```\n\n```yaml\n(.*?)```", PAGE, flags=re.S)


@pytest.fixture(autouse=True)
def forget_modules(tmp_path):
    """Leave registries, keys and imports as they were."""
    kept = (KEYS, MODEL_REGISTRY._obj_map, DATASET_REGISTRY._obj_map, ATTENTIONS, LOSSES)
    before, path = [dict(registry) for registry in kept], list(sys.path)
    yield
    sys.path[:] = path
    for registry, content in zip(kept, before):
        registry.clear()
        registry.update(content)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def load(tmp_path, text, **files):
    for name, code in files.items():
        (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "cfg.yaml").write_text(text)
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "cfg.yaml"))
    return cfg


def test_all_parts_were_found():
    assert len(PARTS) == PAGE.count("```python") == 4


@pytest.mark.parametrize(("name", "code", "text"), PARTS, ids=[name for name, *_ in PARTS])
def test_each_part_of_the_page_trains_and_is_tested(run, config, tmp_path, name, code, text):
    (tmp_path / name).write_text(code)
    settings = yaml.safe_load(config.read_text())
    if "DATASET" in text:
        rng = np.random.default_rng(0)
        for split, size in (("train", 8), ("val", 3)):
            videos = rng.integers(256, size=(size, 5, 40, 48, 3), dtype=np.uint8)
            np.savez(tmp_path / f"{split}.npz", videos=videos, labels=rng.integers(12, size=size))
        (tmp_path / "test.npz").write_bytes((tmp_path / "val.npz").read_bytes())
        settings["DATA"]["PATH_TO_DATA_DIR"] = str(tmp_path)
    own = yaml.safe_load(text)
    for section, values in own.items():
        settings[section] = {**settings.get(section, {}), **values} if isinstance(values, dict) else values
    config.write_text(yaml.safe_dump(settings))
    called = set()
    sys.setprofile(lambda frame, event, _: called.add((frame.f_code.co_filename, frame.f_code.co_name)))
    try:
        assert run("SOLVER.MAX_EPOCH", 1, tasks=("train", "test")).status == 0
    finally:
        sys.setprofile(None)
    assert called & {(str(tmp_path / name), function) for function in ("forward", "_decode", "focal")}
    found = results(tmp_path / "run")
    assert (found["num_videos"], found["selected_on_test"]) == ((3, False) if "DATASET" in text else (17, True))


def test_modules_declare_keys_and_are_imported_once(tmp_path):
    code = "from slowfast.config.keys import number\nfrom slowfast.config.parser import declare\n"
    code += "declare('OWN', WIDTH=number(3, 'Channels.', low=1))\nclass Thing:\n    pass\n"
    text = "USER_MODULES: [own_keys.py]\nOWN: {WIDTH: 5}\n"
    assert load(tmp_path, text, own_keys=code).OWN.WIDTH == 5
    cfg = load(tmp_path, text)
    assert cfg.OWN.WIDTH == 5 and str(tmp_path / "own_keys.py") in cfg.USER_MODULES
    del sys.modules["own_keys"], KEYS["OWN.WIDTH"]
    again = get_cfg()
    again.merge_from_text(cfg.dump(), "checkpoint.pyth")
    assert again == cfg
    with pytest.raises(UserError, match=r"OWN.WIDTH is 0; allowed: at least 1"):
        load(tmp_path, text.replace("5", "0"))
    with pytest.raises(UserError, match="OWN.WIDTH is declared twice"):
        load(tmp_path, "USER_MODULES: [other_keys.py]", other_keys=code)
    # A process that is not forked has not imported it.
    dumped = pickle.dumps(sys.modules["own_keys"].Thing())
    del sys.modules["own_keys"], KEYS["OWN.WIDTH"]
    assert type(pickle.loads(dumped)).__module__ == "own_keys"


def test_the_last_list_of_the_chain_counts_and_a_folder_is_a_package(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from package import part\n")
    (tmp_path / "package" / "part.py").write_text("from slowfast.models.losses import LOSSES\nLOSSES['own'] = len\n")
    (tmp_path / "base.yaml").write_text("USER_MODULES: [missing.py]\n")
    cfg = load(tmp_path, "_BASE_: base.yaml\nUSER_MODULES: [package]\n")
    assert str(tmp_path / "package") in cfg.USER_MODULES
    assert LOSSES["own"] is len
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text(cfg.dump())
    again = get_cfg()
    again.merge_from_file(str(tmp_path / "out" / "config.yaml"))
    assert again == cfg
    cfg.merge_from_list(["USER_MODULES", f"[{tmp_path}/package/part.py]"])
    assert str(tmp_path / "package" / "part.py") in cfg.USER_MODULES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[nowhere.py]",
            r"cfg.yaml: USER_MODULES: 'nowhere.py' is no Python file or package \(looked for .*nowhere.py",
        ),
        ("[yaml.py]", r"yaml.py: yaml is the name of another module \(.*\): rename yours"),
        ("[two words.py]", "two words is no name of a module"),
        ("own.py", "USER_MODULES takes a list"),
        ("[1]", r"USER_MODULES is \[1\]; allowed: names"),
    ],
)
def test_modules_that_cannot_be_imported_are_told(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, f"USER_MODULES: {text}", yaml="", **{"two words": ""})


def test_an_error_in_a_module_keeps_its_traceback(tmp_path):
    with pytest.raises(ZeroDivisionError) as error:
        load(tmp_path, "USER_MODULES: [broken.py]", broken="1 / 0\n")
    assert error.traceback[-1].path == tmp_path / "broken.py"
