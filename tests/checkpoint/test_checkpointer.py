"""Checkpoints written whole, and the sentences for those that cannot be loaded."""

import logging
import os

import pytest
import torch
from torch import nn

from iwin_d2.checkpoint import Checkpointer
from iwin_d2.d2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from iwin_d2.errors import CheckpointError


def model(out=2):
    return nn.Sequential(nn.Linear(3, out), nn.Linear(out, 1))


def weights(net):
    return [p.detach().clone() for p in net.parameters()]


def assert_same_weights(a, b):
    torch.testing.assert_close(weights(a), weights(b), rtol=0, atol=0)


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


def test_resume_names_the_file_that_the_tag_names(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_0000099.pth")
    with pytest.raises(CheckpointError, match=r"model_0000099\.pth.*last_checkpoint.*--resume"):
        Checkpointer(model(), str(tmp_path)).resume_or_load("", resume=True)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "json list"])
def test_damaged_file(tmp_path, damage):
    path = tmp_path / "model.pth"
    torch.save({"model": model().state_dict()}, path)
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "text": b"<!DOCTYPE html>\n404",
            "empty": b"",
            "json list": b"[1, 2]",
        }[damage]
    )
    with pytest.raises(CheckpointError, match=r"model\.pth cannot be read as a checkpoint"):
        Checkpointer(model()).load(str(path))


class Payload:
    ran = False

    def __reduce__(self):
        return (exec, ("import iwin_d2; iwin_d2.payload_ran = True",))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    import iwin_d2

    path = str(tmp_path / "bad.pth")
    torch.save({"model": Payload()}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpointer(model()).load(path)
    assert not hasattr(iwin_d2, "payload_ran")


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
    with pytest.raises(CheckpointError, match=r"of other shapes: 0\.weight"):
        Checkpointer(model()).load(path)


def test_counts_are_logged_in_one_line(tmp_path, caplog):
    state = model().state_dict()
    del state["1.bias"]
    state["extra"] = torch.zeros(1)
    state["0.bias"] = torch.zeros(5)
    path = str(tmp_path / "some.pth")
    torch.save({"model": state}, path)
    logger = logging.getLogger("iwin_d2.checkpoint.checkpointer")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    try:
        Checkpointer(model()).load(path)
    finally:
        logger.removeHandler(caplog.handler)
    expected = "Loaded 2 of the model's 4 tensors from"
    (line,) = {m for m in caplog.messages if m.startswith(expected)}
    assert line.endswith("missing: 1, unexpected: 1, of another shape: 1")


def test_optimizer_of_another_model_is_said(tmp_path):
    saved = model()
    Checkpointer(saved, str(tmp_path), optimizer=torch.optim.SGD(saved.parameters(), lr=1.0)).save(
        "m"
    )
    loaded = model()
    optimizer = torch.optim.SGD(loaded[0].parameters(), lr=1.0)
    with pytest.raises(CheckpointError, match="does not fit this training"):
        Checkpointer(loaded, str(tmp_path), optimizer=optimizer).resume_or_load("", resume=True)
