"""The loop of classifiers: it learns, resumes exactly, stops well, and is the same in processes."""

import json
import os
import re
import signal

import pytest
import torch
from toy_classifier import NAMES, Mapper, make_config, records

from iwin_d2.d2.config import instantiate
from iwin_d2.engine import classification
from iwin_d2.engine.classification import do_test, do_train, evaluate_only
from iwin_d2.engine.launch import launch
from iwin_d2.engine.reproducible import seed_everything
from iwin_d2.errors import CheckpointError, ConfigError, DataError, TrainingError
from iwin_d2.modeling import IwinClassifier


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(cfg, resume=False):
    os.makedirs(cfg.train.output_dir, exist_ok=True)
    seed_everything(0)  # initial weights, and the seeds of order and augmentation
    return do_train(cfg, resume)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def losses(folder):
    return {row["iteration"]: row["total_loss"] for row in rows(folder) if "total_loss" in row}


@pytest.fixture
def said(monkeypatch):
    """{run's folder: {iteration: every loss that was said of it}}."""
    found = {}
    record = classification._Run._after_iteration

    def after_iteration(run, storage):
        run_losses = found.setdefault(run._cfg.train.output_dir, {})
        loss = storage.history("total_loss").latest()
        run_losses.setdefault(storage.iter, set()).add(loss)
        record(run, storage)

    monkeypatch.setattr(classification._Run, "_after_iteration", after_iteration)
    return found


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


class Stopping(Mapper):
    """Sends a signal to the process when it comes to the n-th image of a training."""

    def __init__(self, after, number=signal.SIGTERM):
        super().__init__(is_train=True)
        self.left, self.number = after, number

    def __call__(self, record):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.number)
        return super().__call__(record)


def test_it_learns(tmp_path):
    results = train(make_config(tmp_path, 60))
    assert results["classification"]["top1"] == 100
    assert (tmp_path / "model_final.pth").exists()
    lines = (tmp_path / "inference/predictions.csv").read_text().splitlines()
    assert lines[0].startswith("file,class,predicted,score,right,top1") and len(lines) == 12
    assert lines[1].split(",")[:3] == ["000.png", NAMES[0], NAMES[0]]


OPTIONS = {
    "plain": {},
    "averaged": {"ema": {"enabled": True, "decay": 0.9}},
    "mixed precision": {"amp": {"enabled": True, "dtype": "bfloat16"}, "clip_grad": 1.0},
    "scaled loss": {"amp": {"enabled": True, "dtype": "float16"}, "clip_grad": 1.0},
    "mixed images": {"mixing": {"mixup": 0.8, "cutmix": 1.0}, "label_smoothing": 0.1},
    "accumulated": {"accumulation_steps": 2},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_stopped_and_resumed_run_is_the_unbroken_one(tmp_path, said, options):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(make_config(whole, 10, **options))
    for after in (14, 13):  # in mid-epoch
        cfg = make_config(broken, 10, **options)
        cfg.dataloader.train.mapper = Stopping(after)
        with pytest.raises(TrainingError, match=r"Stopped on request after .*--resume"):
            train(cfg, resume=True)
    results = train(make_config(broken, 10, **options), resume=True)
    assert said[str(broken)] == said[str(whole)] and len(said[str(whole)]) == 10
    assert sorted(losses(broken)) == list(range(10))
    ends = [torch.load(run / "model_final.pth") for run in (whole, broken)]
    assert same(*ends)
    assert 0 <= results["classification"]["top1"] <= 100
    if "ema" in options:
        assert same(*(torch.load(run / "model_final_ema.pth") for run in (whole, broken)))


def test_accumulated_batches_are_one_large_batch(tmp_path, said):
    for name, size, steps in (("large", 8, 1), ("accumulated", 4, 2)):
        cfg = make_config(tmp_path / name, 5, accumulation_steps=steps)
        cfg.model.drop_path_rate = 0.0
        cfg.dataloader.train.total_batch_size = size
        train(cfg)
    large, accumulated = (
        [loss for (loss,) in said[str(tmp_path / name)].values()]
        for name in ("large", "accumulated")
    )
    assert large == pytest.approx(accumulated, rel=1e-4)


def test_the_schedule_is_the_config_s(tmp_path):
    train(make_config(tmp_path, 4))
    expected = [0.003 * (1 + torch.tensor(torch.pi * i / 4).cos().item()) / 2 for i in range(4)]
    assert [row["lr"] for row in rows(tmp_path)[:4]] == pytest.approx(expected)


def test_epochs_are_counted_in_iterations(tmp_path):
    cfg = make_config(tmp_path, None, epochs={"max": 1.5, "eval": 0.5, "checkpoint": 1})
    cfg.train.eval_period = None
    cfg.train.checkpointer.period = None
    train(cfg)  # 24 images, 4 a batch
    assert (cfg.train.max_iter, cfg.train.eval_period, cfg.train.checkpointer.period) == (9, 3, 6)
    evaluated = [row["iteration"] for row in rows(tmp_path) if "classification/top1" in row]
    # The one at the end stands under the iteration that would come next.
    assert evaluated == [2, 5, 9] and sorted(losses(tmp_path)) == list(range(9))
    assert (tmp_path / "model_0000005.pth").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": {"max": "ten"}, "max_iter": None}, r"train.epochs.max=ten makes no sense"),
        ({"max_iter": None}, r"Neither train.max_iter nor train.epochs.max is set"),
        ({"mixing": {"mixup": -1}}, r"train.mixing.mixup=-1 makes no sense"),
        ({"mixing": {"mixpu": 1}}, r"train.mixing.mixpu is no setting"),
        ({"label_smoothing": 2}, r"train.label_smoothing=2 makes no sense: .* from 0 to 1"),
        ({"val_loss_period": 5}, r"train.val_loss_period=5 is not for classifiers"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, change, sentence):
    cfg = make_config(tmp_path, 4)
    cfg.train.update(change)
    with pytest.raises(ConfigError, match=sentence):
        train(cfg)


class WithStatistics(IwinClassifier):
    """Counts its forward passes, as BatchNorms do."""

    def __init__(self, **options):
        super().__init__(**options)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, images):
        self.passes += self.training
        return super().forward(images)


