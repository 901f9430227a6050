"""The event storage and its writers."""

import json
import logging

import pytest
import torch

from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.utils import comm
from iwin_d2.d2.utils.events import (
    CommonMetricPrinter,
    EventStorage,
    JSONWriter,
    TensorboardXWriter,
    get_event_storage,
    has_event_storage,
)


def test_storages_nest():
    assert not has_event_storage()
    with EventStorage() as outer:
        with EventStorage(7) as inner:
            assert get_event_storage() is inner
            assert inner.iter == 7
        assert get_event_storage() is outer
    with pytest.raises(AssertionError):
        get_event_storage()


def test_smoothed_scalars_give_the_median_others_the_last():
    with EventStorage() as storage:
        for i, loss in enumerate((9.0, 1.0, 2.0)):
            storage.iter = i
            storage.put_scalars(loss=torch.tensor(loss))
            storage.put_scalar("lr", loss, smoothing_hint=False)
        smoothed = storage.latest_with_smoothing_hint(20)
        assert smoothed["loss"] == (2.0, 2)
        assert smoothed["lr"] == (2.0, 2)
        assert storage.latest_with_smoothing_hint(1)["loss"] == (2.0, 2)
        assert storage.history("loss").global_avg() == 4.0


def test_name_scope_prefixes_names():
    with EventStorage() as storage:
        with storage.name_scope("stage0"):
            storage.put_scalar("accuracy", 0.5)
        storage.put_scalar("accuracy", 0.7)
        assert storage.latest()["stage0/accuracy"][0] == 0.5
        assert storage.latest()["accuracy"][0] == 0.7


def test_json_writer_writes_each_iteration_once(tmp_path):
    path = str(tmp_path / "metrics.json")
    writer = JSONWriter(path, window_size=1)
    with EventStorage() as storage:
        storage.put_scalar("loss", 2.0)
        writer.write()
        writer.write()
        storage.iter = 1
        storage.put_scalar("loss", 1.0)
        writer.write()
    writer.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert rows == [{"iteration": 0, "loss": 2.0}, {"iteration": 1, "loss": 1.0}]


@pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 writes NaN, which is not JSON")
def test_json_writer_leaves_out_what_json_cannot_say(tmp_path):
    writer = JSONWriter(str(tmp_path / "metrics.json"))
    with EventStorage() as storage:
        storage.put_scalars(loss=2.0, ap=float("nan"), norm=float("inf"))
        writer.write()
    writer.close()
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"iteration": 0, "loss": 2.0}


def test_tensorboard_writer_writes_scalars(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = TensorboardXWriter(str(tmp_path))
    with EventStorage(3) as storage:
        storage.put_scalar("loss", 2.0)
        writer.write()
    writer.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 2.0)]


def test_printed_line_names_eta_losses_times_and_rate():
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    printer = CommonMetricPrinter(max_iter=11)
    printer.logger.addHandler(handler)
    printer.logger.setLevel(logging.INFO)
    try:
        with EventStorage(0) as storage:
            storage.put_scalars(total_loss=1.25, loss_cls=0.75, time=2.0, data_time=0.5)
            storage.put_scalar("lr", 0.001, smoothing_hint=False)
            printer.write()
            storage.iter = 11  # after the last iteration: nothing to print
            printer.write()
    finally:
        printer.logger.removeHandler(handler)
    (line,) = lines
    for part in ("eta: 0:00:20", "iter: 0", "total_loss: 1.25", "loss_cls: 0.75", "lr: 0.001"):
        assert part in line
    assert "time: 2.0000" in line and "data_time: 0.5000" in line


def test_a_single_process_talks_to_itself():
    assert (comm.get_world_size(), comm.get_rank(), comm.get_local_rank()) == (1, 0, 0)
    assert comm.is_main_process()
    comm.synchronize()
    assert comm.all_gather({"a": 1}) == [{"a": 1}]
    assert comm.gather("x") == ["x"]
    losses = {"loss": torch.tensor(1.0)}
    assert comm.reduce_dict(losses) == losses
    assert isinstance(comm.shared_random_seed(), int)
