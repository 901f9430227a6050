"""The training loop: learning, precision, clipping, resuming, and what it says when it stops."""

import copy
import logging
import os
import signal
import subprocess
import time

import pytest
import torch
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn

from iwin_d2.checkpoint import Checkpointer
from iwin_d2.d2.engine import HookBase, hooks
from iwin_d2.data.loader import build_train_loader
from iwin_d2.engine import DetectionTrainer, interrupt
from iwin_d2.errors import CheckpointError, ConfigError, DataError, TrainingError


class Regressor(nn.Module):
    """Returns losses in training; notes whether autocast was on."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        nn.init.constant_(self.linear.weight, 0.5)
        nn.init.zeros_(self.linear.bias)
        self.dtypes = []

    def forward(self, batch):
        x = torch.stack([item["x"] for item in batch])
        y = torch.stack([item["y"] for item in batch])
        out = self.linear(x)
        self.dtypes.append(out.dtype)
        difference = out.float() - y
        return {"loss_square": difference.square().mean(), "loss_abs": difference.abs().mean()}


def batch(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    xs = torch.randn(4, 2, generator=generator)
    return [
        {"x": x, "y": scale * (x.sum(0, keepdim=True) + 1), "file_name": f"images/{i}.jpg"}
        for i, x in enumerate(xs)
    ]


def make_trainer(loader=None, lr=0.05, optimizer=torch.optim.AdamW, **kwargs):
    model = Regressor()
    loader = [batch()] if loader is None else loader
    return DetectionTrainer(model, loader, optimizer(model.parameters(), lr=lr), **kwargs)


def test_learns_and_records_every_loss():
    trainer = make_trainer()
    trainer.train(0, 60)  # the loader ends after one batch: it is begun again
    storage = trainer.storage
    first, last = (storage.history("loss_square").values()[i][0] for i in (0, -1))
    assert last < first / 3
    assert trainer.iter == 60
    total = storage.latest()["total_loss"]
    parts = storage.latest()["loss_square"][0] + storage.latest()["loss_abs"][0]
    assert total == (pytest.approx(parts), 59)
    assert storage.latest()["data_time"][0] >= 0


def test_hooks_are_called_in_order():
    calls = []

    class Spy(HookBase):
        def __getattribute__(self, name):
            if name in ("before_train", "before_step", "after_backward", "after_step"):
                calls.append(name)
            if name == "after_train":
                calls.append(f"after_train at {self.trainer.iter}")
            return super().__getattribute__(name)

    trainer = make_trainer()
    trainer.register_hooks([None, Spy()])
    trainer.train(3, 5)
    step = ["before_step", "after_backward", "after_step"]
    assert calls == ["before_train", *step, *step, "after_train at 5"]


def test_clipping_limits_the_norm_of_all_gradients():
    trainer = make_trainer(lr=1.0, optimizer=torch.optim.SGD, clip_grad=0.01)
    before = torch.cat([p.detach().flatten().clone() for p in trainer.model.parameters()])
    trainer.train(0, 1)
    after = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert trainer.storage.latest()["grad_norm"][0] > 0.01


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_mixed_precision(dtype):
    trainer = make_trainer(amp=True, amp_dtype=dtype)
    trainer.train(0, 30)
    assert set(trainer.model.dtypes) == {dtype or torch.bfloat16}
    assert trainer.model.linear.weight.dtype == torch.float32
    assert ("grad_scaler" in trainer.state_dict()) == (dtype == torch.float16)
    losses = [value for value, _ in trainer.storage.history("loss_square").values()]
    assert losses[-1] < losses[0]


class Callbacks(HookBase):
    """Calls functions with the trainer."""

    def __init__(self, after_step, after_train=lambda trainer: None):
        self.after_step = lambda: after_step(self.trainer)
        self.after_train = lambda: after_train(self.trainer)


def train_in_parts(folder, parts):
    """Train up to parts[-1], stopping and starting anew from the checkpoint at each part."""
    for end in parts:
        trainer = make_trainer()
        checkpointer = Checkpointer(trainer.model, str(folder), trainer=trainer)
        trainer.register_hooks(
            [
                hooks.LRScheduler(scheduler=LinearParamScheduler(1.0, 0.0)),
                hooks.PeriodicCheckpointer(checkpointer, period=end),
            ]
        )
        start = 0
        if checkpointer.has_checkpoint():
            checkpointer.resume_or_load("", resume=True)
            start = trainer.iter + 1
        # The schedule is one of 10 iterations, whatever the part.
        stop = Callbacks(after_step=lambda t, end=end: _stop_after(t, end))
        trainer.register_hooks([stop])
        try:
            trainer.train(start, 10)
        except KeyboardInterrupt:
            assert end < 10
    return trainer


def _stop_after(trainer, end):
    if trainer.iter + 1 == end < 10:
        raise KeyboardInterrupt


def test_a_resumed_training_ends_where_an_unbroken_one_does(tmp_path):
    (tmp_path / "one").mkdir()
    unbroken = train_in_parts(tmp_path / "one", [10])
    (tmp_path / "two").mkdir()
    resumed = train_in_parts(tmp_path / "two", [4, 10])
    assert resumed.start_iter == 4
    for a, b in zip(unbroken.model.parameters(), resumed.model.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert resumed.storage.history("lr").values() == unbroken.storage.history("lr").values()[4:]


def test_a_loss_that_is_not_finite_stops_with_all_there_is_to_know():
    bad = batch()
    bad[2]["y"] = torch.tensor([float("nan")])
    trainer = make_trainer([batch(), batch(), bad], lr=0.25, optimizer=torch.optim.SGD)
    seen = []
    trainer.register_hooks(
        [
            Callbacks(
                after_step=lambda t: seen.append(t.model.linear.weight.detach().clone()),
                after_train=lambda t: seen.append("after_train"),
            )
        ]
    )
    with pytest.raises(TrainingError) as caught:
        trainer.train(0, 10)
    sentence = caught.value.sentence
    for part in ("iteration 2", "loss_square=nan", "loss_abs=nan", "0.25", "images/2.jpg"):
        assert part in sentence
    assert "\n" not in sentence
    # The weights are those of the last good step, and hooks could clean up.
    torch.testing.assert_close(trainer.model.linear.weight.detach(), seen[-2])
    assert seen[-1] == "after_train"


def halves():
    """The batch as two, whose losses have the mean of the whole one's."""
    whole = batch()
    return [whole[:2], whole[2:]]


