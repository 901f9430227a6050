"""The data sets of the detectors' configs: COCO, LVIS, Pascal VOC, images without objects."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iwin_d2.d2.config import instantiate
from iwin_d2.d2.data import DatasetCatalog, MetadataCatalog
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.utils.events import EventStorage
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import ConfigError, DataError

PROJECTS = Path(__file__).resolve().parents[2] / "projects"
MASK_RCNN = PROJECTS / "mask_rcnn/configs"
CASCADE = PROJECTS / "cascade_mask_rcnn/configs"
LVIS = (
    MASK_RCNN / "mask_rcnn_iwin_t_1x_lvis_v1.py",
    CASCADE / "cascade_mask_rcnn_iwin_t_1x_lvis_v1.py",
)
VOC = (MASK_RCNN / "faster_rcnn_iwin_t_voc0712.py", CASCADE / "cascade_rcnn_iwin_t_voc0712.py")

needs_detectron2 = pytest.mark.skipif(
    not USE_DETECTRON2, reason="Detectron2 alone has LVIS and Pascal VOC"
)

# Run in a process of its own, for Detectron2 and native register their data sets when they are
# imported.
DRIVER = """
import json, sys
from iwin_d2.d2.config import instantiate
from iwin_d2.engine.detection import load_config
from iwin_d2.engine.model_check import dataset_names

config, evaluate = sys.argv[1:]
cfg = load_config(config, ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0",
                           "dataloader.train.total_batch_size=2"])
found = {part: dataset_names(cfg, part) for part in ("train", "test")}
batch = next(iter(instantiate(cfg.dataloader.train)))
found["batch"] = [[x["file_name"], x["instances"].gt_classes.tolist()] for x in batch]
test = list(instantiate(cfg.dataloader.test))
found["tested"] = [x["file_name"] for batch in test for x in batch]
evaluator = instantiate(cfg.dataloader.evaluator)
found["evaluator"] = type(evaluator).__name__
if evaluate == "first-half":
    import torch
    from iwin_d2.d2.data import DatasetCatalog
    from iwin_d2.d2.structures import Boxes, BoxMode, Instances
    evaluator.reset()
    records = {x["image_id"]: x for x in DatasetCatalog.get(found["test"][0])}
    for inputs in test:
        for item in inputs:
            objects = records[item["image_id"]]["annotations"][::2]
            output = Instances((item["height"], item["width"]))
            output.pred_boxes = Boxes([x["bbox"] for x in objects])
            output.pred_classes = torch.tensor([x["category_id"] for x in objects])
            output.scores = torch.linspace(0.9, 0.1, len(objects))
            evaluator.process([item], [{"instances": output}])
    found["results"] = evaluator.evaluate()
print("FOUND", json.dumps(found))
"""


def run_driver(config, datasets, evaluate=""):
    run = subprocess.run(
        [sys.executable, "-c", DRIVER, str(config), evaluate],
        env={**os.environ, "DETECTRON2_DATASETS": str(datasets)},
        cwd=PROJECTS.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("FOUND ")]
    assert lines, run.stdout + run.stderr
    return json.loads(lines[0].removeprefix("FOUND "))


def write_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def coco_categories():
    """COCO's own on Detectron2, which knows their names; as many others on native."""
    metadata = MetadataCatalog.get("coco_2017_train")
    numbers = metadata.get("thing_dataset_id_to_contiguous_id") or {i + 1: i for i in range(80)}
    names = metadata.get("thing_classes") or [f"class {i}" for i in range(80)]
    return [{"id": key, "name": names[number]} for key, number in numbers.items()]


