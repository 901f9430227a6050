"""Every shipped config of a video classifier builds, says what the recipe says, and trains."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torchvision.transforms import v2

from iwin_d2 import model_zoo
from iwin_d2.d2.config import instantiate
from iwin_d2.d2.engine import default_argument_parser
from iwin_d2.data.video.moving_shapes import MOTIONS
from iwin_d2.data.video.sampling import RandomClip, RandomSegments, SpacedSegments
from iwin_d2.data.video.shapes import generate_moving_shapes
from iwin_d2.engine.classification import run_classification
from iwin_d2.engine.config_check import check_config_keys
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "projects/video_classification/configs"
CUSTOM = ("custom_list", "custom_list_small", "quickstart")
NAMES = sorted({path.stem for path in CONFIGS.glob("*.py")} - set(CUSTOM))

# By size: channels, blocks, heads.
SIZES = {
    "t": (96, [2, 2, 6, 2], [3, 6, 12, 24]),
    "s": (96, [2, 2, 18, 2], [3, 6, 12, 24]),
    "b": (128, [2, 2, 18, 2], [4, 8, 16, 32]),
}
CLASSES = {"kinetics400": 400, "kinetics600": 600, "v2": 174}


def load(name, overrides=()):
    return load_config(str(CONFIGS / f"{name}.py"), list(overrides))


def test_the_zoo_has_them():
    zoo = model_zoo.list_models("video_classification/*")
    assert zoo == [f"video_classification/{name}" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_models(name):
    cfg = load(name)
    check_config_keys(cfg, name)
    with torch.device("meta"):
        model = instantiate(cfg.model)
        logits = model.eval()(torch.empty(1, 3, 32, 224, 224))
    dim, depths, heads = SIZES[name.split("_")[1]]
    backbone = model.backbone
    assert model.num_classes == CLASSES[name.split("_")[-1]] == logits.shape[1]
    assert backbone.num_features == 8 * dim
    assert [len(stage.blocks) for stage in backbone.layers] == depths
    assert [stage.blocks[0].attn.num_heads for stage in backbone.layers] == heads
    assert backbone.patch_embed.proj.kernel_size == (2, 4, 4)
    assert backbone.time_embed.shape == (1, dim, 16, 1, 1)
    assert (cfg.model.backbone.drop_path_rate, cfg.model.dropout) == (0.1, 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe(name):
    cfg = load(name)
    train, optimizer = cfg.train, cfg.optimizer
    assert (train.epochs.max, train.amp.enabled) == (30, True)
    assert train.accumulation_steps == (4 if name.split("_")[1] == "t" else 8)
    assert cfg.dataloader.train.total_batch_size == 64  # 8 on each of 8 GPUs
    assert (optimizer.lr, optimizer.weight_decay) == (1e-3, 0.02)
    assert train.label_smoothing == (0.1 if "something" in name else 0)
    schedule = instantiate(cfg.lr_multiplier)
    assert schedule(2.5 / 30) == pytest.approx(1, abs=0.02) and schedule(1) == pytest.approx(0)
    assert schedule(0) < schedule(1 / 30) < schedule(2 / 30) and schedule(0.5) > schedule(0.9)


def test_learning_rates_and_weight_decay():
    tiny = ["model.backbone.embed_dim=24", "model.backbone.depths=[1,1,1,1]"]
    cfg = load("iwin_t_kinetics400", tiny)
    cfg.optimizer.params.model = model = instantiate(cfg.model)
    groups = instantiate(cfg.optimizer).param_groups
    found = {p: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(found) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        rate = 1e-4 if name.startswith("backbone.") else 1e-3
        assert found[parameter] == (pytest.approx(rate), 0 if "norm" in name else 0.02), name


@pytest.mark.parametrize("name", NAMES)
def test_training_clips(name):
    mapper = instantiate(load(name).dataloader.train.mapper)
    sampler = mapper.sampler
    assert mapper.resize.size == 256
    crop, *others = mapper.transforms
    assert tuple(crop.size) == (224, 224)
    assert list(crop.scale) == [0.08, 1.0] and list(crop.ratio) == pytest.approx([3 / 4, 4 / 3])
    if "something" in name:
        assert isinstance(sampler, RandomSegments) and not others  # no flip
        (frames,) = sampler(320)
        assert len(frames) == 32 and (frames // 10 == np.arange(32)).all()
        return
    assert [type(other) for other in others] == [v2.RandomHorizontalFlip]
    assert isinstance(sampler, RandomClip)
    (frames,) = sampler(300)
    assert len(frames) == 32 and (np.diff(frames) == 2).all()


@pytest.mark.parametrize("name", NAMES)
def test_test_views(name):
    mapper = instantiate(load(name).dataloader.test.mapper)
    clips = mapper.sampler(263)
    if "something" in name:
        assert isinstance(mapper.sampler, SpacedSegments)
        assert (np.diff(clips, axis=1) > 0).all()
    else:
        assert clips[:, 0].tolist() == [25, 75, 125, 175]  # (i + 1/2) * (263 - 63) / 4
        assert (np.diff(clips, axis=1) == 2).all()
        assert set(mapper.sampler(10)[:, 0]) == {0}  # too short: from 0 on, and around
    assert clips.shape[1] == 32
    clip = torch.zeros(32, 3, 240, 320, dtype=torch.uint8)
    for transform in mapper.transforms:
        clip = transform(clip)
    assert clip.shape == (3, 32, 3, 224, 224)


def test_they_start_from_images():
    starts = {name: load(name).train.init_checkpoint for name in NAMES}
    assert starts["iwin_t_kinetics400"] == "iwin_tiny_patch4_window7_224"
    # Of other heads than any published classifier of images.
    assert starts["iwin_s_kinetics400"] == ""
    assert starts["iwin_b_kinetics400"] == "iwin_base_patch4_window7_224"
    # Which has other classes, and that is never silent.
    assert load("iwin_t_something_v2").train.init_options.classes == "new"


# --- one's own lists


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp("motions") / "data"
    return generate_moving_shapes(root, 8, 3, size=48, num_frames=(10, 14))


TINY = (
    "model.backbone.embed_dim=8",
    "model.backbone.depths=[1,1,1,1]",
    "model.backbone.num_heads=[1,1,2,2]",
    "model.backbone.num_frames=4",
    "dataloader.train.mapper.sampler.num_frames=4",
    "dataloader.train.mapper.transforms.0.size=[32,32]",
    "dataloader.train.total_batch_size=4",
    "dataloader.train.num_workers=0",
    "dataloader.test.mapper.sampler.num_frames=4",
    "dataloader.test.mapper.transforms.0.size=32",
    "dataloader.test.num_workers=0",
    "train.epochs.max=1",
    "train.device=cpu",
    "train.tensorboard.enabled=False",
)


def run(name, *overrides):
    parser = default_argument_parser()
    arguments = ["--config-file", str(CONFIGS / f"{name}.py"), *TINY, *overrides]
    return run_classification(parser.parse_args(arguments))


def head(output):
    return torch.load(output / "model_final.pth")["model"]["cls_head.fc_cls.weight"]


@pytest.mark.parametrize("name", CUSTOM)
def test_lists_are_the_only_overrides(clips, tmp_path, name):
    given = [f"dataset.train_list={clips.train_list}", f"dataset.test_list={clips.val_list}"]
    if name == "quickstart":
        given.append(f"dataset.classes={clips.classes}")
    results = run(name, *given, f"train.output_dir={tmp_path}")
    assert set(results["classification"]) >= {"top1", "mean_class_accuracy"}
    assert head(tmp_path).shape[0] == len(MOTIONS)  # follows from the labels
    with (tmp_path / "inference/predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3


def test_class_names_of_a_csv_list(clips, tmp_path):
    """Names as labels: their number and order follow from the file of classes."""
    root = tmp_path / "data"
    shutil.copytree(clips.root, root)
    names = (root / "classes.txt").read_text().split()
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in [*names, "none of these"]))
    given = [f"dataset.classes={root / 'classes.txt'}"]
    for part, file in (("train", "train.txt"), ("test", "val.txt")):
        lines = [line.rsplit(" ", 1) for line in (root / file).read_text().splitlines()]
        path = (root / file).with_suffix(".csv")
        path.write_text("".join(f"{video},{label}\n" for video, label in lines))
        given.append(f"dataset.{part}_list={path}")
    run("custom_list_small", *given, f"train.output_dir={tmp_path / 'out'}")
    assert head(tmp_path / "out").shape[0] == len(MOTIONS) + 1
    with (tmp_path / "out/inference/predictions.csv").open() as file:
        assert {row["class"] for row in csv.DictReader(file)} <= set(names)


def test_the_number_of_classes_can_be_said(clips, tmp_path):
    given = [f"dataset.train_list={clips.train_list}", f"dataset.test_list={clips.val_list}"]
    cfg = load("custom_list", [*given, "dataset.num_classes=9", *TINY])
    assert instantiate(cfg.model).num_classes == 9


def test_lists_that_are_not_given(tmp_path):
    with pytest.raises(ConfigError, match=r"dataset\.train_list is not set: add dataset\.train_li"):
        run("custom_list", f"train.output_dir={tmp_path}")


def test_the_quick_config_flips_nothing():
    transforms = load("quickstart").dataloader.train.mapper.transforms
    assert len(transforms) == 1 and "RandomResizedCrop" in str(transforms[0]["_target_"])


def test_configs_can_be_saved():
    assert OmegaConf.to_yaml(load("iwin_t_kinetics400").train)