def test_accumulated_gradients_are_those_of_the_large_batch():
    whole = make_trainer([batch()], clip_grad=0.5)
    parts = make_trainer(halves(), clip_grad=0.5, accumulation_steps=2)
    whole.train(0, 5), parts.train(0, 5)
    for a, b in zip(whole.model.parameters(), parts.model.parameters()):
        torch.testing.assert_close(a, b)
    for name in ("loss_square", "total_loss", "grad_norm"):
        values = [[v for v, _ in t.storage.history(name).values()] for t in (whole, parts)]
        assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert parts.iter == 5 and parts.state_dict()["batches_done"] == 10


class Normalised(Regressor):
    """With a BatchNorm, whose statistics a forward pass changes."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def forward(self, batch):
        y = torch.stack([item["y"] for item in batch])
        out = self.norm(y)
        return {"loss_square": out.square().mean() + self.linear.weight.square().sum()}


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_the_state_before_a_loss_that_is_not_finite_is_saved(tmp_path, accumulation_steps):
    bad = batch()
    bad[2]["y"] = torch.tensor([float("nan")])
    model = Normalised()
    loader = [batch()] * 2 * accumulation_steps + [bad] * accumulation_steps
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    trainer = DetectionTrainer(model, loader, optimizer, accumulation_steps=accumulation_steps)
    checkpointer = Checkpointer(model, str(tmp_path), trainer=trainer)
    trainer.save_checkpoint = lambda: checkpointer.save("model_0000001") or "model_0000001.pth"
    states = []
    trainer.register_hooks([Callbacks(lambda t: states.append(copy.deepcopy(model.state_dict())))])
    with pytest.raises(TrainingError, match=r"saved in model_0000001\.pth\.$"):
        trainer.train(0, 9)
    content = torch.load(tmp_path / "model_0000001.pth")
    assert content["trainer"]["iteration"] == 1 and trainer.iter == 2
    assert content["trainer"]["batches_done"] == 2 * accumulation_steps
    assert content["model"].keys() == states[1].keys()
    for name, value in states[1].items():
        torch.testing.assert_close(content["model"][name], value, rtol=0, atol=0)


def test_random_numbers_of_a_step_depend_on_seed_and_iteration_alone():
    drawn = {}

    class Drawing(Regressor):
        def forward(self, batch):
            drawn.setdefault(trainer.iter, []).append(torch.rand(1).item())
            return super().forward(batch)

    for start in (0, 2):
        model = Drawing()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        trainer = DetectionTrainer(model, [batch()], optimizer, seed=4)
        torch.manual_seed(start)
        trainer.train(start, 4)
    assert drawn[2][0] == drawn[2][1] and drawn[3][0] == drawn[3][1]
    assert len({values[0] for values in drawn.values()}) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_asked_to_stop_it_saves_and_says_so(number):
    trainer = make_trainer()
    trainer.save_checkpoint = lambda: f"state after {trainer.iter}"
    trainer.register_hooks(
        [Callbacks(lambda t: os.kill(os.getpid(), number) if t.iter == 3 else None)]
    )
    before = signal.getsignal(number)
    with pytest.raises(TrainingError, match=r"request after iteration 4: state after 4 is saved"):
        trainer.train(0, 99)
    assert signal.getsignal(number) is before


def test_a_request_that_comes_twice_at_once_is_one():
    trainer = make_trainer()
    trainer.save_checkpoint = lambda: f"state after {trainer.iter}"

    def ask_twice(t):
        if t.iter == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.register_hooks([Callbacks(ask_twice)])
    with pytest.raises(TrainingError, match="state after 4 is saved"):
        trainer.train(0, 99)


def test_a_second_request_ends_at_once(monkeypatch):
    monkeypatch.setattr(interrupt, "_SECOND_THOUGHT", 0.0)
    trainer = make_trainer()

    def ask_twice(t):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    trainer.register_hooks([Callbacks(ask_twice)])
    with pytest.raises(KeyboardInterrupt):
        trainer.train(0, 99)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_job_leaves_loading_workers_their_work(number):
    # From now on PyTorch starts a thread in every worker, before the worker can block a signal.
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    torch.set_num_threads(threads)
    records = [{"item": item, "width": 2, "height": 1} for item in batch()]
    loader = build_train_loader(
        records, mapper=lambda record: record["item"], total_batch_size=4, num_workers=1
    )
    trainer = make_trainer(loader)
    trainer.save_checkpoint = lambda: f"state after {trainer.iter}"
    workers, others = [], set(torch.multiprocessing.active_children())  # of other tests

    def ask_all_to_stop(t):
        if t.iter == 3:
            workers.extend(set(torch.multiprocessing.active_children()) - others)
            everybody = [str(pid) for pid in (*(w.pid for w in workers), os.getpid())]
            subprocess.run(["kill", f"-{number:d}", *everybody], check=True)
            workers[0].join(0.2)
            assert workers[0].is_alive()

    trainer.register_hooks([Callbacks(ask_all_to_stop)])
    with pytest.raises(TrainingError, match="state after 4 is saved"):
        trainer.train(0, 99)
    workers[0].join(10)
    assert not workers[0].is_alive()  # the training has ended, and with it its workers


def test_infinite_loss_stops_too():
    trainer = make_trainer([batch(scale=1e30)])
    with pytest.raises(TrainingError, match="loss_square=inf"):
        trainer.train(0, 1)


@pytest.mark.parametrize("reason", ["boxes are not finite", "Boxes hold NaN. Diverged."])
def test_boxes_that_are_not_finite_stop_like_losses(reason):
    trainer = make_trainer(lr=0.25)

    def diverge(batch):
        raise FloatingPointError(reason)

    trainer.model.forward = diverge
    with pytest.raises(TrainingError) as caught:
        trainer.train(7, 8)
    sentence = caught.value.sentence
    for part in ("iteration 7", reason.rstrip("."), "learning rate 0.25", "images/2.jpg"):
        assert part in sentence
    assert ".;" not in sentence


def test_a_gradient_norm_that_is_not_finite_is_not_recorded():
    class Steep(Regressor):
        """A finite loss whose gradient is infinite."""

        def forward(self, batch):
            losses = super().forward(batch)
            return {"loss": (losses["loss_abs"] * 0).sqrt()}

    model = Steep()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    trainer = DetectionTrainer(model, [batch()], optimizer, clip_grad=1.0)
    trainer.train(0, 1)
    assert "grad_norm" not in trainer.storage.latest()
    assert trainer.storage.latest()["total_loss"] == (0, 0)


def test_empty_loader():
    with pytest.raises(DataError, match="training set is empty"):
        make_trainer([]).train(0, 1)


class Failing:
    def __init__(self, error):
        self.error = error

    def __iter__(self):
        raise self.error


@pytest.mark.parametrize(
    ("error", "logged"), [(DataError("image x is gone"), False), (ValueError("a bug"), True)]
)
def test_only_unexpected_errors_are_logged_with_a_traceback(error, logged, caplog):
    logger = logging.getLogger("iwin_d2.engine.trainer")
    logger.addHandler(caplog.handler)
    try:
        with pytest.raises(type(error)):
            make_trainer(Failing(error)).train(0, 1)
    finally:
        logger.removeHandler(caplog.handler)
    assert any(record.exc_info for record in caplog.records) == logged


def test_a_checkpoint_of_another_optimizer_is_said_at_the_first_step():
    state = make_trainer(optimizer=torch.optim.AdamW)
    state.train(0, 1)
    trainer = make_trainer(optimizer=torch.optim.Adamax)
    trainer.load_state_dict(state.state_dict())
    with pytest.raises(CheckpointError, match=r"cannot go on from the checkpoint .*'exp_inf'"):
        trainer.train(1, 2)


def test_a_model_that_cannot_take_its_first_batch_is_told_from_one_that_fails_later():
    narrow = [{"x": torch.zeros(3), "y": torch.zeros(1), "file_name": "a.jpg"}]
    with pytest.raises(ConfigError, match=r"model part linear cannot take .*mat1 and mat2"):
        make_trainer([narrow]).train(0, 1)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        make_trainer([batch(), narrow]).train(0, 2)
