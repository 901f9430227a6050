"""train.init_checkpoint of a segmenter: files of classifiers, detectors and segmenters."""

import importlib.util
from pathlib import Path

import pytest
import torch

from iwin_d2.d2.config import instantiate
from iwin_d2.data.segmentation_shapes import generate_segmentation_dataset
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "projects/semantic_segmentation/configs/custom_folder_small.py"
DETECTOR = ROOT / "projects/mask_rcnn/configs/custom_coco_small.py"
BACKBONE = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}


@pytest.fixture(scope="module")
def overrides(tmp_path_factory):
    """Of the config: the data, and a training of one step of a tiny model."""
    root = tmp_path_factory.mktemp("shapes") / "data"
    shapes = generate_segmentation_dataset(root, num_train=2, num_val=1, image_size=(64, 64))
    return [
        f"dataset.train_images={shapes.train_images}",
        f"dataset.train_labels={shapes.train_labels}",
        f"dataset.test_images={shapes.val_images}",
        f"dataset.test_labels={shapes.val_labels}",
        f"dataset.classes={shapes.classes}",
        *(f"model.backbone.{key}={value}" for key, value in BACKBONE.items()),
        "model.sem_seg_head.channels=8",
        "model.sem_seg_head.auxiliary.channels=8",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "train.device=cpu",
        "train.max_iter=1",
        "train.eval_period=0",
        "optimizer.lr=0.0",
    ]


@pytest.fixture
def run(overrides, tmp_path):
    """Runs the training tool; returns its log and the trained model's weights."""
    path = ROOT / "tools/lazyconfig_train_net.py"
    spec = importlib.util.spec_from_file_location("tool_lazyconfig_train_net", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        output = tmp_path / "output"
        files = ["--config-file", str(CONFIG), f"train.output_dir={output}"]
        tool.main([*files, *overrides, *arguments])
        final = torch.load(output / "model_final.pth", weights_only=True)["model"]
        return (output / "log.txt").read_text(), final

    return run


def save(config, path, **changes):
    """Write a model of a config; returns its state dict."""
    cfg = load_config(str(config), [f"model.{key}={value}" for key, value in changes.items()])
    backbone = cfg.model.backbone.get("bottom_up", cfg.model.backbone)
    backbone.update(BACKBONE)
    state = instantiate(cfg.model).state_dict()
    torch.save({"model": state}, path)
    return state


def test_a_classifier(run, tmp_path):
    """Its backbone; the heads and the norms behind stages are new, and the log says so."""
    cfg = load_config(str(CONFIG), ["model.sem_seg_head.num_classes=3"])
    cfg.model.backbone.update(BACKBONE)
    backbone = instantiate(cfg.model.backbone).state_dict()
    given = {n: v for n, v in backbone.items() if not n.startswith(("norm0", "norm1", "norm2"))}
    given = {n.replace("norm3.", "norm.") if n[:5] == "norm3" else n: v for n, v in given.items()}
    given.update({"head.weight": torch.zeros(10, 64), "head.bias": torch.zeros(10)})
    torch.save({"model": given}, tmp_path / "classifier.pth")
    log, trained = run(f"train.init_checkpoint={tmp_path / 'classifier.pth'}")
    assert f"Loaded {tmp_path / 'classifier.pth'}: an image classifier on an Iwin" in log
    assert "none in a classifier" in log and "not of the backbone" in log
    for name, value in given.items():
        if not name.startswith(("norm.", "head.")):
            assert torch.equal(trained[f"backbone.{name}"], value), name


def test_a_detectors_backbone(run, tmp_path):
    path = tmp_path / "detector.pth"
    state = save(DETECTOR, path, **{"roi_heads.num_classes": 3})
    start = f"train.init_checkpoint={path}"
    with pytest.raises(CheckpointError, match=r"is a Mask R-CNN .*, the model a UPerNet"):
        run(start)
    _, trained = run(start, "train.init_options.part=backbone")
    shared = [name for name in state if name.startswith("backbone.bottom_up.")]
    assert len(shared) > 50
    for name in shared:
        assert torch.equal(trained[name.replace("bottom_up.", "")], state[name]), name


def test_a_segmenter_of_other_classes(run, tmp_path):
    path = tmp_path / "segmenter.pth"
    head = "sem_seg_head"
    changes = {f"{head}.num_classes": 9, f"{head}.channels": 8, f"{head}.auxiliary.channels": 8}
    state = save(CONFIG, path, **changes)
    start = f"train.init_checkpoint={path}"
    with pytest.raises(CheckpointError, match=r"with 9 classes, the model has \d classes: set its"):
        run(start)
    log, trained = run(start, "train.init_options.classes=new")
    assert "other classes" in log
    assert torch.equal(
        trained[f"{head}.fpn_bottleneck.weight"], state[f"{head}.fpn_bottleneck.weight"]
    )
    assert len(trained[f"{head}.predictor.weight"]) != 9
