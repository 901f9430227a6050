"""train.init_checkpoint: files of all families, straight into the training tool and Predictor."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from iwin_d2 import Predictor
from iwin_d2.d2.config import instantiate
from iwin_d2.data.shapes import generate_shapes_dataset
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import CheckpointError, ConfigError
from iwin_d2.modeling import IwinTransformer

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "projects/mask_rcnn/configs/custom_coco_small.py"
BACKBONE = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}


class ImageClassifier(IwinTransformer):
    """The published classifiers' names: a norm and a head behind the last stage, no others."""

    def __init__(self):
        super().__init__(**BACKBONE)
        for level in range(4):
            delattr(self, f"norm{level}")
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 10)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes") / "data"
    return generate_shapes_dataset(root, num_train=2, num_val=1, image_size=(64, 64))


@pytest.fixture
def overrides(shapes, tmp_path):
    """Of the config: the data, and a training of one step of a tiny model on small images."""
    step, sizes = "dataloader.train.mapper.augmentations.1", "dataloader.test.mapper"
    return [
        f"dataset.train_json={shapes.train_json}",
        f"dataset.train_images={shapes.train_images}",
        f"dataset.test_json={shapes.val_json}",
        f"dataset.test_images={shapes.val_images}",
        f"train.output_dir={tmp_path / 'output'}",
        *(f"model.backbone.bottom_up.{key}={value}" for key, value in BACKBONE.items()),
        f"{step}.short_edge_length=[64]",
        f"{sizes}.augmentations.0.short_edge_length=64",
        "dataloader.train.total_batch_size=2",
        "dataloader.train.num_workers=0",
        "dataloader.test.num_workers=0",
        "train.device=cpu",
        "train.max_iter=1",
        "train.eval_period=0",
    ]


@pytest.fixture
def run(overrides, tmp_path):
    """Runs the training tool; returns its log."""
    path = ROOT / "tools/lazyconfig_train_net.py"
    spec = importlib.util.spec_from_file_location("tool_lazyconfig_train_net", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*arguments):
        flags = [text for text in arguments if text.startswith("--")]
        others = [text for text in arguments if not text.startswith("--")]
        tool.main(["--config-file", str(CONFIG), *flags, *overrides, *others])
        return (tmp_path / "output/log.txt").read_text()

    return run


@pytest.fixture
def classifier(tmp_path):
    """An image classifier's file."""
    torch.save({"model": ImageClassifier().state_dict()}, tmp_path / "classifier.pth")
    return tmp_path / "classifier.pth"


def save_detector(overrides, path, **content):
    """Write a detector of three classes; returns its state dict."""
    cfg = load_config(str(CONFIG), [*overrides, "model.roi_heads.num_classes=3"])
    state = instantiate(cfg.model).state_dict()
    torch.save({"state_dict": state, **content}, path)
    return state


def test_training_starts_from_a_classifier(run, classifier, tmp_path):
    weights = f"train.init_checkpoint={classifier}"
    log = run(weights, "optimizer.lr=0.0")
    assert f"Loaded {classifier}: an image classifier on an Iwin of embed_dim=8" in log
    trained = torch.load(tmp_path / "output/model_final.pth", weights_only=True)
    given = torch.load(classifier, weights_only=True)["model"]
    for name, value in given.items():
        if not name.startswith(("norm.", "head.")):
            assert torch.equal(trained["model"][f"backbone.bottom_up.{name}"], value), name
    assert trained["iwin_d2"]["num_heads"] == BACKBONE["num_heads"]
    with pytest.raises(CheckpointError, match="do not fill the model: it is an image classifier"):
        run("--eval-only", weights)


def test_other_classes_in_training_and_evaluation(run, overrides, tmp_path):
    """The options are for the start: what was trained is evaluated and resumed with the same."""
    path = tmp_path / "three.pth"
    state = save_detector(overrides, path)
    weights = f"train.init_checkpoint={path}"
    with pytest.raises(CheckpointError, match=r"with 3 classes, the model has 4 .*classes=new"):
        run(weights)
    options = [
        "train.init_options.classes=new",
        "train.init_options.leave_out=[proposal_generator]",
    ]
    log = run(weights, "optimizer.lr=0.0", *options)
    assert "other classes" in log and "left out" in log
    final = tmp_path / "output/model_final.pth"
    trained = torch.load(final, weights_only=True)["model"]
    fc1 = "roi_heads.box_head.fc1.weight"
    assert torch.equal(trained[fc1], state[fc1])
    assert trained["roi_heads.box_predictor.cls_score.weight"].shape[0] == 5
    run(
        "--eval-only",
        f"train.init_checkpoint={final}",
        *options,
        "train.init_options.part=backbone",
    )
    assert "Trained up to iteration 1 already" in run("--resume", weights, *options)


def test_classes_by_number(run, overrides, tmp_path):
    state = save_detector(overrides, tmp_path / "three.pth")
    run(
        f"train.init_checkpoint={tmp_path}/three.pth",
        "train.init_options.classes=[2,-1,0,0]",
        "optimizer.lr=0.0",
    )
    trained = torch.load(tmp_path / "output/model_final.pth", weights_only=True)["model"]
    name = "roi_heads.box_predictor.cls_score.weight"
    for ours, theirs in ((0, 2), (2, 0), (3, 0), (4, 3)):
        assert torch.equal(trained[name][ours], state[name][theirs])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("part=neck", r"train\.init_options\.part=neck makes no sense: set it to all or backbone"),
        ("classes=[a]", r"train\.init_options\.classes=\['a'\] makes no sense"),
        ("num_heads=3", r"train\.init_options\.num_heads=3 makes no sense"),
        ("clases=new", r"init_options\.clases"),
    ],
)
def test_options_that_make_no_sense(run, override, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run(f"train.init_options.{override}")


def test_a_wrong_name_shows_before_data_is_read(run):
    wrong = ["train.init_checkpoint=iwin_tiny_patch4_window7_24", "dataset.train_json=nowhere.json"]
    with pytest.raises(CheckpointError, match="nearest to it is iwin_tiny_patch4_window7_224"):
        run(*wrong, "model.roi_heads.num_classes=3")


def test_predicting_with_a_file_of_openmmlab(overrides, tmp_path, shapes):
    """It names its classes under meta: their number is the model's, without any json."""
    save_detector(overrides, tmp_path / "mm.pth", meta={"CLASSES": ("ant", "bee", "cat")})
    predictor = Predictor(str(CONFIG), tmp_path / "mm.pth", overrides)
    assert predictor.class_names == ["ant", "bee", "cat"]
    assert predictor.model.roi_heads.num_classes == 3
    image = next(Path(shapes.val_images).iterdir())
    assert predictor(image)["instances"].image_size == (64, 64)


def test_predicting_with_a_classifier_is_refused(overrides, classifier):
    with pytest.raises(CheckpointError, match="would stay as they were made"):
        Predictor(str(CONFIG), classifier, overrides)
