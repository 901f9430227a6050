"""What a training writes for TensorBoard, read back by TensorBoard's own reader."""

import importlib
import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from resume_driver import make_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.data import build_detection_test_loader, get_detection_dataset_dicts
from iwin_d2.d2.structures import Boxes, Instances
from iwin_d2.d2.utils.events import EventStorage, TensorboardXWriter
from iwin_d2.data.coco import register_coco
from iwin_d2.data.coco_evaluator import CompletingCOCOEvaluator
from iwin_d2.data.mapper import DetectionMapper
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine import samples as samples_module
from iwin_d2.engine.detection import do_train
from iwin_d2.engine.samples import ObjectSamples, make_samples
from iwin_d2.engine.settings import TrainSettings
from iwin_d2.engine.tensorboard import TensorBoardWriter, make_writers
from iwin_d2.errors import ConfigError


class Middle(nn.Module):
    """Predicts a box in the middle of an image, with a mask, and one of low score."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, batch):
        if self.training:
            return {"loss_scale": self.scale.square()}
        return [{"instances": self.detect(item["height"], item["width"])} for item in batch]

    def detect(self, height, width):
        box = torch.tensor([width / 4, height / 4, width * 3 / 4, height * 3 / 4])
        masks = torch.zeros(2, height, width, dtype=torch.bool)
        masks[:, height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = True
        return Instances(
            (height, width),
            pred_boxes=Boxes(torch.stack([box, box])),
            scores=torch.tensor([0.9, 0.3]),
            pred_classes=torch.tensor([1, 0]),
            pred_masks=masks,
        )


def without_annotations(names):
    return [{"image_id": 1, "file_name": "a.png"}]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "data"
    generate_shapes_dataset(folder, num_train=4, num_val=3, image_size=(48, 64))
    return folder


@pytest.fixture
def config(shapes, tmp_path):
    """Four steps, evaluated after the second and the last."""
    cfg = make_config(shapes, tmp_path / "output", max_iter=4)
    cfg.model = L(Middle)()
    cfg.dataloader.train.num_workers = 0
    names = L(register_coco)(
        name="tensorboard_test",
        json_file=str(shapes / "annotations/instances_val.json"),
        image_root=str(shapes / "val"),
    )
    cfg.dataloader.test = L(build_detection_test_loader)(
        dataset=L(get_detection_dataset_dicts)(names=names, filter_empty=False),
        mapper=L(DetectionMapper)(is_train=False, augmentations=[], image_format="RGB"),
    )
    cfg.dataloader.evaluator = L(CompletingCOCOEvaluator)(dataset_name="${..test.dataset.names}")
    cfg.train.update(
        amp={"enabled": False},
        ema={"enabled": False},
        accumulation_steps=1,
        deterministic=False,
        eval_period=2,
        tensorboard={"sample_images": 2},
    )
    (tmp_path / "output").mkdir()
    return cfg


@pytest.fixture
def log(caplog):
    """The messages of this module's logger, whether or not they go up to the root."""
    logger = logging.getLogger("iwin_d2.engine")
    level = logger.level
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)


def times(log, text) -> int:
    """How often something was logged; the root's handler may have it, too."""
    return len({id(record) for record in log.records if text in record.getMessage()})