def test_a_bad_batch_leaves_no_trace(tmp_path):
    cfg = make_config(tmp_path, 40)
    cfg.model._target_ = WithStatistics
    cfg.dataloader.train.mapper = Mapper(is_train=True, bad=[7])
    with pytest.raises(TrainingError) as caught:
        train(cfg)
    saved = torch.load(str(caught.value).split("saved in ")[1].rstrip("."))
    assert saved["model"]["passes"] == saved["trainer"]["iteration"] + 1


def test_parts_that_are_not_a_classifier_s(tmp_path):
    cfg = make_config(tmp_path, 4)
    cfg.model = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 4}
    with pytest.raises(ConfigError, match=r"model, a Linear, does not say its num_classes"):
        train(cfg)
    cfg = make_config(tmp_path, 4)
    cfg.dataloader.train = cfg.dataloader.test
    with pytest.raises(ConfigError, match=r"build_train_loader"):
        train(cfg)


def test_a_loss_that_is_no_number(tmp_path):
    cfg = make_config(tmp_path, 40)
    cfg.dataloader.train.mapper = Mapper(is_train=True, bad=[7])
    with pytest.raises(TrainingError) as caught:
        train(cfg)
    assert "diverged at iteration" in str(caught.value) and "007.png" in str(caught.value)
    saved = torch.load(str(caught.value).split("saved in ")[1].rstrip("."))
    assert all(value.isfinite().all() for value in saved["model"].values())
    done = saved["trainer"]["iteration"] + 1
    assert saved["trainer"]["batches_done"] == done  # not the bad one
    # From there it goes on, the image mended.
    assert train(make_config(tmp_path, 40), resume=True)["classification"]["top1"] > 25


def test_evaluation_alone(tmp_path):
    train(make_config(tmp_path, 12))
    cfg = make_config(tmp_path / "again")
    with pytest.raises(CheckpointError, match="--eval-only needs weights"):
        evaluate_only(cfg)
    cfg.train.init_checkpoint = str(tmp_path / "model_final.pth")
    first = evaluate_only(cfg)
    cfg.dataloader.test.batch_size = 3  # the last batch is smaller
    assert evaluate_only(cfg) == first
    del cfg.dataloader["evaluator"]
    with pytest.raises(ConfigError, match=r"no dataloader\.evaluator"):
        evaluate_only(cfg)


def test_the_best_weights_are_kept(tmp_path, monkeypatch):
    values = iter([20.0, 60.0, 40.0])

    def evaluation(cfg, model):
        return {"classification": {"top1": next(values)}}

    monkeypatch.setattr(classification, "do_test", evaluation)
    train(
        make_config(tmp_path, 12, eval_period=4, best_checkpoint={"metric": "classification/top1"})
    )
    best = torch.load(tmp_path / "model_best.pth")
    assert best["metric"] == {"classification/top1": 60.0} and best["iteration"] == 7


def test_evaluation_leaves_the_training_as_it_is(tmp_path, said):
    for name, period in (("none", 0), ("often", 1)):
        train(make_config(tmp_path / name, 6, eval_period=period))
    assert said[str(tmp_path / "often")] == said[str(tmp_path / "none")]
    ends = [torch.load(tmp_path / run / "model_final.pth") for run in ("none", "often")]
    assert same(*ends)


def test_a_run_that_was_killed_after_its_last_iteration(tmp_path):
    options = {"ema": {"enabled": True, "decay": 0.9}}
    results = train(make_config(tmp_path, 8, **options))
    for name in ("model_final.pth", "model_final_ema.pth"):
        os.remove(tmp_path / name)
    (tmp_path / "last_checkpoint").write_text("model_0000007.pth")
    assert train(make_config(tmp_path, 8, **options), resume=True) == results
    assert (tmp_path / "model_final_ema.pth").exists()
    assert torch.load(tmp_path / "model_final.pth")["trainer"]["iteration"] == 7
    assert sorted(losses(tmp_path)) == list(range(8))


