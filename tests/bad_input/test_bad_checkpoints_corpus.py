"""Bad checkpoints: each is said to be what it is, and nothing in it is run."""

import functools
import json
import os
import pickle

import pytest
import torch
from bad_input import CONFIGS, TINY, Coco, assert_says, load_tool

from iwin_d2.d2.config import instantiate
from iwin_d2.engine.cli import run_tool
from iwin_d2.engine.detection import load_config

GOOD = {"model": {"mean": torch.zeros(2)}}


class MakesFolder:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def saved(content):
    return lambda path: torch.save(content, path)


def cut(path) -> None:
    torch.save(GOOD, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path) -> None:
    """One wrong bit, amid the numbers."""
    torch.save({"model": {"mean": torch.zeros(2), "more": torch.arange(10000.0)}}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def safetensors(path) -> None:
    header = json.dumps({"mean": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


def makes_folder(path) -> None:
    torch.save({"model": {"mean": MakesFolder(path.parent / "made")}}, path)


def makes_folder_pickled(path) -> None:
    path.write_bytes(pickle.dumps({"model": MakesFolder(path.parent / "made")}))


NOT_RUN = ("{path} holds ", "mkdir", "could run code", "state dict alone")
NO_WEIGHTS = ("{path} holds no model weights", "give a .pth file with a state dict")

# The file's name, how it is made, and what must be said of it: what it is, and what to do.
FILES = {
    "missing": ("a.pth", lambda path: None, ("There is no checkpoint {path}", "correct the path")),
    "folder": ("a.pth", lambda path: path.mkdir(), ("{path} (it is a folder)", "correct the path")),
    "empty": ("a.pth", lambda path: path.write_bytes(b""), ("{path} is empty", "fetch it anew")),
    "cut": ("a.pth", cut, ("{path} cannot be read", "cut off, damaged", "fetch or save it anew")),
    "flipped bit": ("a.pth", flipped, ("{path} cannot be read", "check sum", "save it anew")),
    "web page": (
        "a.pth",
        lambda path: path.write_text("<!DOCTYPE html><title>Not found</title>"),
        ("{path} is a web page, not a checkpoint", "fetch it anew, or correct the path"),
    ),
    "safetensors": ("a.safetensors", safetensors, ("{path} is a safetensors file", "torch.save")),
    "code": ("a.pth", makes_folder, NOT_RUN),
    "code in a pickle": ("a.pkl", makes_folder_pickled, NOT_RUN),
    "whole module": (
        "a.pth",
        saved({"model": torch.nn.Linear(2, 2)}),
        ("{path} holds torch.nn.modules.linear.Linear", "state dict alone"),
    ),
    "cut pickle": (
        "a.pkl",
        lambda path: path.write_bytes(pickle.dumps({"model": {}})[:9]),
        ("{path} cannot be read", "cut off", "fetch or save it anew"),
    ),
    "list in a pickle": ("a.pkl", lambda path: path.write_bytes(pickle.dumps([1])), NO_WEIGHTS),
    "list": ("a.pth", saved([1, 2]), NO_WEIGHTS),
    "tensor": ("a.pth", saved(torch.zeros(2)), NO_WEIGHTS),
    "no model": ("a.pth", saved({"epoch": 3}), NO_WEIGHTS),
    "another model": (
        "a.pth",
        saved({"model": {"conv.weight": torch.zeros(3, 3)}}),
        ("Nothing in {path} fits the model", "conv.weight", "the model mean", "convert it"),
    ),
    "other classes": (
        "a.pth",
        saved({"model": {"mean": torch.zeros(80)}}),
        ("Nothing in {path} fits the model", "mean [80] instead of [2]"),
    ),
    "not finite": (
        "a.pth",
        saved({"model": {"mean": torch.full((2,), torch.nan)}}),
        ("diverged at iteration 0", "loss_mean=nan", "images "),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file(tmp_path, train_badly, name):
    file, make, essentials = FILES[name]
    path = tmp_path / file
    make(path)
    sentence = train_badly(f"train.init_checkpoint={path}", before_training=name != "not finite")
    assert_says(sentence, essentials, path=path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["missing", "web page", "another model"])
def test_a_bad_file_to_evaluate(tmp_path, train_badly, name):
    file, make, essentials = FILES[name]
    make(tmp_path / file)
    sentence = train_badly("--eval-only", f"train.init_checkpoint={tmp_path / file}")
    assert_says(sentence, essentials, path=tmp_path / file)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_that_may_not_be_read(tmp_path, train_badly):
    path = tmp_path / "a.pth"
    torch.save(GOOD, path)
    path.chmod(0)
    assert_says(train_badly(f"train.init_checkpoint={path}"), ("{path}", "Permission"), path=path)


def test_an_address_that_gives_nothing(data, capsys, monkeypatch):
    monkeypatch.delenv("IWIN_D2_TRACEBACK", raising=False)
    address = "http://127.0.0.1:9/weights.pth"
    argv = ["--config-file", str(TINY), *data.overrides, f"train.init_checkpoint={address}"]
    assert run_tool(lambda: load_tool("lazyconfig_train_net")(argv)) == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    # Lines before it are of the progress of fetching.
    assert_says(printed.err.splitlines()[-1], (address, "cannot be fetched", "check address and"))


# ---- classes and models -------------------------------------------------------------------------

SMALL = [
    "model.backbone.bottom_up.embed_dim=8",
    "model.backbone.bottom_up.num_heads=[1,1,1,1]",
    "dataloader.test.num_workers=0",
    "train.device=cpu",
]


def test_the_weights_of_other_classes_are_not_evaluated(data, tmp_path, train_badly):
    config, path = CONFIGS / "quickstart.py", tmp_path / "five.pth"
    cfg = load_config(str(config), [*data.overrides, *SMALL, "model.roi_heads.num_classes=5"])
    torch.save(instantiate(cfg.model).state_dict(), path)
    sentence = train_badly("--eval-only", f"train.init_checkpoint={path}", *SMALL, config=config)
    essentials = ("{path} is a Cascade Mask R-CNN", "5 classes, the model has 2", "classes to 5")
    assert_says(sentence, essentials, path=path)


# ---- resuming -----------------------------------------------------------------------------------


@functools.cache
def run_of_one_step(root: str) -> bytes:
    """The last checkpoint of a training of one step."""
    data = Coco(root)
    load_tool("lazyconfig_train_net")(["--config-file", str(TINY), *data.overrides])
    return (data.output / "model_final.pth").read_bytes()


@pytest.fixture
def interrupted(data, tmp_path_factory):
    """The only checkpoint of a run in `data.output`, to be spoiled."""
    root = tmp_path_factory.getbasetemp() / "run_of_one_step"
    data.output.mkdir()
    path = data.output / "model_final.pth"
    path.write_bytes(run_of_one_step(root))
    (data.output / "last_checkpoint").write_text(path.name)
    return path


def change(edit):
    def make(path) -> None:
        state = torch.load(path, weights_only=True)
        edit(state)
        torch.save(state, path)

    return make


def other_moments(state) -> None:
    for moments in state["trainer"]["optimizer"]["state"].values():
        moments["exp_avg"] = torch.zeros(7)


ANEW = ("resume with the config", "start anew from its weights with train.init_checkpoint")

# What is done to the checkpoint, overrides, and what must be said when the run is resumed.
RESUMED = {
    "cut": (
        lambda path: path.write_bytes(path.read_bytes()[:500]),
        [],
        ("None of the checkpoints in {folder}", "model_final.pth", "leave out --resume"),
    ),
    "gone": (lambda path: path.unlink(), [], ("None of the checkpoints in {folder}", "--resume")),
    "weights alone": (
        change(lambda state: state.pop("trainer")),
        [],
        ("{path} holds weights alone, no trainer", "train.init_checkpoint={path}"),
    ),
    "another model": (
        change(lambda state: state.update(model={"conv.weight": torch.zeros(3, 3)})),
        [],
        ("Nothing in {path} fits the model", "conv.weight"),
    ),
    "no optimizer": (
        change(lambda state: state["trainer"].pop("optimizer")),
        [],
        ("{path} does not fit this training", "lacks 'optimizer'", *ANEW),
    ),
    "optimizer of a larger model": (
        change(
            lambda state: state["trainer"]["optimizer"]["param_groups"][0].update(params=[0, 1])
        ),
        [],
        ("{path} does not fit this training", "parameter group", *ANEW),
    ),
    "trainer of another kind": (
        change(lambda state: state.update(trainer=None)),
        [],
        ("{path} does not fit this training", *ANEW),
    ),
}
# What shows in the first step alone.
STEPPED = {
    "moments of another model": (change(other_moments), []),
    "another optimizer": (lambda path: None, ["optimizer._target_=torch.optim.Adamax"]),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_bad_checkpoint_to_resume(data, interrupted, train_badly, name):
    make, overrides, essentials = RESUMED[name]
    make(interrupted)
    sentence = train_badly("--resume", "train.max_iter=2", *overrides)
    assert_says(sentence, essentials, path=interrupted, folder=data.output)


@pytest.mark.parametrize("name", STEPPED)
def test_an_optimizer_that_cannot_go_on(interrupted, train_badly, name):
    make, overrides = STEPPED[name]
    make(interrupted)
    sentence = train_badly("--resume", "train.max_iter=2", *overrides, before_training=False)
    assert_says(sentence, ("optimizer cannot go on from the checkpoint", *ANEW))


def test_an_unspoiled_checkpoint_is_resumed(interrupted, train_well):
    assert "Training from iteration 1 to 2" in train_well("--resume", "train.max_iter=2")
