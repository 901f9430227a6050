"""Checkpoints written whole, and the sentences for those that cannot be loaded."""

import logging
import os
import pickle
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from iwin_d2.checkpoint import Checkpointer
from iwin_d2.d2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.errors import CheckpointError


def model(out=2):
    return nn.Sequential(nn.Linear(3, out), nn.Linear(out, 1))


def weights(net):
    return [p.detach().clone() for p in net.parameters()]


def assert_same_weights(a, b):
    torch.testing.assert_close(weights(a), weights(b), rtol=0, atol=0)


@contextmanager
def _logged(caplog):
    """Catch this package's log, whether or not it goes up to the root."""
    logger = logging.getLogger("iwin_d2.checkpoint.checkpointer")
    logger.addHandler(caplog.handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(caplog.handler)
        logger.setLevel(level)


def test_saves_and_loads_model_and_checkpointables(tmp_path):
    saved, loaded = model(), model()
    optimizer = torch.optim.SGD(saved.parameters(), lr=0.3)
    Checkpointer(saved, str(tmp_path), optimizer=optimizer).save("model_0", iteration=7)
    other = torch.optim.SGD(loaded.parameters(), lr=0.1)
    checkpointer = Checkpointer(loaded, str(tmp_path), optimizer=other)
    assert checkpointer.has_checkpoint()
    rest = checkpointer.resume_or_load("", resume=True)
    assert rest["iteration"] == 7
    assert other.param_groups[0]["lr"] == 0.3
    assert_same_weights(saved, loaded)
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0.pth"]


def test_files_are_exchangeable_with_the_frameworks_checkpointer(tmp_path):
    ours, theirs = model(), model()
    Checkpointer(ours, str(tmp_path)).save("ours")
    DetectionCheckpointer(theirs).load(str(tmp_path / "ours.pth"))
    assert_same_weights(ours, theirs)
    DetectionCheckpointer(theirs, str(tmp_path)).save("theirs")
    Checkpointer(third := model()).load(str(tmp_path / "theirs.pth"))
    assert_same_weights(third, theirs)


def test_bare_state_dict_and_ddp_prefix(tmp_path):
    source, target = model(), model()
    path = str(tmp_path / "bare.pth")
    torch.save({f"module.{k}": v for k, v in source.state_dict().items()}, path)
    Checkpointer(target).load(path)
    assert_same_weights(source, target)


def test_a_save_that_fails_leaves_the_old_file_and_tag(tmp_path):
    net = model()
    checkpointer = Checkpointer(net, str(tmp_path))
    checkpointer.save("model")
    before = (tmp_path / "model.pth").read_bytes()
    with pytest.raises(Exception, match="pickle"):
        checkpointer.save("model", callback=lambda: None)  # cannot be pickled
    assert (tmp_path / "model.pth").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model.pth"]


def test_a_folder_that_is_gone_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone.*train\.output_dir"):
        Checkpointer(model(), str(tmp_path / "gone")).save("model")


def test_old_checkpoints_make_room(tmp_path):
    checkpointer = Checkpointer(model(), str(tmp_path))
    periodic = PeriodicCheckpointer(checkpointer, period=1, max_iter=4, max_to_keep=2)
    for iteration in range(4):
        periodic.step(iteration)
    found = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert found == ["model_0000002.pth", "model_0000003.pth", "model_final.pth"]
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_final.pth")


def test_missing_file(tmp_path):
    path = str(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match=r"There is no checkpoint .*nowhere\.pth"):
        Checkpointer(model()).load(path)


def checkpoints(folder, count=3):
    """Files of `count` periods, each with other weights; returns their checkpointer and weights."""
    net = model()
    checkpointer = Checkpointer(net, str(folder), schedule=torch.optim.SGD(net.parameters(), lr=1))
    kept = []
    for number in range(count):
        nn.init.constant_(net[0].weight, number)
        checkpointer.save(f"model_{number:07d}", iteration=number)
        kept.append(weights(net))
    return checkpointer, kept


def damage(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def flip_a_byte(path):
    """Damage that leaves the size as it is: in the weights themselves."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((6,), 2.0).numpy().tobytes())] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [damage, flip_a_byte, lambda path: path.unlink()])
def test_the_checkpoint_before_an_unreadable_one_is_taken_and_both_are_named(
    tmp_path, caplog, spoil
):
    checkpointer, kept = checkpoints(tmp_path)
    spoil(tmp_path / "model_0000002.pth")
    with _logged(caplog):
        rest = checkpointer.resume_or_load("", resume=True)
    assert rest["iteration"] == 1
    torch.testing.assert_close(weights(checkpointer.model), kept[1], rtol=0, atol=0)
    assert any(
        "model_0000002.pth" in m and "Trying the checkpoint before" in m for m in caplog.messages
    )


def test_no_readable_checkpoint_at_all(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_0000099.pth")
    (tmp_path / "model_0000050.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"None of .*0099\.pth.*0050\.pth.*--resume"):
        Checkpointer(model(), str(tmp_path)).resume_or_load("", resume=True)


def test_a_checkpoint_of_another_model_is_not_passed_over(tmp_path):
    checkpoints(tmp_path)
    other = nn.Sequential(nn.Conv2d(1, 1, 1))
    torch.save({"model": other.state_dict()}, tmp_path / "model_0000002.pth")
    with pytest.raises(CheckpointError, match="of other shapes"):
        Checkpointer(model(), str(tmp_path)).resume_or_load("", resume=True)


def test_a_checkpoint_that_was_not_named_before_the_kill_is_taken(tmp_path):
    checkpointer, _ = checkpoints(tmp_path)
    tag = tmp_path / "last_checkpoint"
    tag.write_text("model_0000001.pth")
    os.utime(tag, ns=(1, 1))
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000002.pth")
    tag.unlink()  # killed before the first was named
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000002.pth")


def test_checkpoints_of_an_earlier_training_in_the_folder_are_not_taken(tmp_path):
    checkpoints(tmp_path, count=9)
    os.utime(tmp_path / "model_0000008.pth", ns=(1, 1))
    checkpointer, _ = checkpoints(tmp_path, count=2)
    files = [os.path.basename(path) for path in checkpointer._candidates()]
    assert files[-2:] == ["model_0000001.pth", "model_0000000.pth"]
    assert "model_0000008.pth" not in files


def test_an_empty_folder_has_none(tmp_path):
    for folder in (tmp_path, tmp_path / "missing", ""):
        checkpointer = Checkpointer(model(), str(folder))
        assert not checkpointer.has_checkpoint() and checkpointer.get_checkpoint_file() == ""


def test_weights_alone_are_not_to_be_resumed_from(tmp_path):
    checkpointer, _ = checkpoints(tmp_path)
    best = model()
    checkpointer.save_weights("model_best", best, metric={"bbox/AP": 3.0})
    assert checkpointer.get_checkpoint_file().endswith("model_0000002.pth")
    content = torch.load(tmp_path / "model_best.pth")
    assert set(content) == {"model", "metric"}
    Checkpointer(other := model()).load(str(tmp_path / "model_best.pth"))
    assert_same_weights(best, other)


FULL_DISK = """
import resource, sys, torch
from iwin_d2.checkpoint import Checkpointer
from iwin_d2.engine.cli import run_tool
net = torch.nn.Linear(100, 100)
checkpointer = Checkpointer(net, sys.argv[1])
checkpointer.save("model_0000000")
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
sys.exit(run_tool(lambda: checkpointer.save(sys.argv[2])))
"""


@pytest.mark.parametrize("name", ["model_0000001", "model_0000000"])
def test_a_disk_without_room_leaves_the_checkpoint_before(tmp_path, name):
    pytest.importorskip("resource", reason="limits of a process are POSIX")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), name], capture_output=True, text=True
    )
    assert done.returncode == 1
    sentence = done.stderr.strip().splitlines()[-1]
    assert f"{name}.pth could not be written" in sentence and "free some space" in sentence
    assert "model_0000000.pth is the last whole one" in sentence
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", "model_0000000.pth"]
    Checkpointer(nn.Linear(100, 100), str(tmp_path)).resume_or_load("", resume=True)


@pytest.mark.parametrize("content", [[1, 2], {"model": 3}, {"epoch": 3}, torch.zeros(2)])
def test_a_file_without_weights(tmp_path, content):
    path = str(tmp_path / "other.pth")
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="holds no model weights"):
        Checkpointer(model()).load(path)


def test_nothing_matching_names_keys_of_both_sides(tmp_path):
    path = str(tmp_path / "other.pth")
    torch.save({"encoder.weight": torch.zeros(1), "encoder.bias": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"encoder\.bias.*0\.weight"):
        Checkpointer(model()).load(path)


def test_all_shapes_different_is_nothing_matching(tmp_path):
    path = str(tmp_path / "other.pth")
    torch.save({"0.weight": torch.zeros(9, 9)}, path)
    with pytest.raises(CheckpointError, match=r"of other shapes: 0\.weight \[9, 9\]"):
        Checkpointer(model()).load(path)


def test_counts_are_logged_in_one_line(tmp_path, caplog):
    state = model().state_dict()
    del state["1.bias"]
    state["extra"] = torch.zeros(1)
    state["0.bias"] = torch.zeros(5)
    path = str(tmp_path / "some.pth")
    torch.save({"model": state}, path)
    with _logged(caplog):
        Checkpointer(model()).load(path)
    expected = "Loaded 2 of the model's 4 tensors from"
    (line,) = {m for m in caplog.messages if m.startswith(expected)}
    assert line.endswith("missing: 1, unexpected: 1, of another shape: 1")


def test_weights_that_are_to_fill_the_model(tmp_path):
    path, state = str(tmp_path / "part.pth"), model().state_dict()
    torch.save({name: value for name, value in state.items() if name != "1.bias"}, path)
    Checkpointer(model()).load(path)
    with pytest.raises(CheckpointError, match=r"1 of its 4 tensors are not .* such as 1\.bias;"):
        Checkpointer(model()).load(path, fill=True)
    torch.save({**state, "0.bias": torch.zeros(9)}, path)
    with pytest.raises(CheckpointError, match=r"of other shapes .* such as 0\.bias \[9\] instead"):
        Checkpointer(model()).resume_or_load(path, resume=False, fill=True)


def test_weights_that_do_not_fill_the_model_leave_it_as_it_was(tmp_path):
    path, loaded = str(tmp_path / "part.pth"), model()
    state = {name: value for name, value in model().state_dict().items() if name != "1.bias"}
    torch.save(state, path)
    before = weights(loaded)
    with pytest.raises(CheckpointError, match="1 of its 4 tensors"):
        Checkpointer(loaded).load(path, fill=True)
    torch.testing.assert_close(weights(loaded), before, rtol=0, atol=0)


@pytest.mark.skipif(not USE_DETECTRON2, reason="Detectron2 alone knows Caffe2's names")
def test_caffe2s_names_stay_detectron2s_task(tmp_path):
    """Of its zoo's ResNets: a pickle of arrays under names that have to be matched."""
    blobs = {"conv1_w": np.zeros((2, 3), "f4"), "conv1_w_momentum": np.zeros((2, 3), "f4")}
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps({"blobs": blobs}))
    content = Checkpointer(model())._load_file(str(tmp_path / "R-50.pkl"))
    assert content["matching_heuristics"] is True and list(content["model"]) == ["conv1_w"]


def test_what_is_resumed_fills_the_model_and_holds_a_training(tmp_path):
    saved = model()
    optimizer = torch.optim.SGD(saved.parameters(), lr=1.0)
    Checkpointer(saved, str(tmp_path)).save("model_0000001")
    with pytest.raises(CheckpointError, match=r"model_0000001\.pth holds weights alone, no optim"):
        Checkpointer(saved, str(tmp_path), optimizer=optimizer).resume_or_load("", resume=True)
    Checkpointer(model()[0], str(tmp_path)).save("model_0000002")
    with pytest.raises(CheckpointError, match=r"do not fill the model|Nothing in"):
        Checkpointer(saved, str(tmp_path)).resume_or_load("", resume=True)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.pth", "nothing://here"])
def test_an_address_that_gives_nothing(address):
    with pytest.raises(CheckpointError, match=rf"^{address} cannot be fetched"):
        Checkpointer(model()).load(address)


def test_optimizer_of_another_model_is_said(tmp_path):
    saved = model()
    Checkpointer(saved, str(tmp_path), optimizer=torch.optim.SGD(saved.parameters(), lr=1.0)).save(
        "m"
    )
    loaded = model()
    optimizer = torch.optim.SGD(loaded[0].parameters(), lr=1.0)
    with pytest.raises(CheckpointError, match="does not fit this training"):
        Checkpointer(loaded, str(tmp_path), optimizer=optimizer).resume_or_load("", resume=True)