def test_a_run_that_was_killed_before_its_first_checkpoint(tmp_path):
    (tmp_path / "metrics.json").write_text('{"iteration": 0, "total_loss": 7.0}\n{"iter')
    train(make_config(tmp_path, 3), resume=True)
    assert [row["iteration"] for row in rows(tmp_path)] == [0, 1, 2, 3]
    assert losses(tmp_path)[0] != 7


def test_a_resumed_run_takes_the_config_s_learning_rate(tmp_path):
    train(make_config(tmp_path, 4))
    cfg = make_config(tmp_path, 8)
    cfg.optimizer.lr = 0.5
    train(cfg, resume=True)
    rates = {row["iteration"]: row["lr"] for row in rows(tmp_path) if "lr" in row}
    assert rates[3] < 0.003 and rates[4] == pytest.approx(0.25)  # half way down the cosine


def test_resuming_with_another_optimizer(tmp_path):
    cfg = make_config(tmp_path, 4)
    cfg.optimizer._target_ = "torch.optim.SGD"
    cfg.optimizer.momentum = 0.9
    train(cfg)
    with pytest.raises(CheckpointError, match=r"cannot go on from the checkpoint|does not fit"):
        train(make_config(tmp_path, 8), resume=True)


def test_resuming_with_other_data(tmp_path, caplog):
    train(make_config(tmp_path, 4))
    cfg = make_config(tmp_path, 8)
    cfg.dataloader.train.dataset = records(13)
    cfg.dataloader.train.total_batch_size = 3
    train(cfg, resume=True)
    assert "the order of the images begins anew" in caplog.text
    assert sorted(losses(tmp_path)) == list(range(8))


def test_labels_of_no_class(tmp_path):
    cfg = make_config(tmp_path, 12)
    cfg.dataloader.train.dataset = [
        *records(11),
        {"file_name": "odd.png", "label": 4, "image_id": 1},
    ]
    cfg.dataloader.train.mapper = Unchecked(is_train=True)
    with pytest.raises(DataError, match=r"odd\.png has label 4, but the model has 4 classes"):
        train(cfg)


class Unchecked(Mapper):
    def __call__(self, record):
        return {**super().__call__({**record, "label": 0}), "label": record["label"]}


def test_a_model_that_cannot_take_the_images(tmp_path):
    cfg = make_config(tmp_path, 4)
    cfg.model.in_chans = 4
    with pytest.raises(ConfigError, match=r"The model cannot take what it is given \(.*B, 4, H, W"):
        train(cfg)


def test_memory_that_runs_out(tmp_path, monkeypatch):
    def run_out(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(IwinClassifier, "forward_head", run_out)
    with pytest.raises(TrainingError) as caught:
        train(make_config(tmp_path, 4))
    sentence = caught.value.sentence
    assert "Out of memory with input of 4x3x16x16" in sentence
    assert "use_checkpoint=True" in sentence and "short_edge_length" not in sentence
    with pytest.raises(TrainingError, match=r"input of 3x16x16 .*dataloader\.test\.batch_size"):
        do_test(cfg := make_config(tmp_path, 4), instantiate(cfg.model))


def test_the_speed_is_told(tmp_path, caplog):
    caplog.set_level("INFO")
    train(make_config(tmp_path, 3, accumulation_steps=2))
    first = rows(tmp_path)[0]  # those of later iterations are medians
    assert first["images_per_second"] * first["time"] == pytest.approx(8)
    assert re.search(r"eta: 0:00:00  epoch: 1\.00  iter: 2 .* images/s: \d", caplog.text)


def in_process(folder):
    torch.set_num_threads(1)
    cfg = make_config(folder, 6, ddp={"broadcast_buffers": False})
    cfg.model.drop_path_rate = 0.0
    cfg.dataloader.test.dataset = records(11)  # not to be divided by two
    return train(cfg)


def test_two_processes_train_as_one(tmp_path):
    one = in_process(tmp_path / "one")
    two = launch(in_process, 2, args=(tmp_path / "two",), backend="gloo")
    assert two == one
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    ends = [torch.load(tmp_path / run / "model_final.pth")["model"] for run in ("one", "two")]
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=1e-4)
    written = [(tmp_path / run / "inference/predictions.csv").read_text() for run in ("one", "two")]
    assert [line.split(",")[:3] for line in written[0].splitlines()] == [
        line.split(",")[:3] for line in written[1].splitlines()
    ]


def test_a_model_of_other_classes(tmp_path):
    cfg = make_config(tmp_path)
    cfg.model.num_classes = 5
    for run in (lambda: do_test(cfg, instantiate(cfg.model)), lambda: do_train(cfg)):
        with pytest.raises(DataError, match="The model has 5 classes, the test set 4"):
            run()
    assert not (tmp_path / "metrics.json").exists()
