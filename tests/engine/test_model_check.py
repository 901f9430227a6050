"""Models that do not fit their data or their own parts."""

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from iwin_d2.d2.data import DatasetCatalog, MetadataCatalog
from iwin_d2.engine.memory import explain_out_of_memory
from iwin_d2.engine.model_check import check_num_classes, explain_misfit
from iwin_d2.errors import ConfigError, DataError, TrainingError


class Heads(nn.Module):
    def __init__(self, num_classes, of_predictor=None):
        super().__init__()
        self.num_classes = num_classes
        self.box_predictor = nn.Linear(1, 1)
        self.box_predictor.num_classes = of_predictor or num_classes


class Model(nn.Module):
    def __init__(self, *counts):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 6))
        self.roi_heads = Heads(*counts) if counts else None

    def forward(self, x):
        if isinstance(x, Exception):
            raise x
        return self.body(x)


@pytest.fixture
def cfg():
    DatasetCatalog.register("model_check", list)
    MetadataCatalog.get("model_check").thing_classes = ["cat", "dog"]
    yield OmegaConf.create({"dataloader": {"train": {"dataset": {"names": ["model_check"]}}}})
    DatasetCatalog.remove("model_check")
    MetadataCatalog.remove("model_check")


def test_other_numbers_of_classes_are_refused(cfg):
    check_num_classes(Model(2), cfg, "train")
    check_num_classes(Model(), cfg, "train")
    check_num_classes(Model(3), cfg, "test")  # nothing is known of it
    with pytest.raises(ConfigError, match=r"model\.roi_heads is made for 80 .*num_classes=2"):
        check_num_classes(Model(80), cfg, "train")
    with pytest.raises(ConfigError, match=r"model\.roi_heads\.box_predictor is made for 3"):
        check_num_classes(Model(2, 3), cfg, "train")
    cfg.dataloader.train.dataset.names = "never_registered"
    check_num_classes(Model(80), cfg, "train")


def test_segmenters_of_other_numbers_of_classes_are_refused(cfg):
    model = Model(80)
    model.sem_seg_head, model.roi_heads = Heads(2), None
    check_num_classes(model, cfg, "train")
    MetadataCatalog.get("model_check").stuff_classes = ["sky", "road", "tree"]
    message = r"model\.sem_seg_head is made for 2 .*has 3: set model\.sem_seg_head\.num_classes=3"
    with pytest.raises(ConfigError, match=message):
        check_num_classes(model, cfg, "train")
    model.sem_seg_head = Heads(3)
    check_num_classes(model, cfg, "train")
    model.roi_heads = Heads(3)
    with pytest.raises(ConfigError, match=r"set model\.roi_heads\.num_classes=2"):
        check_num_classes(model, cfg, "train")


def test_the_innermost_part_is_named():
    model = Model()
    message = r"part body\.1 cannot take .*RuntimeError: mat1"
    with pytest.raises(ConfigError, match=message), explain_misfit(model):
        model(torch.zeros(2, 3))
    wrapped = nn.Sequential()
    wrapped.add_module("module", model)  # as DistributedDataParallel has it
    with pytest.raises(ConfigError, match=r"part body\.1 cannot take"), explain_misfit(wrapped):
        wrapped(torch.zeros(2, 3))


def test_other_errors_pass():
    model = Model()
    for error in (DataError("bad image"), FloatingPointError("not finite"), KeyboardInterrupt()):
        with pytest.raises(type(error)), explain_misfit(model):
            if isinstance(error, Exception):
                model(error)
            raise error
    with pytest.raises(RuntimeError, match="outside"), explain_misfit(model):
        raise RuntimeError("outside of the model")
    gone = RuntimeError("Connection closed by peer [127.0.0.1]:1234")
    with pytest.raises(RuntimeError, match="closed by peer"), explain_misfit(model):
        model(gone)
    # A signal's handler raises it in the middle of whatever the model does.
    killed = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with pytest.raises(RuntimeError, match="pid 7"), explain_misfit(model):
        model(killed)
    lack = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 1 byte")
    with pytest.raises(TrainingError, match="Out of m"), explain_out_of_memory(model):  # noqa: SIM117
        with explain_misfit(model):
            model(lack)
