"""A model in parts trains as a whole one, and its checkpoints are those of a whole one."""

import json
import os
import shutil

import pytest
import torch
from toy_classifier import make_config, records

from iwin_d2.checkpoint import load_pretrained
from iwin_d2.d2.config import instantiate
from iwin_d2.engine.classification import do_train
from iwin_d2.engine.launch import launch
from iwin_d2.engine.reproducible import seed_everything
from iwin_d2.errors import ConfigError, TrainingError


def train(folder, resume=False, bad=(), **options):
    torch.set_num_threads(1)
    cfg = make_config(
        folder,
        6,
        clip_grad=0.5,
        accumulation_steps=2,
        eval_period=3,
        best_checkpoint={"metric": "classification/top1"},
        **options,
    )
    cfg.model.drop_path_rate = 0.0
    cfg.model.use_checkpoint = True
    cfg.model.freeze_at = 1
    cfg.dataloader.test.dataset = records(11)  # not to be divided by two
    cfg.dataloader.train.mapper.bad = list(bad)
    os.makedirs(folder, exist_ok=True)
    seed_everything(0)
    return do_train(cfg, resume)


def in_parts(folder, resumed, diverging):
    from torch.distributed.tensor import DTensor

    from iwin_d2.engine import classification

    held = []

    class Shards(classification.Shards):
        def __init__(self, *args):
            super().__init__(*args)
            held.extend(p.to_local().numel() for p in self.model.parameters())
            assert all(isinstance(p, DTensor) for p in self.model.parameters())

    classification.Shards = Shards
    fsdp = {"enabled": True}
    results = train(folder, fsdp=fsdp)
    count = sum(held)
    assert train(resumed, resume=True, fsdp=fsdp) == results
    with pytest.raises(TrainingError) as caught:
        train(diverging, bad=[7], fsdp=fsdp)  # in one of the processes
    return results, count, caught.value.sentence


def content(folder, name="model_final"):
    return torch.load(folder / f"{name}.pth")


def assert_close(ours, theirs):
    """Of two checkpoints: the names are the same, the weights nearly so."""
    assert ours.keys() == theirs.keys() and ours["model"].keys() == theirs["model"].keys()
    for name, value in ours["model"].items():
        assert type(value) is torch.Tensor
        torch.testing.assert_close(value, theirs["model"][name], rtol=1e-3, atol=2e-4, msg=name)
    one, other = (state["trainer"]["optimizer"] for state in (ours, theirs))
    assert (
        one["param_groups"] == other["param_groups"]
        and one["state"].keys() == other["state"].keys()
    )
    for key, values in one["state"].items():
        for name, value in values.items():
            assert type(value) is torch.Tensor
            torch.testing.assert_close(value, other["state"][key][name], rtol=1e-2, atol=1e-4)


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [(row["total_loss"], row["grad_norm"]) for row in rows if "total_loss" in row]


def test_two_halves_train_as_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    results = train(one)
    # From the middle on: a whole training in halves, and halves as a whole.
    shutil.copytree(one, tmp_path / "to halves")
    (tmp_path / "to halves/last_checkpoint").write_text("model_0000003.pth")
    folders = two, tmp_path / "to halves", tmp_path / "diverging"
    found, count, sentence = launch(in_parts, 2, args=folders, backend="gloo")
    assert found == results
    whole = sum(p.numel() for p in instantiate(make_config(one).model).parameters())
    assert whole / 2 <= count < whole * 0.6
    assert losses(two) == [pytest.approx(pair, rel=1e-3) for pair in losses(one)]
    for name in ("model_final", "model_0000003"):
        assert_close(content(two, name), content(one, name))
    assert_close(content(tmp_path / "to halves"), content(one))
    best = content(two, "model_best")
    assert best["metric"] == content(one, "model_best")["metric"]

    (saved,) = (tmp_path / "diverging").glob("model_*.pth")
    assert "007.png" in sentence and str(saved) in sentence
    state = torch.load(saved)
    assert all(value.isfinite().all() for value in state["model"].values())
    assert state["trainer"]["batches_done"] == 2 * (state["trainer"]["iteration"] + 1)

    shutil.copytree(two, tmp_path / "to one")
    (tmp_path / "to one/last_checkpoint").write_text("model_0000003.pth")
    train(tmp_path / "to one", resume=True)
    assert_close(content(tmp_path / "to one"), content(one))
    assert not load_pretrained(
        instantiate(make_config(one).model), str(two / "model_final.pth")
    ).missing


def test_alone_there_is_nothing_to_share(tmp_path):
    for name, options in (("plain", {}), ("alone", {"fsdp": {"enabled": True}})):
        train(tmp_path / name, **options)
    assert losses(tmp_path / "plain") == losses(tmp_path / "alone")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fsdp": {"enabled": "yes"}}, r"train\.fsdp\.enabled=yes makes no sense"),
        ({"fsdp": {"enabled": True}, "ema": {"enabled": True}}, r"does not go with train\.fsdp"),
    ],
)
def test_settings(tmp_path, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        train(tmp_path, **options)
