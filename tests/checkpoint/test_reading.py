"""Checkpoint files are read without running anything, and what is none is said to be so."""

import argparse
import collections
import io
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import iwin_d2
from iwin_d2.checkpoint import Checkpointer
from iwin_d2.checkpoint.reading import read_checkpoint
from iwin_d2.errors import CheckpointError


def model():
    return nn.Linear(2, 2)


def whole() -> bytes:
    file = io.BytesIO()
    torch.save({"model": model().state_dict()}, file)
    return file.getvalue()


CONTENTS = {
    "truncated": (lambda: whole()[:500], "model.pth cannot be read as a checkpoint .*cut off"),
    "web page": (lambda: b"\n<!DOCTYPE html>\n404", "model.pth is a web page, not a checkpoint"),
    "empty": (lambda: b"", r"model.pth is empty \(0 bytes\), not a checkpoint"),
    "json list": (lambda: b"[1, 2]", "model.pth cannot be read as a checkpoint"),
    "safetensors": (lambda: bytes(8) + b'{"a":1}', "model.pth is a safetensors file"),
    "image": (lambda: b"\x89PNG\r\n\x1a\n", "model.pth is an image"),
    "pickle": (lambda: pickle.dumps({"model": 1}), "model.pth cannot be read as a checkpoint"),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", CONTENTS)
def test_what_is_no_checkpoint(tmp_path, kind):
    content, sentence = CONTENTS[kind]
    path = tmp_path / "model.pth"
    path.write_bytes(content())
    with pytest.raises(CheckpointError, match=sentence) as caught:
        Checkpointer(model()).load(str(path))
    assert "weights_only" not in str(caught.value)  # torch advises to run such files


class Payload:
    def __reduce__(self):
        return (exec, ("import iwin_d2; iwin_d2.payload_ran = True",))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"model": Payload()}, tmp_path / "bad.pth")
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"model": Payload()}))
    for name in ("bad.pth", "bad.pkl"):
        with pytest.raises(CheckpointError, match=rf"{name} holds \S*exec: .*could run code"):
            Checkpointer(model()).load(str(tmp_path / name))
    assert not hasattr(iwin_d2, "payload_ran")


def test_a_module_is_refused_with_what_to_do(tmp_path):
    torch.save({"model": model()}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"holds torch\.nn\.\S*Linear.*state dict alone"):
        Checkpointer(model()).load(str(tmp_path / "bad.pth"))


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_in_a_pickle_are_weights(tmp_path, protocol):
    values = {"weight": np.arange(4, dtype="f4").reshape(2, 2), "bias": np.zeros(2, "f4")}
    content = {"model": collections.OrderedDict(values), "__author__": "somebody"}
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    assert read_checkpoint(str(path))["__author__"] == "somebody"
    loaded = model()
    Checkpointer(loaded).load(str(path))
    assert loaded.weight.tolist() == [[0, 1], [2, 3]]


def test_a_file_of_a_newer_pytorch(tmp_path):
    (tmp_path / "old.pth").write_bytes(whole())
    with (
        zipfile.ZipFile(tmp_path / "old.pth") as old,
        zipfile.ZipFile(tmp_path / "new.pth", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, b"99\n" if name.endswith("/version") else old.read(name))
    with pytest.raises(CheckpointError, match=r"new\.pth was written by a newer PyTorch .* update"):
        Checkpointer(model()).load(str(tmp_path / "new.pth"))


def test_the_configs_of_training_programs_are_plain_values(tmp_path):
    """The reference's training leaves a yacs config beside the weights."""
    config = pytest.importorskip("yacs.config", reason="yacs is not installed").CfgNode
    node = config({"MODEL": {"IWIN": {"NUM_HEADS": [3, 6, 12, 24]}}})
    node.freeze()
    content = {"model": model().state_dict(), "config": node, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "yacs.pth")
    found = read_checkpoint(str(tmp_path / "yacs.pth"))
    assert found["config"]["MODEL"]["IWIN"]["NUM_HEADS"] == [3, 6, 12, 24]
    assert type(found["config"]) is collections.OrderedDict and found["args"].lr == 0.1
    Checkpointer(model()).load(str(tmp_path / "yacs.pth"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_damage_of_any_kind_is_a_sentence(tmp_path, zipped):
    """Whatever the readers of PyTorch stumble over."""
    content = {"model": model().state_dict(), "epoch": 3, "names": ["a", ("b", 1.5)]}
    path = tmp_path / "damaged.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    good, draw, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(150):
        bad = bytearray(good)
        if draw.random() < 0.3:
            bad = bad[: draw.randrange(len(bad))]
        else:
            for _ in range(draw.choice([1, 3, 10])):
                bad[draw.randrange(min(len(bad), 700))] = draw.randrange(256)
        path.write_bytes(bad)
        try:
            Checkpointer(model()).load(str(path))
        except CheckpointError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1 and str(path) in str(error)
    assert refused > 100
