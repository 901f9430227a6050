"""What detectors and trainings do on a GPU: memory that runs out, NCCL, RoIAlign, --amp.

Some need packages that machines with a GPU may lack; placeholders stand in for these.
"""

import importlib

import pytest
import torch
from small_models import CALLS, DEVICE
from torch import nn

from iwin_d2.d2.layers import ROIAlign
from iwin_d2.engine.launch import launch
from iwin_d2.engine.memory import explain_out_of_memory
from iwin_d2.errors import ConfigError, TrainingError
from iwin_d2.ops import use_backend


def needs(*packages):
    """Skip where one is missing, or has a placeholder."""
    for package in packages:
        if getattr(pytest.importorskip(package), "is_placeholder", False):
            pytest.skip(f"{package} is not installed")


class Greedy(nn.Module):
    """Wants more memory than any device has."""

    def forward(self, batch):
        """Fail."""
        return torch.empty(2**50, dtype=torch.uint8, device=DEVICE)


def test_memory_that_runs_out_is_said_in_a_sentence():
    model = Greedy()
    with pytest.raises(TrainingError) as caught, explain_out_of_memory(model):
        model([{"image": torch.zeros(3, 8, 12)}])
    sentence = caught.value.sentence
    assert "Out of memory with input images of 3x8x12 (CUDA out of memory." in sentence
    assert "train.amp.enabled=True" in sentence and "\n" not in sentence


@pytest.fixture
def little_memory():
    """The process may have little more memory of the device than it has."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    limit = torch.cuda.memory_reserved() + 256 * 2**20
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_the_operators_run_out_of_memory_and_go_on_afterwards(little_memory):
    small = CALLS[0].inputs()
    with use_backend("compiled"):
        expected = CALLS[0].function(*small)
        qkv = torch.zeros(1, 400, 400, 288, device=DEVICE)  # 176 MiB; the result takes 59 more
        rest = torch.zeros(48 * 2**20, dtype=torch.uint8, device=DEVICE)
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            CALLS[0].function(qkv, small[1])
        del qkv, rest
        assert torch.equal(CALLS[0].function(*small), expected)


def test_more_processes_than_devices_are_refused():
    count = torch.cuda.device_count()
    with pytest.raises(ConfigError, match=rf"this machine has {count}"):
        launch(print, count + 1, backend="nccl")


def test_a_single_process_is_this_one():
    assert launch(lambda: 5, 1) == 5


def test_region_features_repeat_their_gradients(deterministic):
    align = ROIAlign((7, 7), 0.25, 2)
    maps = torch.randn(2, 16, 40, 60, device=DEVICE, requires_grad=True)
    corners = torch.rand(200, 2, device=DEVICE) * 80
    index = torch.arange(200, device=DEVICE).remainder(2)[:, None]
    rois = torch.cat((index, corners, corners + 100), 1)

    def gradient():
        out = align(maps, rois)
        return torch.autograd.grad(out.sin().sum(), maps)[0]

    first = gradient()
    assert first.abs().sum() > 0
    for _ in range(5):
        assert torch.equal(gradient(), first)


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_predictions_in_mixed_precision(tmp_path, amp):
    needs("fvcore", "iopath", "omegaconf", "pycocotools")
    predictor_of = importlib.import_module("iwin_d2").Predictor
    instantiate = importlib.import_module("iwin_d2.d2.config").instantiate
    load_config = importlib.import_module("iwin_d2.engine.detection").load_config
    path = "projects/cascade_mask_rcnn/configs/quickstart.py"
    cfg = load_config(path, ["model.roi_heads.num_classes=3", f"train.device={DEVICE}"])
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    with torch.no_grad():
        for layers in model.roi_heads.box_predictor:  # random weights that are sure of themselves
            layers.cls_score.weight.mul_(200)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    image = torch.randint(256, (160, 200, 3), dtype=torch.uint8).numpy()
    predictor = predictor_of(cfg, str(tmp_path / "weights.pth"), amp=amp)
    assert predictor.device.type == DEVICE
    found = predictor(image)["instances"]
    assert len(found) > 0 and found.pred_boxes.tensor.dtype == torch.float32
    assert found.pred_boxes.tensor.isfinite().all() and found.scores.isfinite().all()
