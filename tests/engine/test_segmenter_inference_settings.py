"""Sliding windows and several views of segmenters, as configs ask for them."""

import logging
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.evaluation import DatasetEvaluator
from iwin_d2.d2.modeling import SemanticSegmentor
from iwin_d2.engine.config_check import check_config_keys
from iwin_d2.engine.detection import do_test, load_config
from iwin_d2.engine.settings import SlidingWindowSettings, TrainSettings
from iwin_d2.engine.tta import as_evaluated
from iwin_d2.errors import ConfigError
from iwin_d2.modeling.segmentation_inference import SegmenterInference, predicted_labels

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/modeling"))

from toy_segmenter import toy_segmenter  # noqa: E402

ON = "train.sliding_window.enabled=True"


def train_section(**values):
    return OmegaConf.create({"sliding_window": {"enabled": True, **values}})


def picture(height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


# ---- settings -----------------------------------------------------------------------------------


def test_the_common_config_has_them_off_and_complete():
    assert SlidingWindowSettings.read(None) is None
    assert SlidingWindowSettings.read(OmegaConf.create({"sliding_window": {"window": "x"}})) is None
    common = str(ROOT / "configs/common/train.py")
    assert SlidingWindowSettings.read(load_config(common, []).train) is None
    settings = SlidingWindowSettings.read(load_config(common, [ON]).train)
    assert settings == SlidingWindowSettings((512, 512), (341, 341), None)


def test_one_number_is_both_sides():
    settings = SlidingWindowSettings.read(train_section(window=64, stride=[64, 20], batch_size=3))
    assert settings == SlidingWindowSettings((64, 64), (64, 20), 3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("enabled", "yes"),
        ("window", None),
        ("window", 0),
        ("window", [64]),
        ("window", [64, 64, 64]),
        ("window", [64, 0]),
        ("window", [64, 48.5]),
        ("window", [64, True]),
        ("window", "64x64"),
        ("stride", None),
        ("stride", -3),
        ("stride", [20, "20"]),
        ("batch_size", 0),
        ("batch_size", "all"),
    ],
)
def test_nonsense_is_named_before_anything_is_built(key, value):
    train = train_section(**{"window": [64, 64], "stride": [43, 43], key: value})
    for read in (SlidingWindowSettings.read, TrainSettings.read):
        with pytest.raises(ConfigError, match=rf"^train\.sliding_window\.{key}=.* set it to "):
            read(train)


@pytest.mark.parametrize("stride", [[65, 30], [30, 49], 60])
def test_strides_that_leave_holes_are_refused(stride):
    train = train_section(window=[64, 48], stride=stride)
    with pytest.raises(ConfigError, match=r"^train\.sliding_window\.stride=\[\d+, \d+\] leaves"):
        TrainSettings.read(train)


def test_misspelt_keys_are_named():
    cfg = load_config(str(ROOT / "projects/mask_rcnn/configs/quickstart.py"), [])
    cfg.train.sliding_window.strides = 3
    with pytest.raises(ConfigError, match=r"Did you mean train\.sliding_window\.stride\?"):
        check_config_keys(cfg, "c.py")
    del cfg.train.sliding_window.strides
    cfg.train.sliding_windows = {"enabled": True}
    with pytest.raises(ConfigError, match=r"Did you mean train\.sliding_window\?"):
        check_config_keys(cfg, "c.py")


# ---- the model as it is evaluated ---------------------------------------------------------------


def test_plain_segmenters_see_images_one_by_one_without_being_asked():
    model = toy_segmenter()
    evaluated = as_evaluated(model, OmegaConf.create({}))
    assert isinstance(evaluated, SegmenterInference) and evaluated.model is model
    assert evaluated.window is None and not evaluated.labels_only and len(evaluated.views) == 1
    items = [{"image": picture(40, 60)}, {"image": picture(80, 64)}]
    (alone,) = model(items[:1])
    torch.testing.assert_close(evaluated(items)[0]["sem_seg"], alone["sem_seg"].softmax(0))


def test_segmenters_that_work_in_a_way_of_their_own():
    class Own(SemanticSegmentor):
        def forward(self, batched_inputs):
            return []

    model = toy_segmenter()
    model.__class__ = Own
    assert as_evaluated(model, OmegaConf.create({})) is model
    for train in (
        train_section(window=8, stride=8),
        OmegaConf.create({"test_time_augmentation": {"enabled": True}}),
    ):
        with pytest.raises(ConfigError, match="but the model is a Own: set train"):
            as_evaluated(model, train)


def test_windows_and_views_reach_the_inference(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("iwin_d2"), "propagate", True)
    caplog.set_level(logging.INFO, "iwin_d2.engine.tta")
    train = train_section(window=[48, 64], stride=[30, 40], batch_size=2)
    train.test_time_augmentation = {"enabled": True, "scales": [0.5, 1.5], "flip": True}
    model, item = toy_segmenter(), {"image": picture(90, 100)}
    (found,) = as_evaluated(model, train)([item])
    direct = SegmenterInference(model, (48, 64), (30, 40), (0.5, 1.5), True, batch_size=2)
    assert torch.equal(found["sem_seg_labels"], direct([item])[0]["sem_seg_labels"])
    assert max(shape[0] for shape in model.backbone.seen) == 2
    assert "Sliding windows of 48 x 64 pixels (height x width), 30 down and 40 to" in caplog.text
    assert "Test-time augmentation: 4 views of each image, scales 0.5, 1.5, each f" in caplog.text


def test_windows_are_not_for_detectors():
    class Detector(nn.Module):
        roi_heads = None

    with pytest.raises(ConfigError, match=r"but the model is a Detector, .*enabled=False\.$"):
        as_evaluated(Detector(), train_section(window=8, stride=8))


class Labels(DatasetEvaluator):
    """How many pixels of all images have each class."""

    def reset(self):
        self.counts = torch.zeros(7, dtype=torch.long)

    def process(self, inputs, outputs):
        for output in outputs:
            self.counts += torch.bincount(predicted_labels(output).flatten(), minlength=7)

    def evaluate(self):
        return {"labels": {f"class {i}": int(count) for i, count in enumerate(self.counts)}}


def loader():
    return [[{"image": picture(50, 70), "height": 60, "width": 64}]]


def test_evaluation_takes_them():
    cfg = OmegaConf.create({"train": load_config(str(ROOT / "configs/common/train.py"), []).train})
    cfg.dataloader = {"test": L(loader)(), "evaluator": L(Labels)()}
    model = toy_segmenter().train()
    results = [do_test(cfg, model)["labels"]]
    cfg.train.sliding_window = {"enabled": True, "window": [32, 40], "stride": [20, 20]}
    results.append(do_test(cfg, model)["labels"])
    assert model.training
    for result, settings in zip(results, ((), ((32, 40), (20, 20)))):
        (output,) = SegmenterInference(model.eval(), *settings)(loader()[0])
        counts = torch.bincount(predicted_labels(output).flatten(), minlength=7)
        assert list(result.values()) == counts.tolist()
    assert results[0] != results[1]
