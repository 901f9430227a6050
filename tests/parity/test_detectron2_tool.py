"""Detectron2's own training tool runs our configs, and our tool runs Detectron2's."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shared import CONFIGS, ROOT, write_dataset

from iwin_d2.d2.framework import detectron2_is_installed

OURS = ROOT / "tools" / "lazyconfig_train_net.py"
SOURCE = "IWIN_D2_DETECTRON2_SOURCE"


def find_tool():
    """Detectron2's tools/lazyconfig_train_net.py, or why there is none.

    It is no part of the package: pip puts it beside the package, or it lies in the source.
    """
    if not detectron2_is_installed():
        return None, "Detectron2 is not installed here"
    folders = [Path(importlib.util.find_spec("detectron2").origin).parents[1]]
    if SOURCE in os.environ:
        folders.insert(0, Path(os.environ[SOURCE]))
    for folder in folders:
        if (folder / "tools" / OURS.name).is_file():
            return folder / "tools" / OURS.name, ""
    return None, f"no tools/{OURS.name} in {folders[0]}: set {SOURCE} to Detectron2's source"


TOOL, REASON = find_tool()
needs_detectron2 = pytest.mark.skipif(
    not detectron2_is_installed(), reason="Detectron2 is not installed here"
)


def run(tool, config, *overrides, flags=(), **variables):
    """Run a tool in a process of its own, in this repository; it must succeed."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **variables}
    done = subprocess.run(
        [sys.executable, str(tool), "--config-file", str(config), *flags, *overrides],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def metrics(output):
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    return write_dataset(folder)


@pytest.mark.skipif(TOOL is None, reason=REASON)
def test_detectron2s_tool_trains_our_config_and_native_evaluates_the_result(dataset, tmp_path):
    def overrides(output):
        return [
            *[f"dataset.{part}_json={dataset}" for part in ("train", "test")],
            *[f"dataset.{part}_images={dataset.parent}" for part in ("train", "test")],
            "dataloader.train.total_batch_size=2",
            "dataloader.train.num_workers=0",
            "dataloader.test.num_workers=0",
            f"train.output_dir={output}",
            "train.device=cpu",
            "train.max_iter=3",
            "train.log_period=1",
            "optimizer.lr=0.0003",
        ]

    output, config = tmp_path / "detectron2", CONFIGS / "quickstart.py"
    inference = f"dataloader.evaluator.output_dir={output / 'inference'}"
    run(TOOL, config, *overrides(output), inference)
    rows = metrics(output)
    assert [row["iteration"] for row in rows if "total_loss" in row] == [0, 1, 2]
    losses = {f"loss_{kind}_stage{i}" for kind in ("cls", "box_reg", "mask") for i in range(3)}
    for row in rows[:3]:
        assert {"loss_rpn_cls", "loss_rpn_loc", *losses} <= set(row)
        assert math.isfinite(row["total_loss"])

    again = tmp_path / "native"
    weights = f"train.init_checkpoint={output / 'model_final.pth'}"
    flags = ["--eval-only"]
    arguments = overrides(again)
    run(OURS, config, *arguments, weights, flags=flags, IWIN_D2_FRAMEWORK="native")
    name = "inference/coco_instances_results.json"
    expected, found = (json.loads((folder / name).read_text()) for folder in (output, again))
    assert len(found) == len(expected) > 10
    for a, b in zip(found, expected):
        assert (a["image_id"], a["category_id"]) == (b["image_id"], b["category_id"])
        assert [*a["bbox"], a["score"]] == pytest.approx([*b["bbox"], b["score"]], abs=1e-3)


@pytest.mark.skipif(TOOL is None, reason=REASON)
def test_detectron2s_tool_trains_our_segmenter_and_native_finds_the_same_miou(
    tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(ROOT / "tests/tools")
    from segmentation_scenes import write_scenes

    config = ROOT / "tests/tools/segmentation_config.py"
    overrides = [*write_scenes(tmp_path / "data"), "train.max_iter=3", "train.eval_period=0"]
    output = tmp_path / "detectron2"
    inference = f"dataloader.evaluator.output_dir={output / 'inference'}"
    run(TOOL, config, *overrides, f"train.output_dir={output}", inference)
    rows = [row for row in metrics(output) if "total_loss" in row]
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert {"loss_sem_seg", "loss_sem_seg_aux"} <= set(row)
        assert math.isfinite(row["total_loss"])

    again = tmp_path / "native"
    weights = f"train.init_checkpoint={output / 'model_final.pth'}"
    arguments = [*overrides, weights, f"train.output_dir={again}"]
    run(OURS, config, *arguments, flags=["--eval-only"], IWIN_D2_FRAMEWORK="native")
    expected, found = (
        json.loads((folder / "inference/results.json").read_text()) for folder in (output, again)
    )
    assert found["images"] == expected["images"] == 3
    assert found["sem_seg"]["mIoU"] > 0
    assert found["sem_seg"] == pytest.approx(expected["sem_seg"], abs=0.1)  # but for near ties


@needs_detectron2
def test_our_tool_trains_detectron2s_own_config(dataset, tmp_path):
    """Mask R-CNN, ResNet-50, as Detectron2 ships it; COCO's place is taken by seven images."""
    from detectron2 import model_zoo
    from detectron2.data import MetadataCatalog

    coco = tmp_path / "datasets" / "coco"
    (coco / "annotations").mkdir(parents=True)
    metadata = MetadataCatalog.get("coco_2017_train")
    content = json.loads(dataset.read_text())
    content["categories"] = [
        {"id": category, "name": metadata.thing_classes[number]}
        for category, number in metadata.thing_dataset_id_to_contiguous_id.items()
    ]
    for part in ("train2017", "val2017"):
        (coco / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
        (coco / part).symlink_to(dataset.parent)

    output = tmp_path / "output"
    run(
        OURS,
        model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"),
        "dataloader.train.mapper.augmentations=[]",
        "dataloader.test.mapper.augmentations=[]",
        "dataloader.train.mapper.instance_mask_format=bitmask",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "model.roi_heads.batch_size_per_image=16",
        "model.proposal_generator.post_nms_topk=[50,20]",
        "train.init_checkpoint=",
        "train.device=cpu",
        "train.max_iter=2",
        "train.log_period=1",
        "optimizer.lr=0.0001",
        f"train.output_dir={output}",
        DETECTRON2_DATASETS=str(coco.parent),
        IWIN_D2_FRAMEWORK="detectron2",
    )
    rows = metrics(output)
    losses = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
    assert all(losses <= set(row) and math.isfinite(row["total_loss"]) for row in rows[:2])
    assert (output / "model_final.pth").is_file()
    assert (output / "inference" / "coco_instances_results.json").is_file()
