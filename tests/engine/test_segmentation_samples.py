"""Predictions of segmenters drawn beside the truth."""

import logging

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import DatasetCatalog, MetadataCatalog
from iwin_d2.engine import samples as module
from iwin_d2.engine.samples import ObjectSamples, SegmentationSamples, make_samples
from iwin_d2.engine.segment_drawing import segment_color

CLASSES = ["sky", "ground", "box"]


@pytest.fixture
def record(tmp_path):
    """A grey image; its label file counts from 1, with 0 for what is ignored."""
    labels = np.full((48, 64), 2, dtype=np.uint8)
    labels[:24], labels[:, :16] = 1, 0
    Image.fromarray(labels).save(tmp_path / "scene.png")
    Image.fromarray(np.full((48, 64, 3), 128, dtype=np.uint8)).save(tmp_path / "scene.jpg")
    return {
        "file_name": str(tmp_path / "scene.jpg"),
        "sem_seg_file_name": str(tmp_path / "scene.png"),
        "image_id": "scene",
        "height": 48,
        "width": 64,
        "num_classes": 3,
        "reduce_zero_label": True,
    }


@pytest.fixture
def log(caplog):
    """The messages of this package, whether or not its log goes up to the root."""
    logger = logging.getLogger("iwin_d2.engine")
    level = logger.level
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)


def drawn(record, labels):
    samples = SegmentationSamples([record], CLASSES)
    output = {"sem_seg_labels": torch.as_tensor(labels)}
    samples.process([{"image_id": "other"}, record], [{}, output])
    assert samples.evaluate() is None
    ((name, picture),) = samples.pictures()
    assert name == "samples/1_scene" and picture.dtype == np.uint8
    return picture.astype(int)


def share(picture, number):
    """How many pixels have about the colour of a class on grey."""
    color = 0.45 * 128 + 0.55 * 255 * np.array(segment_color(number))
    return (np.abs(picture - color).max(2) < 12).mean()


def test_truth_and_prediction_show_their_classes(record):
    picture = drawn(record, np.full((48, 64), 2))
    width = picture.shape[1]
    assert width > 900
    left, right = picture[60:420, : width // 2], picture[60:420, width // 2 :]
    assert share(left, 0) > 0.15 and share(left, 1) > 0.15 and share(left, 2) == 0
    assert share(right, 2) > 0.7 and share(right, 0) == share(right, 1) == 0


def test_pixels_that_count_make_the_title(record, monkeypatch):
    titles, legends = [], []
    compose = module.compose

    def note(panels, **options):
        titles.append([panel.title for panel in panels])
        legends.append([name for name, _ in options["legend"]])
        return compose(panels, **options)

    monkeypatch.setattr(module, "compose", note)
    drawn(record, np.zeros((48, 64), dtype=np.int64))
    assert titles == [["ground truth", "predicted, 50.0 % of the pixels right"]]
    assert legends == [["sky", "ground", "ignored"]]
    record["num_classes"], record["label_values"] = 3, {0: 0, 1: 255, 2: 255, 3: 1, 4: 2}
    record["reduce_zero_label"] = False
    Image.fromarray(np.full((48, 64), 2, np.uint8)).save(record["sem_seg_file_name"])
    drawn(record, np.zeros((48, 64), dtype=np.int64))
    assert titles[1] == ["ground truth", "predicted"]


def test_large_predictions_are_kept_small(record):
    samples = SegmentationSamples([record], CLASSES)
    kept = samples._keep({"sem_seg": torch.rand(3, 2000, 1500)}, "scene")
    assert kept.shape == (500, 375) and kept.dtype == np.int16
    many = [f"class {number}" for number in range(60)]
    samples = SegmentationSamples([record], many)
    labels = torch.arange(48 * 64).reshape(48, 64) % 60
    samples.process([record], [{"sem_seg_labels": labels}])
    samples.evaluate()
    assert len(samples.pictures()) == 1


def test_what_cannot_be_drawn_is_logged(record, log):
    samples = SegmentationSamples([record], CLASSES)
    samples.process([record], [{"instances": None}])
    assert samples.pictures() == []
    assert "Sample predictions cannot be drawn (ConfigError: The model gives" in log.text


@pytest.fixture
def config(record):
    """Data sets of either kind, by a dataloader of the test."""
    names = {"objects": "thing_classes", "labels": "stuff_classes"}
    for name, kind in names.items():
        DatasetCatalog.register(f"samples_{name}", list)
        MetadataCatalog.get(f"samples_{name}").set(**{kind: CLASSES})

    def make(name, *records):
        dataset = L(_records)(names=f"samples_{name}", records=list(records))
        return OmegaConf.create(
            {"dataloader": {"test": {"dataset": dataset}}}, flags={"allow_objects": True}
        )

    yield make
    for name in names:
        DatasetCatalog.remove(f"samples_{name}")
        MetadataCatalog.remove(f"samples_{name}")


def _records(names, records):
    return [dict(record) for record in records]


def test_the_data_set_decides_what_is_drawn(config, record):
    plain = {"file_name": "a.png", "image_id": 1}
    labelled = {**plain, "sem_seg_file_name": "b.png"}
    annotated = {**plain, "annotations": []}
    assert type(make_samples(config("labels", labelled), 2)) is SegmentationSamples
    assert type(make_samples(config("objects", annotated), 2)) is ObjectSamples
    assert make_samples(config("labels", labelled, plain), 2) is None
    assert make_samples(config("objects", labelled), 2) is None
    assert make_samples(config("labels"), 2) is None
    assert make_samples(config("labels", labelled), 0) is None
