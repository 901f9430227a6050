"""Averages, best weights, checkpoints on the way, metrics of a resumed run."""

import json

import pytest
import torch
from torch import nn

from iwin_d2.checkpoint import Checkpointer
from iwin_d2.engine import DetectionTrainer
from iwin_d2.engine.hooks import BestWeights, ModelEMA, PeriodicCheckpointer, tidy_metrics


class Counter(nn.Module):
    """A weight that SGD raises by one a step, and a buffer that counts."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

    def forward(self, batch):
        self.seen += 2
        self.count += 1
        return {"loss": -self.weight.sum()}


def make(folder=None):
    model = Counter()
    trainer = DetectionTrainer(model, [[{}]], torch.optim.SGD([model.weight], lr=1.0))
    return trainer, Checkpointer(model, str(folder or ""), trainer=trainer)


def test_the_average_follows_its_formula_and_survives_a_restart(tmp_path):
    trainer, checkpointer = make(tmp_path)
    ema = ModelEMA(trainer.model, decay=0.5, checkpointer=checkpointer)
    trainer.register_hooks([ema])
    trainer.train(0, 4)

    expected = 1.0  # the first step's weight
    for step in (2, 3, 4):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert ema.model.weight.item() == pytest.approx(expected)
    assert ema.model.seen.item() == pytest.approx(2 * expected)
    assert ema.model.frozen.item() == 1 and not ema.model.training
    assert trainer.model.weight.item() == 4 and trainer.model.training
    saved = torch.load(tmp_path / "model_final_ema.pth")["model"]
    assert saved["weight"].item() == pytest.approx(expected)
    assert saved.keys() == trainer.model.state_dict().keys()

    other = ModelEMA(Counter(), decay=0.5)
    other.load_state_dict(ema.state_dict())
    for average in (ema, other):
        average._source = trainer.model
        average.after_step()
    assert torch.equal(other.model.weight, ema.model.weight)


def test_no_average_is_saved_by_a_training_that_failed(tmp_path):
    trainer, checkpointer = make(tmp_path)
    trainer.register_hooks([ModelEMA(trainer.model, 0.5, checkpointer)])
    trainer.model.forward = lambda batch: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.train(0, 4)
    assert not list(tmp_path.iterdir())


def best(folder):
    return torch.load(folder / "model_best.pth")


@pytest.mark.parametrize("mode", ["max", "min"])
def test_best_weights(tmp_path, mode):
    _, checkpointer = make(tmp_path)
    sign = {"max": 1, "min": -1}[mode]
    keeper = BestWeights(checkpointer, "bbox/AP", mode)
    for iteration, value in enumerate([3.0, 5.0, 5.0, 4.0]):
        model = Counter()
        nn.init.constant_(model.weight, iteration)
        keeper.consider({"bbox/AP": sign * value, "other": 0.0}, model, iteration)
    content = best(tmp_path)
    assert content["iteration"] == 1 and content["model"]["weight"].item() == 1
    assert content["metric"] == {"bbox/AP": sign * 5.0}
    assert not checkpointer.has_checkpoint()  # nothing to resume from

    resumed = BestWeights(checkpointer, "bbox/AP", mode)
    resumed.resume()
    resumed.consider({"bbox/AP": sign * 4.5}, Counter(), 9)
    assert best(tmp_path)["iteration"] == 1
    resumed.consider({"bbox/AP": sign * 5.5}, Counter(), 10)
    assert best(tmp_path)["iteration"] == 10


def test_a_metric_that_is_not_there_is_said(tmp_path, caplog):
    _, checkpointer = make(tmp_path)
    BestWeights(checkpointer, "bbox/AP5").consider({"bbox/AP50": 1.0}, Counter(), 3)
    assert "bbox/AP5 is not among the results (bbox/AP50)" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_best_file_that_cannot_be_read_is_no_hindrance(tmp_path, content, caplog):
    path = tmp_path / "model_best.pth"
    if content is None:
        torch.save({"model": {}}, path)
    else:
        path.write_bytes(content)
    keeper = BestWeights(make(tmp_path)[1], "bbox/AP")
    keeper.resume()
    assert keeper.best is None and "looked for anew" in caplog.text


def test_old_checkpoints_make_room_also_after_a_restart(tmp_path):
    for start, end in ((0, 4), (4, 7)):
        trainer, checkpointer = make(tmp_path)
        trainer.register_hooks([PeriodicCheckpointer(checkpointer, period=1, max_to_keep=2)])
        trainer.train(start, end)
    found = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert found == ["model_0000005.pth", "model_0000006.pth", "model_final.pth"]


def test_one_checkpoint_too_many_after_a_kill_is_removed(tmp_path):
    for number in range(4):
        (tmp_path / f"model_{number:07d}.pth").write_bytes(b"")
    trainer, checkpointer = make(tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(checkpointer, period=9, max_to_keep=2)])
    trainer.train(3, 4)  # model_0000003 is of another training: not this one's to remove
    found = sorted(path.name for path in tmp_path.glob("model_0*.pth"))
    assert found == ["model_0000001.pth", "model_0000002.pth", "model_0000003.pth"]


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    for name in ("model_0000003.pth", "last_checkpoint"):
        (tmp_path / f".{name}.gjewgt1l.tmp").write_bytes(b"half")
    (tmp_path / "notes.tmp").write_bytes(b"mine")
    trainer, checkpointer = make(tmp_path)
    trainer.register_hooks([PeriodicCheckpointer(checkpointer, period=9)])
    trainer.train(0, 1)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"notes.tmp", "model_final.pth", "last_checkpoint"}


def test_metrics_that_will_be_written_again_are_left_out(tmp_path):
    path = tmp_path / "metrics.json"
    rows = [json.dumps({"iteration": i, "total_loss": i / 2}) + "\n" for i in range(5)]
    results = json.dumps({"iteration": 3, "bbox/AP": 7.0}) + "\n"  # of a training that ended there
    path.write_text("".join([*rows[:3], results, *rows[3:]]) + '{"iteration": 5, "tot')
    tidy_metrics(str(path), start_iter=3)
    assert path.read_text() == "".join([*rows[:3], results])
    tidy_metrics(str(tmp_path / "missing.json"), start_iter=3)
    assert not (tmp_path / "missing.json").exists()