def test_coco_is_where_detectron2_looks_for_it(tmp_path):
    categories = coco_categories()
    box = {"bbox": [10, 10, 60, 50], "area": 3000, "iscrowd": 0}
    box["segmentation"] = [[10, 10, 70, 10, 70, 60, 10, 60]]
    for part, images in (("train2017", 3), ("val2017", 2)):
        for number in range(1, images + 1):
            write_image(tmp_path / "coco" / part / f"{number:012}.jpg")
        content = {
            "images": [
                {"id": n, "file_name": f"{n:012}.jpg", "width": 160, "height": 120}
                for n in range(1, images + 1)
            ],
            # None on the first image.
            "annotations": [
                {**box, "id": n, "image_id": n, "category_id": categories[n]["id"]}
                for n in range(2, images + 1)
            ],
            "categories": categories,
        }
        folder = tmp_path / "coco" / "annotations"
        folder.mkdir(exist_ok=True)
        (folder / f"instances_{part}.json").write_text(json.dumps(content))
    found = run_driver(MASK_RCNN / "mask_rcnn_iwin_t_1x_coco.py", tmp_path)
    assert (found["train"], found["test"]) == (["coco_2017_train"], ["coco_2017_val"])
    train, val = tmp_path / "coco/train2017", tmp_path / "coco/val2017"
    assert {Path(name) for name, _ in found["batch"]} == {
        train / "000000000002.jpg",
        train / "000000000003.jpg",
    }
    assert {classes[0] for _, classes in found["batch"] if classes} <= {2, 3}
    assert {Path(name) for name in found["tested"]} == set(val.glob("*.jpg"))
    assert found["evaluator"] == "CompletingCOCOEvaluator"


@pytest.mark.skipif(USE_DETECTRON2, reason="Detectron2 has them")
@pytest.mark.parametrize("config", [*LVIS, *VOC], ids=lambda path: path.stem)
def test_native_says_that_lvis_and_voc_are_detectron2s(config):
    with pytest.raises(ConfigError, match=r"^LVIS and Pascal VOC .* run this on Detectron2 \(docs"):
        load_config(str(config), [])


@needs_detectron2
@pytest.mark.parametrize("config", LVIS, ids=lambda path: path.stem)
def test_lvis_configs(config):
    cfg = load_config(str(config), [])
    with torch.device("meta"):
        heads = instantiate(cfg.model).roi_heads
    assert {m.num_classes for m in heads.modules() if hasattr(m, "num_classes")} == {1203}
    predictors = [m for m in heads.modules() if hasattr(m, "test_topk_per_image")]
    assert predictors[-1].test_topk_per_image == 300 and predictors[-1].test_score_thresh < 0.001
    assert cfg.dataloader.train.dataset.names in DatasetCatalog
    assert MetadataCatalog.get(cfg.dataloader.test.dataset.names).evaluator_type == "lvis"


@needs_detectron2
def test_lvis_repeats_images_of_rare_classes():
    """The sampler as configured, on records where the records of LVIS would stand."""
    cfg = load_config(str(LVIS[0]), [])
    config = cfg.dataloader.train.sampler.repeat_factors
    records = [{"annotations": [{"category_id": 0}]}] * 4000
    records += [{"annotations": [{"category_id": 1}]}]
    factors = config._target_(records, config.repeat_thresh)
    assert factors[:-1].unique().tolist() == [1.0]
    assert factors[-1] == pytest.approx(math.sqrt(0.001 * 4001))


@needs_detectron2
def test_lvis_without_its_package_is_one_sentence():
    if importlib.util.find_spec("lvis"):
        pytest.skip("the package lvis is installed")
    cfg = load_config(str(LVIS[0]), [])
    with pytest.raises(DataError, match=r"^Data set lvis_v1_val .* without the package 'lvis'"):
        instantiate(cfg.dataloader.test.dataset)