def read(folder) -> EventAccumulator:
    """All events in a folder."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def steps(events, name):
    return [event.step for event in events.Scalars(name)]


def decode(event) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))


def test_losses_results_rate_and_pictures_are_written(config):
    results = do_train(config)
    events = read(config.train.output_dir)
    assert steps(events, "total_loss") == [0, 1, 2, 3]
    assert steps(events, "lr") == [0, 1, 2, 3]
    found = events.Scalars("bbox/AP50")
    assert [event.step for event in found] == [1, 4]
    assert found[-1].value == pytest.approx(results["bbox"]["AP50"])
    names = events.Tags()["images"]
    assert names == ["samples/1_000001", "samples/2_000003"]  # spread over the three
    for name in names:
        assert [event.step for event in events.Images(name)] == [1, 4]
        picture = decode(events.Images(name)[0])
        assert picture.shape[1] == events.Images(name)[0].width > 500


def test_truth_and_confident_predictions_are_in_the_pictures(config, shapes):
    record = {
        "file_name": str(shapes / "val" / "000001.jpg"),
        "image_id": 1,
        "annotations": [],
    }
    width, height = Image.open(record["file_name"]).size
    instances = Middle().detect(height, width)
    item = {"image_id": 1}

    def drawn(kept):
        samples = ObjectSamples([record], ["a", "b"])
        samples.process([{"image_id": 2}, item], [{"instances": instances[[0]]}, kept])
        assert samples.evaluate() is None
        ((name, picture),) = samples.pictures()
        assert name == "samples/1_000001"
        return picture.astype(int)

    none = drawn({"instances": instances[torch.tensor([False, False])]})
    both = drawn({"instances": instances})
    assert np.array_equal(both, drawn({"instances": instances[torch.tensor([True, False])]}))
    left, right = np.split(np.abs(none - both).max(2), [none.shape[1] // 2], axis=1)
    assert left.max() == 0
    assert (right[70:] > 40).sum() > 0.1 * right.size


def test_a_resumed_training_hides_what_it_writes_again(config):
    config.train.checkpointer = {"period": 2, "max_to_keep": 9}
    config.train.max_iter = 3
    do_train(config)
    folder = Path(config.train.output_dir)
    (folder / "last_checkpoint").write_text("model_0000001.pth")  # as if killed after the third
    config.train.max_iter = 5
    do_train(config, resume=True)
    events = read(folder)
    assert len(list(folder.glob("events.*"))) == 2
    assert steps(events, "total_loss")[-3:] == [2, 3, 4]
    assert len(steps(events, "total_loss")) <= 6
    assert steps(events, "bbox/AP") == [1, 3, 5]
    assert [e.step for e in events.Images("samples/1_000001")] == [1, 3, 5]


def test_results_at_the_end_of_a_shorter_training_are_kept(config):
    config.train.max_iter = 3
    do_train(config)
    config.train.max_iter = 5
    do_train(config, resume=True)
    assert steps(read(config.train.output_dir), "bbox/AP") == [1, 3, 3, 5]


def test_without_tensorboard_a_training_says_so_once_and_goes_on(config, log, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name)
    )
    assert do_train(config)["bbox"]
    assert times(log, "TensorBoard is not installed") == 1
    assert "pip install tensorboard" in log.text
    assert not list(Path(config.train.output_dir).glob("events.*"))
    assert (Path(config.train.output_dir) / "metrics.json").read_text().count("total_loss") == 4


def test_a_tensorboard_that_does_not_import_is_as_good_as_none(tmp_path, log, monkeypatch):
    def fail(self):
        raise ImportError("cannot import name 'x' from 'tensorboard'")

    monkeypatch.setattr(TensorboardXWriter, "_writer", property(fail))
    writers, writer = make_writers(str(tmp_path), 5, 0, tensorboard=True)
    assert writers[-1] is writer
    with EventStorage() as storage:
        for storage.iter in range(2):
            storage.put_scalar("loss", 1.0)
            writer.write()
        writer.close()
    assert times(log, "TensorBoard cannot be used (ImportError: cannot import name") == 1


def test_it_can_be_switched_off(config):
    config.train.tensorboard.enabled = False
    do_train(config)
    assert not list(Path(config.train.output_dir).glob("events.*"))


def test_no_picture_is_worth_a_training(config, log, monkeypatch):
    monkeypatch.setattr(samples_module, "draw_tile", lambda *args: 1 / 0)
    assert do_train(config)["bbox"]
    assert "Sample predictions cannot be drawn (ZeroDivisionError" in log.text
    monkeypatch.setattr(Middle, "detect", lambda self, height, width: None)
    samples = ObjectSamples([{"image_id": 1, "file_name": "x.png"}], ["a"])
    samples.process([{"image_id": 1}], [{"panoptic": 1}])
    samples.evaluate()
    assert samples.pictures() == []
    assert "Sample predictions cannot be drawn (KeyError: 'instances')" in log.text


def test_the_predictions_of_all_processes_come_together(monkeypatch, shapes):
    records = [
        {"file_name": str(shapes / "val" / f"00000{n}.jpg"), "image_id": n, "annotations": []}
        for n in (1, 2)
    ]
    here, there = (ObjectSamples(records, ["a", "b"]) for _ in range(2))
    for samples, number in ((here, 2), (there, 1)):
        instances = Middle().detect(50, 50)
        samples.process([{"image_id": number}], [{"instances": instances}])
    both = [(here._found, here._problem), (there._found, there._problem)]
    monkeypatch.setattr(samples_module.comm, "gather", lambda mine: both)
    here.evaluate()
    assert [name for name, _ in here.pictures()] == ["samples/1_000001", "samples/2_000002"]
    here.reset()
    assert here.pictures() == []


def test_data_sets_without_objects_give_no_pictures(config, log):
    config.train.tensorboard.sample_images = 0
    assert make_samples(config, 0) is None
    config.dataloader.test = L(list)()
    assert make_samples(config, 2) is None
    config.dataloader.test = {"dataset": L(without_annotations)(names="tensorboard_test")}
    assert make_samples(config, 2) is None
    assert "the test set has neither objects nor labels" in log.text


def test_settings_that_make_no_sense_are_named(config):
    settings = TrainSettings.read(config.train)
    assert (settings.tensorboard, settings.sample_images) == (True, 2)
    config.train.tensorboard = {"sample_images": -1}
    with pytest.raises(ConfigError, match=r"train\.tensorboard\.sample_images=-1 makes no sense"):
        TrainSettings.read(config.train)
    config.train.tensorboard = {"enabled": "maybe"}
    with pytest.raises(ConfigError, match=r"train\.tensorboard\.enabled=maybe makes no sense"):
        TrainSettings.read(config.train)


def test_pictures_wait_for_the_next_writing(tmp_path):
    writer = TensorBoardWriter(str(tmp_path))
    picture = np.full((5, 7, 3), 200, dtype=np.uint8)
    with EventStorage() as storage:
        writer.add_pictures([("samples/a", picture)], iteration=3)
        storage.put_scalar("loss", 1.0)
        writer.write()
        writer.write()
        writer.close()
    (event,) = read(tmp_path).Images("samples/a")
    assert event.step == 3
    assert np.array_equal(decode(event), picture)
