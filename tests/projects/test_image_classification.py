"""Every shipped config of an image classifier builds, says what the recipe says, and trains."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from iwin_d2 import model_zoo
from iwin_d2.checkpoint.published import PUBLISHED
from iwin_d2.d2.config import instantiate
from iwin_d2.d2.engine import default_argument_parser
from iwin_d2.data.classification_shapes import generate_classification_dataset
from iwin_d2.engine.classification import run_classification
from iwin_d2.engine.config_check import check_config_keys
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "projects/image_classification/configs"
CUSTOM = ("custom_folder", "custom_folder_small", "custom_shards", "quickstart")
NAMES = sorted({path.stem for path in CONFIGS.glob("*.py")} - set(CUSTOM))

# Facts, section 3: millions of parameters of each size, and the drop path of section 7.
PARAMETERS = {"t": 30.2, "s": 51.6, "b": 91.2, "l": 204.3}
DROP_PATH = {"t": 0.2, "s": 0.3, "b": 0.5}


def load(name, overrides=()):
    return load_config(str(CONFIGS / f"{name}.py"), list(overrides))


def test_there_is_one_for_every_published_classifier():
    zoo = model_zoo.list_models("image_classification/*")
    assert zoo == [f"image_classification/{name}" for name in NAMES]
    published = {name for name in PUBLISHED if "patch4" in name and "ade20k" not in name}
    found = {
        model_zoo.get_config(name, trained=True).train.init_checkpoint
        for name in zoo
        if "22k" not in name or not name.endswith("_imagenet22k")
    }
    # Of ImageNet-22K's own weights only those at 224 pixels are trained here from scratch.
    assert {name for name in published if not name.endswith("_22k")} == found


@pytest.mark.parametrize("name", NAMES)
def test_models(name):
    cfg = load(name)
    check_config_keys(cfg, name)
    with torch.device("meta"):
        model = instantiate(cfg.model)
    size, side = name.split("_")[1:3]
    count = sum(p.numel() for p in model.parameters()) / 1e6
    head = model.head.weight.numel() / 1e6
    assert model.num_classes == (21841 if name.endswith("imagenet22k") else 1000)
    if model.num_classes == 1000:
        # The published column is of 224 pixels; at 1024 the last stage has a convolution, too.
        assert count == pytest.approx(PARAMETERS[size], abs=0.05 if side == "224" else 0.2)
    assert model.layers[0].blocks[0].attn.num_heads == {"t": 3, "s": 3, "b": 4, "l": 6}[size]
    assert head > 0.7
    if name.endswith("imagenet1k"):
        assert cfg.model.drop_path_rate == DROP_PATH[size]
        # The trap: Iwin-S of ImageNet-1K has other heads than every other Iwin-S.
        last = {"t": 24, "s": 16, "b": 32}[size]
        assert model.layers[3].blocks[0].attn.num_heads == last


@pytest.mark.parametrize("name", NAMES)
def test_data(name):
    cfg, side = load(name), int(name.split("_")[2])
    train = [dict(item) for item in cfg.dataloader.train.mapper.augmentations]
    assert list(train[0]["size"]) == [side, side] and list(train[0]["scale"]) == [0.08, 1.0]
    assert train[2]["magnitude"] == 9 and train[3]["p"] == 0.25
    test = [dict(item) for item in cfg.dataloader.test.mapper.augmentations]
    sizes = [list(item["size"]) for item in test]
    assert sizes == ([[256], [224, 224]] if side == 224 else [[side, side]])
    image = torch.zeros(3, 300, 500, dtype=torch.uint8)
    for part in ("train", "test"):
        assert instantiate(cfg.dataloader[part].mapper)  # every augmentation is built
    for augmentation in instantiate(cfg.dataloader.test.mapper).augmentations:
        image = augmentation(image)
    assert image.shape == (3, side, side)


def test_the_recipe():
    cfg = load("iwin_t_224_imagenet1k")
    train = cfg.train
    assert (train.epochs.max, train.clip_grad, train.label_smoothing) == (300, 5.0, 0.1)
    assert (train.mixing.mixup, train.mixing.cutmix) == (0.8, 1.0)
    assert cfg.optimizer.lr == 5e-4 and train.lr_reference_batch_size == 512
    assert cfg.optimizer.weight_decay == 0.05 and list(cfg.optimizer.betas) == [0.9, 0.999]
    schedule = instantiate(cfg.lr_multiplier)
    assert schedule(20 / 300) == pytest.approx(1, abs=0.02)
    assert schedule(10 / 300) == pytest.approx(0.5, abs=0.01)
    assert schedule(1) == pytest.approx(0.01)  # 5e-6


def test_fine_tuning():
    for name, start in (
        ("iwin_s_384_imagenet1k", "iwin_small_patch4_window7_224"),
        ("iwin_l_384_22kto1k", "iwin_large_patch4_window7_224_22k"),
    ):
        cfg = load(name)
        assert (cfg.train.epochs.max, cfg.optimizer.lr) == (30, 2e-5)
        assert cfg.optimizer.weight_decay == 1e-8
        assert cfg.train.init_checkpoint == start
        # Another number of classes is never silent.
        assert cfg.train.init_options.classes == ("new" if "22k" in name else "same")


def test_weight_decay_is_not_for_norms_and_biases():
    cfg = load("iwin_t_224_imagenet1k", ["model.embed_dim=24"])
    cfg.optimizer.params.model = model = instantiate(cfg.model)
    groups = instantiate(cfg.optimizer).param_groups
    decays = {p: group["weight_decay"] for group in groups for p in group["params"]}
    assert len(decays) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        exempt = name.endswith("bias") or "norm" in name
        assert decays[parameter] == (0 if exempt else 0.05), name


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("classes") / "shapes"
    return generate_classification_dataset(root, num_train=16, num_val=6)


SMALL = (
    "model.embed_dim=8",
    "model.depths=[1,1,1,1]",
    "model.num_heads=[1,1,2,2]",
    "dataloader.train.total_batch_size=4",
    "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
    "train.epochs.max=0.5",
    "train.device=cpu",
    "train.tensorboard.enabled=False",
)


def run(name, *overrides):
    parser = default_argument_parser()
    arguments = ["--config-file", str(CONFIGS / f"{name}.py"), *SMALL, *overrides]
    return run_classification(parser.parse_args(arguments))


@pytest.mark.parametrize("name", ["custom_folder", "custom_folder_small", "quickstart"])
def test_folders_are_the_only_overrides(folders, tmp_path, name):
    given = [f"dataset.train={folders.train}", f"dataset.test={folders.val}"]
    results = run(name, *given, f"train.output_dir={tmp_path}")
    assert set(results["classification"]) == {"top1", "mean_class_accuracy"}
    weights = torch.load(tmp_path / "model_final.pth")["model"]
    assert weights["head.weight"].shape[0] == 4  # follows from the folders
    report = json.loads((tmp_path / "inference/results.json").read_text())
    assert report["items"] == 6


def test_shards(folders, tmp_path):
    names = sorted(path.name for path in Path(folders.train).iterdir())
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    files = sorted(Path(folders.train).glob("*/*.jpg"))
    for shard in range(2):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w") as tar:
            for path in files[shard::2]:
                data = {
                    "jpg": path.read_bytes(),
                    "cls": str(names.index(path.parent.name)).encode(),
                }
                for kind, content in data.items():
                    info = tarfile.TarInfo(f"{path.stem}.{kind}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    shards = tmp_path / "train-{0..1}.tar"
    results = run(
        "custom_shards",
        f'dataset.train="{shards}"',
        f'dataset.test="{shards}"',
        f"dataset.classes={tmp_path / 'classes.txt'}",
        f"train.output_dir={tmp_path / 'out'}",
    )
    assert 0 <= results["classification"]["top1"] <= 100


def test_folders_that_are_not_given(tmp_path):
    with pytest.raises(ConfigError, match=r"dataset\.train is not set: add dataset\.train=\.\.\."):
        run("custom_folder", f"train.output_dir={tmp_path}")


def test_configs_can_be_saved(tmp_path):
    assert OmegaConf.to_yaml(load("iwin_t_224_imagenet1k").train)
