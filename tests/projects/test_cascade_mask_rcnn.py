"""Every shipped config builds, and says what the published recipe says."""

from pathlib import Path

import pytest
import torch

from iwin_d2.d2.config import instantiate
from iwin_d2.d2.engine import default_argument_parser
from iwin_d2.d2.structures import BoxMode
from iwin_d2.d2.utils.events import EventStorage
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine.detection import load_config, run_detection
from iwin_d2.errors import ConfigError

FOLDER = Path(__file__).resolve().parents[2] / "projects/cascade_mask_rcnn/configs"
COCO = sorted(path.stem for path in FOLDER.glob("*_coco.py") if "iwin" in path.stem)
CUSTOM = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in COCO)
FULL_SIZED = ("custom_coco", "custom_coco_boxes")

# Parameters of the published checkpoints (with 80 classes).
PARAMS = {"t": 87_567_954, "s": 108_907_602, "b": 148_450_354}
DROP_PATH = {"t_1x": 0.0, "t_3x": 0.2, "s_1x": 0.0, "s_3x": 0.2, "b_1x": 0.3, "b_3x": 0.3}


def load(name, overrides=()):
    return load_config(str(FOLDER / f"{name}.py"), list(overrides))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    return generate_shapes_dataset(root, num_train=4, num_val=2, image_size=(96, 128))


@pytest.fixture(scope="module")
def paths(shapes):
    return [
        f"dataset.train_json={shapes.train_json}",
        f"dataset.train_images={shapes.train_images}",
        f"dataset.test_json={shapes.val_json}",
        f"dataset.test_images={shapes.val_images}",
    ]


def test_the_lists_are_complete():
    assert len(COCO) == 6
    assert {"custom_coco", "custom_coco_small", "quickstart"} <= set(CUSTOM)


@pytest.mark.parametrize("name", COCO)
def test_coco_configs(name):
    cfg = load(name)
    size, schedule = name.split("_")[4:6]
    model = instantiate(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == PARAMS[size]
    assert cfg.model.backbone.bottom_up.drop_path_rate == DROP_PATH[f"{size}_{schedule}"]

    epochs = {"1x": (12, 8, 11), "3x": (36, 27, 33)}[schedule]
    end, first, second = (7330 * epoch for epoch in epochs)
    assert cfg.train.max_iter == end
    factor = instantiate(cfg.lr_multiplier)
    for iteration, expected in (
        (0, 0.001),
        (250, 0.5005),
        (500, 1.0),
        (first - 1, 1.0),
        (first, 0.1),
        (second - 1, 0.1),
        (second, 0.01),
        (end - 1, 0.01),
    ):
        assert factor(iteration / end) == pytest.approx(expected, rel=1e-3), iteration

    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    for parameter_name, parameter in model.named_parameters():
        free = parameter_name.startswith("backbone.bottom_up.") and "norm" in parameter_name
        assert (id(parameter) in decayed) is not free, parameter_name
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"]) == (1e-4, (0.9, 0.999))
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, 0.05}
    assert cfg.dataloader.train.total_batch_size == 16
    assert cfg.train.amp.enabled


def test_training_augmentation_of_the_recipe(shapes):
    mapper = instantiate(load(COCO[0]).dataloader.train.mapper)
    from PIL import Image

    picture = Path(shapes.train_images) / "large.jpg"
    Image.new("RGB", (640, 480)).save(picture)
    whole = {
        "bbox": [0.0, 0.0, 640.0, 480.0],  # some of it is in every crop
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "segmentation": [[0.0, 0.0, 640.0, 0.0, 640.0, 480.0, 0.0, 480.0]],
    }
    record = {"file_name": str(picture), "height": 480, "width": 640, "image_id": 0}
    sides = set()
    for _ in range(60):
        mapped = mapper({**record, "annotations": [whole]})
        height, width = mapped["image"].shape[1:]
        assert max(height, width) <= 1333
        # recomputed from the polygon, which fills the picture
        assert mapped["instances"].gt_boxes.area().tolist() == pytest.approx([height * width])
        sides.add(min(height, width))
    # The long side of a narrow crop may keep the short one from reaching its goal.
    assert len(sides & set(range(480, 801, 32))) >= 6


@pytest.mark.parametrize("name", CUSTOM)
def test_custom_configs_follow_the_json(name, paths):
    cfg = load(name, paths)
    model = instantiate(cfg.model)
    heads = model.roi_heads
    assert heads.num_classes == 4
    assert all(predictor.num_classes == 4 for predictor in heads.box_predictor)
    assert all(head.predictor.out_channels == 4 for head in getattr(heads, "mask_head", []))
    cfg.dataloader.train.num_workers = cfg.dataloader.test.num_workers = 0
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert len(batch) == cfg.dataloader.train.total_batch_size
    assert len(list(instantiate(cfg.dataloader.test))) == 2
    instantiate(cfg.dataloader.evaluator)
    cfg.optimizer.params.model = model
    instantiate(cfg.optimizer)
    if name not in FULL_SIZED:  # a step of those takes long
        with EventStorage():
            assert all(torch.isfinite(loss) for loss in model.train()(batch).values())


def test_a_missing_path_is_named(paths, tmp_path):
    config = str(FOLDER / "custom_coco_small.py")
    arguments = ["--config-file", config, *paths[1:], f"train.output_dir={tmp_path}"]
    sentence = "^dataset.train_json is not set: add dataset.train_json=... to the command line.$"
    with pytest.raises(ConfigError, match=sentence):
        run_detection(default_argument_parser().parse_args(arguments))
