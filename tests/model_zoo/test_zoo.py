"""Models by name: which there are, what they are built of, where their weights come from."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from iwin_d2 import model_zoo
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.engine.predictor import Predictor
from iwin_d2.errors import CheckpointError, ConfigError
from iwin_d2.model_zoo import zoo

ROOT = Path(__file__).resolve().parents[2]
NAME = "mask_rcnn/mask_rcnn_iwin_t_1x_coco"
# A model of the same kind that is built in a moment.
SMALL = [
    "model.backbone.bottom_up.embed_dim=16",
    "model.backbone.bottom_up.depths=[1,1,1,1]",
    "model.backbone.bottom_up.num_heads=[1,2,4,8]",
    "model.roi_heads.box_head.fc_dims=[16]",
    "model.roi_heads.box_predictor.input_shape.channels=16",
]
# What the authors publish, by our names.
PUBLISHED = {
    "mask_rcnn/mask_rcnn_iwin_t_1x_coco": "iwin_tiny_window7_mask_rcnn_1x_coco",
    "mask_rcnn/mask_rcnn_iwin_t_3x_coco": "iwin_tiny_window7_mask_rcnn_3x_coco",
    "mask_rcnn/mask_rcnn_iwin_s_1x_coco": "iwin_small_window7_mask_rcnn_1x_coco",
    "mask_rcnn/mask_rcnn_iwin_s_3x_coco": "iwin_small_window7_mask_rcnn_3x_coco",
    "cascade_mask_rcnn/cascade_mask_rcnn_iwin_t_1x_coco": (
        "iwin_tiny_window7_cascade_mask_rcnn_1x_coco"
    ),
    "cascade_mask_rcnn/cascade_mask_rcnn_iwin_t_3x_coco": (
        "iwin_tiny_window7_cascade_mask_rcnn_3x_coco"
    ),
    "cascade_mask_rcnn/cascade_mask_rcnn_iwin_s_3x_coco": (
        "iwin_small_window7_cascade_mask_rcnn_3x_coco"
    ),
    "semantic_segmentation/upernet_iwin_t_512_160k_ade20k": (
        "iwin_tiny_patch4_window7_512_ade20k_1k"
    ),
    "semantic_segmentation/upernet_iwin_s_512_160k_ade20k": (
        "iwin_small_patch4_window7_512_ade20k_1k"
    ),
    "semantic_segmentation/upernet_iwin_b_512_160k_ade20k": (
        "iwin_base_patch4_window7_512_ade20k_1k"
    ),
}
# The tasks whose models are known here; others have tests of their own.
TASKS = ("mask_rcnn", "cascade_mask_rcnn", "semantic_segmentation")


def small(**arguments):
    torch.manual_seed(arguments.pop("seed", 0))
    return model_zoo.get(NAME, device="cpu", overrides=SMALL, **arguments)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model_final.pth"
    torch.save({"model": small(seed=1).state_dict()}, path)
    return path


def test_every_config_of_the_projects_is_listed_or_for_data_of_ones_own():
    names = model_zoo.list_models()
    assert names == sorted(names)
    files = {
        f"{path.parents[1].name}/{path.stem}" for path in (ROOT / "projects").glob("*/configs/*.py")
    }
    others = files - set(names)
    assert set(names) < files and {NAME, *PUBLISHED} < set(names)
    if not USE_DETECTRON2:
        others = {name for name in others if not name.endswith(("_lvis_v1", "_voc0712"))}
    kinds = ("custom_coco", "custom_coco_boxes", "custom_coco_small", "custom_coco_small_boxes")
    own = {f"{p}/{kind}" for p in ("mask_rcnn", "cascade_mask_rcnn") for kind in kinds}
    own |= {f"semantic_segmentation/{kind}" for kind in ("custom_folder", "custom_folder_small")}
    own |= {f"{task}/quickstart" for task in TASKS}
    assert {name for name in others if name.startswith(TASKS)} == own


def test_the_list_can_be_narrowed():
    names = model_zoo.list_models("cascade*/cascade_rcnn_iwin_t_?x*")
    assert names == [
        "cascade_mask_rcnn/cascade_rcnn_iwin_t_1x_coco",
        "cascade_mask_rcnn/cascade_rcnn_iwin_t_3x_coco",
    ]
    assert model_zoo.list_models("zebra*") == []


@pytest.mark.parametrize("suffix", ["", ".py"])
def test_a_config_by_its_name_and_another_one_each_time(suffix):
    cfg = model_zoo.get_config(f"{NAME}{suffix}", overrides=["train.max_iter=7"])
    assert cfg.train.max_iter == 7 and cfg.train.init_checkpoint == ""
    assert model_zoo.get_config(NAME).train.max_iter == 12 * 7330
    assert Path(model_zoo.get_config_file(f"{NAME}{suffix}")).name == "mask_rcnn_iwin_t_1x_coco.py"
    assert "dataset" in model_zoo.get_config("mask_rcnn/custom_coco")


@pytest.mark.parametrize(
    "name", ["mask_rcnn/mask_rcnn_iwin_t_1x_cocoo", "mask_rcnn_iwin_t_1x_coco", f"{NAME}.yaml"]
)
def test_an_unknown_name_gets_the_nearest(name):
    for call in (model_zoo.get, model_zoo.get_config, model_zoo.get_checkpoint_url):
        with pytest.raises(ConfigError) as caught:
            call(name)
        assert f"there is no model {name!r}. Did you mean {NAME}" in str(caught.value)


def test_a_name_that_is_like_none_is_told_where_to_look():
    with pytest.raises(ConfigError, match=r"there is no model 'zebra'\. .*list_models\(\) lists"):
        model_zoo.get_config("zebra")


def test_which_weights_are_published():
    addresses = {}
    for name in filter(lambda name: name.startswith(TASKS), model_zoo.list_models()):
        try:
            addresses[name] = model_zoo.get_checkpoint_url(name)
        except ConfigError as error:
            assert f"no weights are published for {name}: there are some for" in str(error)
    base = "https://github.com/Cominder/Iwin-Transformer/releases/download/v1.0"
    assert addresses == {name: f"{base}/{file}.pth" for name, file in PUBLISHED.items()}
    for name, file in PUBLISHED.items():
        assert model_zoo.get_config(f"{name}.py", trained=True).train.init_checkpoint == file


def test_a_model_is_built_as_detectron2_does():
    model = small()
    assert model.training and model.roi_heads.num_classes == 80
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_weights_are_loaded(weights):
    expected = small(seed=1).state_dict()
    found = small(weights=weights).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not torch.equal(
        small().roi_heads.box_head.fc1.weight, found["roi_heads.box_head.fc1.weight"]
    )


def test_published_weights_come_from_where_the_setting_says(tmp_path, monkeypatch):
    monkeypatch.setenv("IWIN_D2_WEIGHTS_URL", str(tmp_path))
    with pytest.raises(CheckpointError, match=f"There is no .*{PUBLISHED[NAME]}.pth"):
        small(trained=True)


def test_bad_arguments(weights):
    with pytest.raises(ConfigError, match="exclude each other"):
        small(trained=True, weights=weights)
    with pytest.raises(ConfigError, match="no weights are published for mask_rcnn/faster_rcnn"):
        model_zoo.get("mask_rcnn/faster_rcnn_iwin_t_1x_coco", trained=True)
    with pytest.raises(CheckpointError, match=r"nowhere\.pth"):
        small(weights="nowhere.pth")
    with pytest.raises(ConfigError, match=r"train\.device=abacus is no device"):
        model_zoo.get(NAME, device="abacus", overrides=SMALL)
    with pytest.raises(ConfigError, match=r"dataset\.train_json"):
        model_zoo.get("mask_rcnn/custom_coco_small", device="cpu")


def test_a_config_of_the_zoo_predicts(weights):
    predictor = Predictor(model_zoo.get_config(NAME, overrides=SMALL), weights, device="cpu")
    predictor.mapper.augmentations.augs[0].short_edge_length = [64, 64]
    instances = predictor(torch.zeros(48, 64, 3, dtype=torch.uint8).numpy())["instances"]
    assert instances.image_size == (48, 64)


def test_an_installed_package_has_its_configs_with_it(tmp_path, monkeypatch):
    built = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", tmp_path],
        cwd=ROOT,
        env={**os.environ, "IWIN_D2_BUILD": "none"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stderr
    expected = model_zoo.list_models()
    # What the copy would say of itself, had it been imported.
    copy = tmp_path / "iwin_d2/model_zoo"
    assert (copy / "zoo.py").is_file()
    monkeypatch.setattr(zoo, "_ROOTS", (copy, tmp_path))
    zoo._configs.cache_clear()
    try:
        assert model_zoo.list_models() == expected
        assert Path(model_zoo.get_config_file("mask_rcnn/quickstart")).is_relative_to(copy)
        for name in [*model_zoo.list_models("*_b_*"), "mask_rcnn/quickstart"]:
            assert model_zoo.get_config(name).train.output_dir.endswith(Path(name).name)
    finally:
        zoo._configs.cache_clear()


def test_a_package_without_configs_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_ROOTS", (tmp_path / "a", tmp_path / "b"))
    zoo._configs.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"configs are neither in .*a nor in .*b: install"):
            model_zoo.list_models()
    finally:
        zoo._configs.cache_clear()
