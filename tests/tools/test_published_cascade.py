"""A checkpoint of the published Cascade T's keys and shapes, on real images, by the public tools.

Its weights are random: what is looked at is that everything from the file to the results goes.
"""

import gzip
import importlib.util
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from iwin_d2.engine.cli import run_tool

ROOT = Path(__file__).resolve().parents[2]
NUTS = ROOT.parent / "shared/realdata/nuts"
CONFIG = ROOT / "projects/cascade_mask_rcnn/configs/custom_coco.py"
CASCADE_T = "cascade_mask_rcnn_iwin_tiny_patch4_window7_mstrain_480-800_giou_4conv1f_adamw_1x_coco"
needs_images = pytest.mark.skipif(not NUTS.is_dir(), reason="the photographs are not at hand")

TRAIN, TEST = "dataloader.train.mapper.augmentations.1.augmentations", "dataloader.test.mapper"
SMALL = [
    "train.device=cpu",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    f"{TEST}.augmentations.0.short_edge_length=96",
    f"{TRAIN}.0.0.short_edge_length=[96]",
    f"{TRAIN}.1.0.short_edge_length=[96]",
    f"{TRAIN}.1.1.crop_size=[64,96]",
    f"{TRAIN}.1.2.short_edge_length=[96]",
    "model.proposal_generator.post_nms_topk=[40,40]",
    "model.roi_heads.batch_size_per_image=16",
    "model.roi_heads.box_predictors.2.test_topk_per_image=5",
]


def load_tool(name):
    """The main function of a program in tools/."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The file as MMDetection would leave it; removed at the end."""
    with gzip.open(ROOT / "tests/golden/published_manifests.json.gz") as file:
        shapes = json.load(file)["det"][CASCADE_T]["state_dict"]
    # Windows of one pool: they share its storage, in memory and in the file.
    pool = torch.randn(13_000_000, generator=torch.Generator().manual_seed(0)).mul(0.02).half()
    weights = {}
    for number, (key, shape) in enumerate(shapes.items()):
        if key.endswith("num_batches_tracked"):
            weights[key] = torch.tensor(7)
        elif len(shape) == 1:  # norms and biases
            weights[key] = torch.full(shape, float(key.endswith(("weight", "var"))))
        else:
            weights[key] = pool[number : number + math.prod(shape)].view(shape)
    folder = tmp_path_factory.mktemp("published")
    meta = {"CLASSES": tuple(f"class {number}" for number in range(80))}
    torch.save({"meta": meta, "state_dict": weights}, folder / "cascade.pth")
    yield folder / "cascade.pth"
    shutil.rmtree(folder)


@pytest.fixture
def on_nuts(tmp_path):
    """Runs the training tool on the photographs; its output folder is removed at the end."""
    output = tmp_path / "output"

    def run(*arguments):
        flags = [text for text in arguments if text.startswith("--")]
        overrides = [
            *(f"dataset.{part}_images={NUTS}/images" for part in ("train", "test")),
            f"dataset.train_json={NUTS}/annotations/instances_train.json",
            f"dataset.test_json={NUTS}/annotations/instances_val.json",
            f"train.output_dir={output}",
            *SMALL,
            *(text for text in arguments if not text.startswith("--")),
        ]
        main = load_tool("lazyconfig_train_net")
        return main(["--config-file", str(CONFIG), *flags, *overrides]), output

    yield run
    shutil.rmtree(output, ignore_errors=True)


@needs_images
def test_converted_and_evaluated(published, on_nuts, capsys):
    converted = published.with_name("converted.pth")
    arguments = [str(published), str(converted)]
    assert run_tool(lambda: load_tool("convert_checkpoint")(arguments)) == 0
    table = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert table["all"] == ["336", "0", "0"]
    results, output = on_nuts(
        "--eval-only",
        f"train.init_checkpoint={converted}",
        "train.init_options.classes=[46,47,49]",  # of COCO's: banana, apple, orange
    )
    assert 0 <= results["bbox"]["AP"] <= 100 and 0 <= results["segm"]["AP"] <= 100
    found = json.loads((output / "inference/coco_instances_results.json").read_text())
    assert {item["image_id"] for item in found} <= {3, 8, 12, 16} and found
    assert all(math.isfinite(item["score"]) and item["segmentation"] for item in found)


@needs_images
@pytest.mark.slow
def test_trained_on(published, on_nuts):
    """Straight from the published file, which writes a checkpoint of a gigabyte."""
    results, output = on_nuts(
        f"train.init_checkpoint={published}",
        "train.init_options.classes=new",
        "dataloader.train.total_batch_size=2",
        "train.max_iter=2",
    )
    assert math.isfinite(results["bbox"]["AP"])
    log = (output / "log.txt").read_text()
    assert "with 80 classes, under MMDetection's names" in log and "other classes" in log
    trained = torch.load(output / "model_final.pth", weights_only=True, mmap=True)["model"]
    given = torch.load(published, weights_only=True)["state_dict"]
    block = "layers.2.blocks.5.mlp.fc1.weight"
    for theirs, ours in (
        (f"backbone.{block}", f"backbone.bottom_up.{block}"),
        ("roi_head.mask_head.2.convs.3.conv.weight", "roi_heads.mask_head.2.mask_fcn4.weight"),
    ):
        # It has moved, and from where the file is.
        assert 0 < (trained[ours] - given[theirs].float()).abs().max() < 1e-3
