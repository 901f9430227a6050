"""Hooks, each on a trainer whose steps do nothing."""

import weakref

import pytest
import torch
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn

from iwin_d2.d2.engine import TrainerBase, hooks
from iwin_d2.d2.utils.events import EventWriter


class Trainer(TrainerBase):
    """Steps do nothing, or fail at an iteration."""

    def __init__(self, fail_at=None):
        super().__init__()
        self.fail_at = fail_at
        self.optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)

    def run_step(self):
        if self.iter == self.fail_at:
            raise RuntimeError("failed")
        self.storage.put_scalar("loss", float(self.iter))
        self.optimizer.step()


def run(trainer, hook_list, start=0, end=10):
    trainer.register_hooks(hook_list)
    try:
        trainer.train(start, end)
    except RuntimeError:
        assert trainer.fail_at is not None
    return trainer


def test_evaluation_each_period_and_once_at_the_end():
    trainer, seen = Trainer(), []

    def evaluate():
        seen.append(trainer.iter)
        return {"bbox": {"AP": float(trainer.iter)}}

    run(trainer, [hooks.EvalHook(5, evaluate)])
    assert seen == [4, 10]
    assert trainer.storage.history("bbox/AP").values() == [(4.0, 4), (10.0, 10)]


def test_no_evaluation_after_a_failure():
    seen = []
    run(Trainer(fail_at=7), [hooks.EvalHook(0, lambda: seen.append(1))])
    run(Trainer(), [hooks.EvalHook(0, lambda: seen.append(1), eval_after_train=False)])
    assert seen == []


def test_learning_rate_follows_a_param_scheduler():
    trainer = run(Trainer(), [hooks.LRScheduler(scheduler=LinearParamScheduler(1.0, 0.0))])
    rates = [value for value, _ in trainer.storage.history("lr").values()]
    assert rates == pytest.approx([2.0 * (1 - i / 10) for i in range(10)])


def test_recorded_rate_is_that_of_the_most_parameters():
    trainer = Trainer()
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    groups = [{"params": parameters[:1], "lr": 0.1}, {"params": parameters[1:], "lr": 0.2}]
    trainer.optimizer = torch.optim.SGD(groups)
    run(trainer, [hooks.LRScheduler(scheduler=LinearParamScheduler(1.0, 1.0))])
    assert trainer.storage.latest()["lr"][0] == 0.2


def test_writers_are_called_each_period_and_closed():
    class Writer(EventWriter):
        def __init__(self):
            self.written, self.closed = [], False

        def write(self):
            self.written.append(trainer.iter)

        def close(self):
            self.closed = True

    trainer, writer = Trainer(), Writer()
    run(trainer, [hooks.PeriodicWriter([writer], period=4)])
    assert writer.written == [3, 7, 9, 10]
    assert writer.closed


@pytest.mark.parametrize("warmup, first", [(0, 4), (1, 4), (3, 6)])
def test_timer_records_times_from_the_last_warmup_iteration_on(warmup, first):
    trainer = run(Trainer(), [hooks.IterationTimer(warmup_iter=warmup)], start=4, end=10)
    assert [it for _, it in trainer.storage.history("time").values()] == list(range(first, 10))


def test_state_of_trainer_and_hooks():
    trainer = Trainer()
    scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, step_size=3)
    run(trainer, [hooks.LRScheduler(scheduler=scheduler)], end=4)
    state = trainer.state_dict()
    assert state["iteration"] == 4
    assert state["hooks"]["LRScheduler"]["last_epoch"] == 4
    other = Trainer()
    fresh = torch.optim.lr_scheduler.StepLR(other.optimizer, step_size=3)
    other.register_hooks([hooks.LRScheduler(optimizer=other.optimizer, scheduler=fresh)])
    other.load_state_dict(state)
    assert (other.iter, fresh.last_epoch) == (4, 4)


def test_hooks_do_not_keep_the_trainer_alive():
    trainer = Trainer()
    trainer.register_hooks([hook := hooks.IterationTimer()])
    reference = weakref.ref(trainer)
    del trainer
    assert reference() is None and hook is not None
