"""Every shipped config of a segmenter builds, says what the published recipe says, and trains."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from iwin_d2 import model_zoo
from iwin_d2.d2.config import instantiate
from iwin_d2.d2.data import MetadataCatalog
from iwin_d2.d2.engine import default_argument_parser
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.d2.utils.events import EventStorage
from iwin_d2.data.segmentation_shapes import SEGMENT_NAMES, generate_segmentation_dataset
from iwin_d2.engine.detection import load_config, run_detection
from iwin_d2.engine.model_check import dataset_names
from iwin_d2.errors import ConfigError, DataError

CONFIGS = Path(__file__).resolve().parents[2] / "projects/semantic_segmentation/configs"

T, S = [2, 2, 6, 2], [2, 2, 18, 2]
# Of each config: parameters, embed_dim, depths, classes. The first three are the published models.
MODELS = {
    "upernet_iwin_t_512_160k_ade20k": (61_880_012, 96, T, 150),
    "upernet_iwin_s_512_160k_ade20k": (83_219_660, 96, S, 150),
    "upernet_iwin_b_512_160k_ade20k": (124_753_068, 128, S, 150),
    "semantic_fpn_iwin_t_512_160k_ade20k": (33_831_990, 96, T, 150),
    "upernet_iwin_t_512x1024_160k_cityscapes": (61_779_142, 96, T, 19),
    "upernet_iwin_t_480_80k_pascal_context": (61_809_942, 96, T, 59),
}
ADE20K = [name for name in MODELS if name.endswith("ade20k")]
CUSTOM = ("custom_folder", "custom_folder_small", "quickstart")
NO_WORKERS = ("dataloader.train.num_workers=0", "dataloader.test.num_workers=0")


needs_detectron2 = pytest.mark.skipif(not USE_DETECTRON2, reason="Detectron2 is not installed")


def load(name, overrides=()):
    return load_config(str(CONFIGS / f"{name}.py"), list(overrides))


def backbone_of(cfg):
    """The config of the Iwin transformer, which may stand under a feature pyramid."""
    return cfg.model.backbone.get("bottom_up", cfg.model.backbone)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    return generate_segmentation_dataset(root, num_train=4, num_val=2, image_size=(96, 128))


@pytest.fixture(scope="module")
def paths(shapes):
    return [
        f"dataset.train_images={shapes.train_images}",
        f"dataset.train_labels={shapes.train_labels}",
        f"dataset.test_images={shapes.val_images}",
        f"dataset.test_labels={shapes.val_labels}",
        f"dataset.classes={shapes.classes}",
    ]


def test_the_lists_are_complete():
    assert {path.stem for path in CONFIGS.glob("*.py")} == {*MODELS, *CUSTOM}
    names = model_zoo.list_models("semantic_segmentation/*")
    assert names == sorted(f"semantic_segmentation/{name}" for name in MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    params, embed_dim, depths, classes = MODELS[name]
    cfg = load(name)
    with torch.device("meta"):  # all of a model but its numbers
        model = instantiate(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == params
    backbone = backbone_of(cfg)
    assert (backbone.embed_dim, backbone.depths) == (embed_dim, depths)
    assert backbone.num_heads == [embed_dim // 32 * 2**stage for stage in range(4)]
    assert backbone.window_size == 7 and backbone.drop_path_rate == 0.3
    assert model.sem_seg_head.num_classes == classes and model.sem_seg_head.ignore_value == 255
    # What is padded would change the interleaved windows.
    assert model.backbone.size_divisibility == (32 if "fpn" in name else 0)
    assert cfg.train.output_dir == f"./output/{name}"
    if "upernet" in name:
        auxiliary = model.sem_seg_head.auxiliary
        assert auxiliary.num_classes == classes and auxiliary.loss_weight == 0.4
        assert auxiliary.in_feature == "res4" and len(auxiliary.convs) == 1


@pytest.mark.parametrize("name", ADE20K)
def test_the_published_recipe(name):
    cfg = load(name)
    with torch.device("meta"):
        model = instantiate(cfg.model)
    assert cfg.train.max_iter == 160_000
    factor = instantiate(cfg.lr_multiplier)
    for iteration, expected in (
        (0, 1e-6),
        (750, 0.5 * (1 - 1500 / 160_000)),
        (1500, 1 - 1500 / 160_000),
        (80_000, 0.5),
        (120_000, 0.25),
        (159_999, 1 / 160_000),
    ):
        assert factor(iteration / 160_000) == pytest.approx(expected, rel=1e-5), iteration

    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    assert type(optimizer) is torch.optim.AdamW
    assert [group["lr"] for group in optimizer.param_groups] == [6e-5, 6e-5]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    decayed = {id(p) for p in optimizer.param_groups[0]["params"]}
    for parameter_name, parameter in model.named_parameters():
        free = parameter_name.startswith("backbone.") and "norm" in parameter_name
        assert (id(parameter) in decayed) is not free, parameter_name
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
        list(model.parameters())
    )

    assert cfg.dataloader.train.total_batch_size == 16
    assert dataset_names(cfg, "train") == ["ade20k_train"]
    assert dataset_names(cfg, "test") == ["ade20k_val"]
    metadata = MetadataCatalog.get("ade20k_val")
    assert len(metadata.stuff_classes) == 150 and metadata.reduce_zero_label
    assert metadata.ignore_label == 255 and metadata.evaluator_type == "sem_seg"
    assert not cfg.train.amp.enabled
    views = cfg.train.test_time_augmentation
    assert views.scales == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75] and views.flip
    assert not views.enabled and not cfg.train.sliding_window.enabled


def write_pair(folder, size, labels):
    """An image and its labels, Tensor-like [H, W]; returns their record."""
    rng = np.random.default_rng(0)
    height, width = size
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "image.png")
    Image.fromarray(labels.astype(np.uint8)).save(folder / "labels.png")
    return {
        "file_name": str(folder / "image.png"),
        "sem_seg_file_name": str(folder / "labels.png"),
        "height": height,
        "width": width,
        "image_id": "image",
        "num_classes": 150,
        "reduce_zero_label": True,
    }


def test_the_published_augmentation(tmp_path):
    config = load("upernet_iwin_t_512_160k_ade20k").dataloader.train.mapper
    mapper = instantiate(config)
    augmentations = instantiate(config.augmentations)  # which the mapper puts together
    names = [type(step).__name__ for step in augmentations]
    steps = ["ResizeByRatio", "RandomCropByLabels", "RandomFlip", "PhotometricDistortion", "PadTo"]
    assert names == steps
    resize, crop, flip, _, pad = augmentations
    assert resize.size == (2048, 512) and resize.ratio_range == (0.5, 2.0)
    assert crop.crop_size == (512, 512) and crop.max_share == 0.75 and crop.ignore_value == 255
    assert flip.prob == 0.5 and flip.horizontal and not flip.vertical
    assert pad.size == (512, 512) and pad.label_value == 255

    labels = np.ones((300, 400))
    labels[:, 150:] = 2
    labels[:20] = 0
    record = write_pair(tmp_path, (300, 400), labels)
    padded = 0
    for seed in range(8):
        np.random.seed(seed)
        mapped = mapper(dict(record))
        assert mapped["image"].shape == (3, 512, 512) and mapped["sem_seg"].shape == (512, 512)
        assert set(mapped["sem_seg"].unique().tolist()) <= {0, 1, 255}
        padded += int((mapped["sem_seg"][-1] == 255).all())
    assert 0 < padded < 8  # the short side is 256 to 1024


@pytest.mark.parametrize(
    "size, expected",
    [((300, 400), (512, 683)), ((300, 1600), (384, 2048)), ((700, 600), (597, 512))],
)
def test_whole_images_are_tested_at_the_published_size(tmp_path, size, expected):
    mapper = instantiate(load("upernet_iwin_t_512_160k_ade20k").dataloader.test.mapper)
    mapped = mapper(write_pair(tmp_path, size, np.zeros(size)))
    assert tuple(mapped["image"].shape[1:]) == expected
    assert (mapped["height"], mapped["width"]) == size and "sem_seg" not in mapped


def test_the_recipes_of_other_data_sets():
    cfg = load("upernet_iwin_t_512x1024_160k_cityscapes")
    mapper = instantiate(cfg.dataloader.train.mapper)
    assert mapper.augmentations.augs[-1].size == (512, 1024)
    assert dataset_names(cfg, "train") == ["cityscapes_train"]
    assert cfg.dataloader.train.total_batch_size == 8

    name = "upernet_iwin_t_480_80k_pascal_context"
    cfg = load(name)
    assert dataset_names(cfg, "test") == ["pascal_context_59_val"]
    assert instantiate(cfg.lr_multiplier)(0.5) == 0.5 and cfg.train.max_iter == 80_000
    cfg = load(name, ["model.sem_seg_head.num_classes=60"])
    assert dataset_names(cfg, "train") == ["pascal_context_60_train"]
    assert MetadataCatalog.get("pascal_context_60_train").stuff_classes[0] == "background"


def shrink(cfg):
    """Narrow layers, but all that there are; small crops."""
    backbone_of(cfg).update(embed_dim=16, num_heads=[1, 2, 4, 8], depths=[1, 1, 1, 1])
    backbone_of(cfg).drop_path_rate = 0.0  # a block left out would have no gradient
    head = cfg.model.sem_seg_head
    if "channels" in head:
        head.channels = head.auxiliary.channels = 16
    else:
        cfg.model.backbone.out_channels, head.conv_dims = 32, 32
    resize, crop = cfg.dataloader.train.mapper.augmentations[:2]
    resize.size, crop.crop_size = (128, 96), (64, 96)


@pytest.mark.parametrize("name", MODELS)
def test_models_train_a_step(name, shapes):
    """With narrow layers: the losses that it should have, and a gradient for every parameter."""
    cfg = load(name)
    shrink(cfg)
    torch.manual_seed(0)
    model = instantiate(cfg.model).train()
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    mapper = instantiate(cfg.dataloader.train.mapper)
    records = [
        {
            "file_name": str(Path(shapes.train_images, f"{number:06}.jpg")),
            "sem_seg_file_name": str(Path(shapes.train_labels, f"{number:06}.png")),
            "image_id": number,
            "num_classes": 5,
        }
        for number in (1, 2)
    ]
    with EventStorage():
        losses = model([mapper(record) for record in records])
    expected = {"loss_sem_seg", "loss_sem_seg_aux"} if "upernet" in name else {"loss_sem_seg"}
    assert set(losses) == expected
    total = sum(losses.values())
    assert torch.isfinite(total) and total > 0
    total.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    weight = getattr(model.backbone, "bottom_up", model.backbone).patch_embed.proj.weight
    before = weight.clone()
    optimizer.step()
    assert not torch.equal(before, weight)


@pytest.mark.parametrize("name", CUSTOM)
def test_custom_configs_follow_the_class_file(name, paths, tmp_path):
    cfg = load(name, [*paths, *NO_WORKERS, "dataloader.train.total_batch_size=2"])
    full_sized = name == "custom_folder"
    with torch.device("meta" if full_sized else "cpu"):
        model = instantiate(cfg.model)
    assert model.sem_seg_head.num_classes == model.sem_seg_head.auxiliary.num_classes == 5
    batch = next(iter(instantiate(cfg.dataloader.train)))
    assert len(batch) == 2
    crop = tuple(cfg.dataloader.train.mapper.augmentations[1].crop_size)
    assert all(item["sem_seg"].shape == item["image"].shape[1:] == crop for item in batch)
    assert len(list(instantiate(cfg.dataloader.test))) == 2
    assert MetadataCatalog.get("custom_train").stuff_classes == list(SEGMENT_NAMES)
    assert all("sem_seg" in batch[0] for batch in instantiate(cfg.dataloader.val_loss))
    cfg.dataloader.evaluator.output_dir = str(tmp_path)
    instantiate(cfg.dataloader.evaluator)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.01}
    if not full_sized:  # a step of those takes long
        with EventStorage():
            assert all(torch.isfinite(loss) for loss in model.train()(batch).values())


def test_one_setting_each_says_what_labels_mean(paths, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("circle\nrectangle\ntriangle\nstar\n")
    changed = [*paths[:4], f"dataset.classes={names}", "dataset.reduce_zero_label=True"]
    cfg = load("custom_folder_small", [*changed, *NO_WORKERS])
    assert instantiate(cfg.model).sem_seg_head.num_classes == 4
    for part in ("train", "val_loss"):  # the background is what is "other" now
        batch = next(iter(instantiate(cfg.dataloader[part])))
        values = set(torch.cat([item["sem_seg"].flatten() for item in batch]).tolist())
        assert 255 in values and len(values - {255}) > 0 and values - {255} <= {0, 1, 2, 3}

    ignore = ["dataset.classes=None", "dataset.num_classes=4", "dataset.ignore_value=4"]
    cfg = load("custom_folder_small", [*paths[:4], *ignore, *NO_WORKERS])
    assert instantiate(cfg.model).sem_seg_head.num_classes == 4
    records = instantiate(cfg.dataloader.train.dataset)
    assert records[0]["ignore_value"] == 4
    assert MetadataCatalog.get("custom_train").stuff_classes == ["0", "1", "2", "3"]


def run(name, overrides):
    arguments = ["--config-file", str(CONFIGS / f"{name}.py"), *overrides, *NO_WORKERS]
    return run_detection(default_argument_parser().parse_args(arguments))


def test_one_command_trains_and_evaluates(paths, tmp_path):
    short = ["train.max_iter=2", "dataloader.train.total_batch_size=2", "train.eval_period=0"]
    results = run("custom_folder_small", [*paths, *short, f"train.output_dir={tmp_path}"])
    found = results["sem_seg"]
    assert {"mIoU", "fwIoU", "mACC", "pACC"} < set(found)
    assert {f"IoU-{name}" for name in SEGMENT_NAMES} < set(found)
    assert (tmp_path / "model_final.pth").exists()
    metadata = torch.load(tmp_path / "model_final.pth", weights_only=True)["metadata"]
    assert metadata["stuff_classes"] == list(SEGMENT_NAMES)


@needs_detectron2
@pytest.mark.parametrize("name", [*MODELS, *CUSTOM])
def test_detectron2_itself_reads_the_configs(name):
    from detectron2.config import LazyConfig

    cfg = LazyConfig.load(str(CONFIGS / f"{name}.py"))
    assert {"model", "dataloader", "optimizer", "lr_multiplier", "train"} <= set(cfg)
    assert OmegaConf.to_container(cfg) == OmegaConf.to_container(load(name))


@pytest.mark.parametrize("setting", ["train_images", "test_labels", "classes"])
def test_a_missing_path_is_named(setting, paths, tmp_path):
    given = [path for path in paths if not path.startswith(f"dataset.{setting}=")]
    sentence = f"^dataset.{setting} is not set: add dataset.{setting}=... to the command line.$"
    with pytest.raises(ConfigError, match=sentence):
        run("custom_folder_small", [*given, f"train.output_dir={tmp_path}"])


def test_a_wrong_number_of_classes_is_a_sentence(paths, tmp_path):
    wrong = ["dataset.num_classes=7", f"train.output_dir={tmp_path}"]
    with pytest.raises((ConfigError, DataError), match="has 5 names, but num_classes=7"):
        run("custom_folder_small", [*paths, *wrong])