def write_voc(root, year, splits):
    """Two images a split; of each class two objects in all, the second one right of the first."""
    names = MetadataCatalog.get(f"voc_{year}_trainval").thing_classes
    folder = root / f"VOC{year}"
    for name in ("Annotations", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for split, first in splits.items():
        stems = [f"{first:06}", f"{first + 1:06}"]
        (folder / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for stem, classes in zip(stems, (names[:10], names[10:])):
            write_image(folder / "JPEGImages" / f"{stem}.jpg")
            objects = [
                f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>"
                f"<difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{10 * row + 1}</ymin>"
                f"<xmax>{x + 40}</xmax><ymax>{10 * row + 10}</ymax></bndbox></object>"
                for row, name in enumerate(classes)
                for x in (0, 80)
            ]
            (folder / "Annotations" / f"{stem}.xml").write_text(
                "<annotation><size><width>160</width><height>120</height></size>"
                f"{''.join(objects)}</annotation>"
            )


@needs_detectron2
def test_voc_is_trained_on_both_years_and_measured_by_the_metric_of_2007(tmp_path):
    write_voc(tmp_path, 2007, {"trainval": 1, "test": 3})
    write_voc(tmp_path, 2012, {"trainval": 5})
    found = run_driver(VOC[0], tmp_path, "first-half")
    assert found["train"] == ["voc_2007_trainval", "voc_2012_trainval"]
    assert {Path(name).parts[-3] for name, _ in found["batch"]} <= {"VOC2007", "VOC2012"}
    assert all(len(classes) > 0 and max(classes) < 20 for _, classes in found["batch"])
    assert sorted(Path(name).stem for name in found["tested"]) == ["000003", "000004"]
    # Half of the objects found, nothing wrong: 6 of the 11 points of recall that 2007 averages
    # (0, 0.1, ... 0.5); the area under the curve, the later metric, would be 50.
    assert found["results"]["bbox"]["AP50"] == pytest.approx(100 * 6 / 11)


@needs_detectron2
@pytest.mark.parametrize("config", VOC, ids=lambda path: path.stem)
def test_voc_configs(config):
    cfg = load_config(str(config), [])
    with torch.device("meta"):
        heads = instantiate(cfg.model).roi_heads
    assert {m.num_classes for m in heads.modules() if hasattr(m, "num_classes")} == {20}
    assert not hasattr(heads, "mask_head") and cfg.dataloader.train.mapper.recompute_boxes is False
    factor = instantiate(cfg.lr_multiplier)
    steps = [factor(iteration / 18000) for iteration in (11999, 12000, 15999, 16000)]
    assert steps == pytest.approx([1.0, 0.1, 0.1, 0.01])


@pytest.fixture(scope="module")
def shapes_with_a_negative(tmp_path_factory):
    """Four training images; image 1 has no objects, image 2 a crowd alone."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    shapes = generate_shapes_dataset(root, num_train=4, num_val=2, image_size=(96, 128))
    content = json.loads(Path(shapes.train_json).read_text())
    kept = [a for a in content["annotations"] if a["image_id"] > 2]
    crowd = next(a for a in content["annotations"] if a["image_id"] == 2)
    content["annotations"] = [*kept, {**crowd, "iscrowd": 1}]
    Path(shapes.train_json).write_text(json.dumps(content))
    return [
        f"dataset.train_json={shapes.train_json}",
        f"dataset.train_images={shapes.train_images}",
        f"dataset.test_json={shapes.val_json}",
        f"dataset.test_images={shapes.val_images}",
        "dataloader.train.num_workers=0",
        "dataloader.train.aspect_ratio_grouping=False",
        "dataloader.train.mapper.augmentations.1.short_edge_length=[96]",
    ]


@pytest.mark.parametrize(
    "folder, name",
    [
        (MASK_RCNN, "custom_coco_small"),
        (MASK_RCNN, "custom_coco_small_boxes"),
        (CASCADE, "custom_coco_small"),
    ],
    ids=["mask_rcnn", "faster_rcnn", "cascade_mask_rcnn"],
)
def test_images_without_objects_are_kept_or_left_out(folder, name, shapes_with_a_negative):
    config, size = str(folder / f"{name}.py"), "dataloader.train.total_batch_size"
    cfg = load_config(config, [*shapes_with_a_negative, f"{size}=2"])
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert {item["image_id"] for item in batch} == {3, 4}

    keep = "dataloader.train.dataset.filter_empty=False"
    cfg = load_config(config, [*shapes_with_a_negative, keep, f"{size}=4"])
    batch = next(iter(instantiate(cfg.dataloader.train)))
    counts = {item["image_id"]: len(item["instances"]) for item in batch}
    assert set(counts) == {1, 2, 3, 4} and counts[1] == counts[2] == 0 < min(counts[3], counts[4])

    model = instantiate(cfg.model).train()
    negative = [item for item in batch if item["image_id"] < 3]
    for inputs in (batch, negative):
        model.zero_grad()
        with EventStorage():
            losses = model(inputs)
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        # Else DistributedDataParallel would wait for what does not come.
        assert all(parameter.grad is not None for parameter in model.parameters())
    boxes = [loss for name, loss in losses.items() if "box_reg" in name or "rpn_loc" in name]
    assert all(loss == 0 for loss in boxes) and losses["loss_rpn_cls"] > 0
