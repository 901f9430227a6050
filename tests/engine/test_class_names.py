"""Classes of models: how many there are, and what they are called, without the data set."""

import pytest
import torch
from omegaconf import OmegaConf

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.data import DatasetCatalog, Metadata, MetadataCatalog
from iwin_d2.data.classification.image_folder import num_image_folder_classes
from iwin_d2.data.coco import num_coco_classes
from iwin_d2.data.semantic_segmentation import num_classes
from iwin_d2.data.video.records import num_video_classes
from iwin_d2.engine.class_names import (
    find_metadata,
    read_checkpoint_metadata,
    settle_num_classes,
    training_classes,
)
from iwin_d2.errors import ConfigError

CLASSES = ["wall", "floor"]


@pytest.fixture
def class_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(CLASSES))
    return path


def config(classes):
    """A model whose classes are counted, in two places of it."""
    return OmegaConf.create(
        {
            "dataset": {"classes": classes, "json": "missing.json"},
            "model": {
                "sem_seg_head": {
                    "num_classes": L(num_classes)(classes="${dataset.classes}"),
                    "auxiliary": {"num_classes": "${..num_classes}"},
                }
            },
        },
        flags={"allow_objects": True},
    )


def counted(cfg):
    head = cfg.model.sem_seg_head
    return instantiate(head.num_classes), instantiate(head.auxiliary.num_classes)


def test_classes_are_counted_in_their_file(class_file):
    cfg = config(str(class_file))
    settle_num_classes(cfg)
    assert counted(cfg) == (2, 2)


def test_the_checkpoint_s_names_take_the_place_of_the_file():
    cfg = config("???")
    settle_num_classes(cfg, Metadata(name="a", stuff_classes=["a", "b", "c"]))
    assert counted(cfg) == (3, 3)


def test_names_of_objects_say_nothing_of_pixels(class_file):
    cfg = config(str(class_file))
    settle_num_classes(cfg, Metadata(name="a", thing_classes=["a", "b", "c"]))
    assert counted(cfg) == (2, 2)
    cfg.model.roi_heads = {"num_classes": L(num_coco_classes)(json_file="${dataset.json}")}
    both = Metadata(name="b", thing_classes=["a"], stuff_classes=["b", "c", "d"])
    settle_num_classes(cfg, both)
    assert counted(cfg) == (3, 3) and cfg.model.roi_heads.num_classes == 1


@pytest.mark.parametrize(
    ("classes", "reason"),
    [("???", "dataset.classes is not set"), ("nowhere.txt", r"dataset.classes cannot be used \(")],
)
def test_without_either_the_sentence_names_the_setting(classes, reason):
    message = rf"counted in the list of the classes .* but {reason}.*: add dataset\.classes=FILE"
    with pytest.raises(ConfigError, match=message) as error:
        settle_num_classes(config(classes))
    assert str(error.value).endswith("model.sem_seg_head.num_classes=NUMBER.")


def test_a_config_saved_by_training_counts_as_well(class_file, tmp_path):
    LazyConfig.save(config(str(class_file)), str(tmp_path / "config.yaml"))
    cfg = LazyConfig.load(str(tmp_path / "config.yaml"))
    settle_num_classes(cfg, Metadata(name="a", stuff_classes=["a", "b", "c"]))
    assert counted(cfg) == (3, 3)


@pytest.fixture
def data_set():
    """A registered data set that tells its classes when it is loaded."""
    name = "class_names_test"

    def load():
        MetadataCatalog.get(name).stuff_classes = CLASSES
        return []

    DatasetCatalog.register(name, load)
    yield OmegaConf.create(
        {"dataloader": {part: {"dataset": {"names": [name]}} for part in ("train", "test")}}
    )
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_checkpoints_say_what_the_training_set_does(data_set):
    assert training_classes(data_set) == {"stuff_classes": CLASSES}
    assert find_metadata(data_set).stuff_classes == CLASSES


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"metadata": {"stuff_classes": CLASSES}}, "stuff_classes"),
        ({"metadata": {"thing_classes": CLASSES}}, "thing_classes"),
        (
            {"meta": {"CLASSES": tuple(CLASSES)}, "state_dict": {"decode_head.x": torch.zeros(1)}},
            "stuff_classes",
        ),
        (
            {"meta": {"CLASSES": tuple(CLASSES)}, "state_dict": {"roi_head.x": torch.zeros(1)}},
            "thing_classes",
        ),
        (
            {"meta": {"CLASSES": tuple(CLASSES)}, "state_dict": {"cls_head.x": torch.zeros(1)}},
            "classes",
        ),
        ({"metadata": {"classes": CLASSES}}, "classes"),
        ({"meta": {"CLASSES": tuple(CLASSES)}, "state_dict": [1]}, "thing_classes"),
    ],
)
def test_checkpoints_of_all_tasks_are_told_apart(tmp_path, content, kind):
    torch.save(content, tmp_path / "x.pth")
    found = read_checkpoint_metadata(str(tmp_path / "x.pth"))
    assert found.get(kind) == CLASSES
    others = {"stuff_classes", "thing_classes", "classes"} - {kind}
    assert not any(found.get(other) for other in others)


def test_checkpoints_without_names_say_nothing(tmp_path):
    torch.save({"model": {}, "metadata": {"stuff_classes": []}}, tmp_path / "x.pth")
    assert read_checkpoint_metadata(str(tmp_path / "x.pth")) is None


# ---- classifiers --------------------------------------------------------------------------------


def classifier(count, **evaluator):
    return OmegaConf.create(
        {"model": {"num_classes": count}, "dataloader": {"evaluator": evaluator}},
        flags={"allow_objects": True},
    )


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (L(num_image_folder_classes)(root="nowhere"), "the folder of images .*=FOLDER"),
        (L(num_video_classes)(list_file="nowhere"), "the list of the videos .*=FILE"),
        (L(num_classes)(classes="nowhere"), "the list of the classes .*=FILE"),
    ],
    ids=["folder", "list", "file"],
)
def test_a_classifier_s_names_take_the_place_of_its_data(count, message):
    cfg = classifier(count)
    with pytest.raises(ConfigError, match=message):
        settle_num_classes(cfg, Metadata(name="a", thing_classes=["of objects"]))
    settle_num_classes(cfg, Metadata(name="b", classes=["a", "b", "c"]))
    assert cfg.model.num_classes == 3


def test_without_names_a_classifier_s_folders_are_counted(tmp_path):
    for name in CLASSES:
        (tmp_path / name).mkdir()
    cfg = classifier(L(num_image_folder_classes)(root=str(tmp_path)))
    settle_num_classes(cfg)
    assert instantiate(cfg.model.num_classes) == 2


def test_a_classifier_s_names_are_its_evaluator_s(tmp_path):
    cfg = classifier(2, class_names=CLASSES)
    assert training_classes(cfg) == {"classes": CLASSES}
    assert find_metadata(cfg).classes == CLASSES
    torch.save({"model": {}, "metadata": training_classes(cfg)}, tmp_path / "x.pth")
    assert read_checkpoint_metadata(str(tmp_path / "x.pth")).classes == CLASSES


def test_names_that_cannot_be_read_are_none():
    cfg = classifier(2, class_names=L(num_classes)(classes="nowhere"))
    assert training_classes(cfg) is None and find_metadata(cfg) is None
