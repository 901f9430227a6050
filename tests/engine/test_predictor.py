"""iwin_d2.Predictor: images in all forms, configs and weights, batches, mixed precision."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import iwin_d2
from iwin_d2.config_overrides import apply_overrides
from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.data import MetadataCatalog
from iwin_d2.d2.data import transforms as T
from iwin_d2.d2.structures import Boxes, Instances
from iwin_d2.data.coco import num_coco_classes, register_coco
from iwin_d2.data.mapper import DetectionMapper
from iwin_d2.engine.detection import load_config
from iwin_d2.errors import CheckpointError, ConfigError, DataError

QUICKSTART = "projects/cascade_mask_rcnn/configs/quickstart.py"
MetadataCatalog.get("predictor_test").set(thing_classes=["nut", "fig"])


class Detector(nn.Module):
    """One object: the whole image, its score a linear function of the mean colour."""

    def __init__(self, num_classes=2):
        super().__init__()
        self.head = nn.Linear(3, num_classes)
        self.offset = nn.Parameter(torch.zeros(1))
        self.batches = []  # the image sizes of each

    def forward(self, batch):
        assert not self.training and not torch.is_grad_enabled()
        self.batches.append([tuple(item["image"].shape[1:]) for item in batch])
        return [{"instances": self.detect(item)} for item in batch]

    def detect(self, item):
        scores = self.head(item["image"].float().mean((1, 2)).div(255)[None])[:, 0]
        self.dtype = scores.dtype
        scores = scores + self.offset.to(scores.dtype)
        height, width = item["height"], item["width"]
        boxes = torch.tensor([[0.0, 0.0, width, height]]).to(scores.dtype)
        classes = torch.tensor([1])
        return Instances(
            (height, width), pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes
        )


class OutOfMemory(nn.Linear):
    """A model that is too large."""

    def forward(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory.")


class NotGrey(T.Augmentation):
    """An augmentation that some images break."""

    def get_transform(self, image):
        if (image[:, :, 0] == image[:, :, 1]).all():
            raise ValueError("all grey")
        return T.NoOpTransform()


class GreyMapper(DetectionMapper):
    """Prepares images in a way of its own."""

    def __call__(self, dataset_dict):
        result = super().__call__(dataset_dict)
        result["image"] = result["image"].float().mean(0, keepdim=True).expand(3, -1, -1)
        return result


def make_config(mapper=DetectionMapper, image_format="RGB", **model):
    cfg = LazyConfig.load(QUICKSTART)
    cfg.model = L(Detector)(**model)
    cfg.dataloader = {
        "test": {
            "dataset": {"names": "predictor_test"},
            "mapper": L(mapper)(
                is_train=False,
                augmentations=[L(T.ResizeShortestEdge)(short_edge_length=32, max_size=80)],
                image_format=image_format,
            ),
        }
    }
    cfg.train.device = "cpu"
    return cfg


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "weights.pth"
    torch.save({"model": Detector().state_dict()}, path)
    return str(path)


@pytest.fixture
def predictor(weights):
    return iwin_d2.Predictor(make_config(), weights)


def noise(height=30, width=40, seed=0):
    """An image whose channels and corners all differ."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, image, mode="RGB", **options):
    Image.fromarray(image).convert(mode).save(path, **options)
    return str(path)


def mapped(predictor, path):
    """What the config's own mapper makes of a file."""
    return predictor.mapper({"file_name": path, "image_id": 0})


# ---- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_files_are_prepared_as_the_mapper_does_it(weights, tmp_path, image_format, mode):
    predictor = iwin_d2.Predictor(make_config(image_format=image_format), weights)
    path = save(tmp_path / "image.tif", noise(), mode)
    prepared = predictor.prepare(path)
    expected = mapped(predictor, path)["image"]
    assert prepared["image"].dtype == expected.dtype
    assert torch.equal(prepared["image"], expected)
    assert (prepared["height"], prepared["width"]) == (30, 40)
    if mode != "P":  # of as many colours as there are pixels, Pillow's choice is not repeatable
        array = np.asarray(Image.open(path).convert("RGB"))
        assert torch.equal(predictor.prepare(array, array_format="RGB")["image"], expected)


def test_a_turned_photo_is_prepared_as_the_mapper_does_it(predictor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "turned.jpg", noise(), exif=exif)
    expected = mapped(predictor, path)["image"]
    assert expected.shape == (3, 43, 32)
    for image in (path, Image.open(path), tmp_path / "turned.jpg"):
        assert torch.equal(predictor.prepare(image)["image"], expected)
    assert predictor(path)["instances"].image_size == (40, 30)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
def test_pil_images_are_as_their_files(predictor, tmp_path, mode):
    path = save(tmp_path / "image.tif", noise(), mode)
    with Image.open(path) as image:
        found = predictor.prepare(image)["image"]
    assert torch.equal(found, mapped(predictor, path)["image"])


def test_arrays_are_bgr_as_opencv_reads_them_or_rgb_on_demand(weights, tmp_path):
    rgb = noise()
    expected = Image.fromarray(rgb)
    for array_format, array in (("BGR", rgb[:, :, ::-1]), ("RGB", rgb)):
        predictor = iwin_d2.Predictor(make_config(), weights, array_format=array_format)
        want = predictor.prepare(expected)["image"]
        assert torch.equal(predictor.prepare(array)["image"], want)
        with_alpha = np.dstack([array, np.zeros_like(array[:, :, 0])])
        assert torch.equal(predictor.prepare(with_alpha)["image"], want)
        grey = rgb[:, :, 0]
        want = predictor.prepare(Image.fromarray(grey))["image"]
        for form in (grey, grey[:, :, None]):
            assert torch.equal(predictor.prepare(form)["image"], want)
    assert not torch.equal(
        predictor.prepare(rgb)["image"],
        predictor.prepare(rgb, array_format="BGR")["image"],
    )


def test_a_mapper_of_its_own_sees_the_very_pixels(weights, tmp_path):
    predictor = iwin_d2.Predictor(make_config(GreyMapper), weights, array_format="RGB")
    path = save(tmp_path / "image.png", noise())
    expected = mapped(predictor, path)["image"]
    assert torch.equal(predictor.prepare(path)["image"], expected)
    assert torch.equal(predictor.prepare(noise())["image"], expected)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (noise().astype(np.float32), "array of float32: give uint8"),
        (noise()[None], r"shape \[1, 30, 40, 3\]"),
        (noise().transpose(2, 0, 1), r"shape \[3, 30, 40\].*channels last"),
        (noise()[:0], "at least one pixel"),
        (np.uint8(3) * np.ones(5, np.uint8), r"shape \[5\]"),
        (torch.zeros(3, 8, 8), r"torch\.Tensor is no image"),
        (Image.fromarray(np.ones((5, 5), np.uint16)), "16 or 32 bits"),
        (None, "NoneType is no image"),
        ("nowhere.png", r"no image nowhere\.png"),
    ],
)
def test_what_is_no_image_is_refused(predictor, image, sentence):
    with pytest.raises(DataError, match=sentence):
        predictor(image)


def test_files_that_are_damaged_or_cannot_be_augmented_are_named(predictor, tmp_path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(save(tmp_path / "whole.png", noise())).read_bytes()[:70])
    with pytest.raises(DataError, match=r"^\S+cut\.png (is truncated|cannot be read)"):
        predictor(cut)
    with pytest.raises(DataError, match=r"cut\.png cannot be read"), Image.open(cut) as image:
        predictor(image)
    cfg = make_config()
    cfg.dataloader.test.mapper.augmentations.append(L(NotGrey)())
    picky = iwin_d2.Predictor(cfg, predictor.weights)
    assert len(picky(noise())["instances"]) == 1
    grey = noise()[:, :, 0]
    with pytest.raises(DataError, match=r"^The image cannot be prepared .*ValueError: all grey"):
        picky(grey)
    with pytest.raises(DataError, match=r"grey\.png cannot be prepared .*ValueError: all grey"):
        picky(save(tmp_path / "grey.png", grey))


def test_output_is_as_detectron2s_default_predictor_gives_it(predictor):
    image = noise()
    output = predictor(image)
    instances = output["instances"]
    assert list(output) == ["instances"]
    assert instances.pred_boxes.tensor.tolist() == [[0, 0, 40, 30]]
    assert not instances.scores.requires_grad
    assert [predictor.class_names[index] for index in instances.pred_classes] == ["fig"]
    tensor = predictor.prepare(image)["image"].float().mean((1, 2)) / 255
    assert instances.scores[0] == pytest.approx(predictor.model.head(tensor)[0].item(), abs=1e-6)


# ---- configs and weights ------------------------------------------------------------------------


def test_configs_as_files_and_as_objects(weights, tmp_path):
    cfg = make_config()
    file = tmp_path / "config.yaml"
    LazyConfig.save(cfg, str(file))
    scores = set()
    for config in (cfg, str(file), file, dict(cfg.items())):
        predictor = iwin_d2.Predictor(
            config, weights, ["dataloader.test.mapper.augmentations.0.short_edge_length=16"]
        )
        assert predictor.prepare(noise())["image"].shape == (3, 16, 21)
        scores.add(predictor(noise())["instances"].scores.item())
    assert len(scores) == 1
    assert cfg.dataloader.test.mapper.augmentations[0].short_edge_length == 32


def test_weights_are_the_configs_own_if_none_are_given(weights):
    cfg = make_config()
    with pytest.raises(CheckpointError, match=r"No weights.*train\.init_checkpoint"):
        iwin_d2.Predictor(cfg)
    cfg.train.init_checkpoint = weights
    assert len(iwin_d2.Predictor(cfg)(noise())["instances"]) == 1


def test_configs_and_arguments_that_cannot_be_used(weights, tmp_path):
    cfg = make_config()
    with pytest.raises(ConfigError, match=r"nowhere\.py"):
        iwin_d2.Predictor(tmp_path / "nowhere.py", weights)
    with pytest.raises(ConfigError, match=r"has no dataloader\.test\.mapper"):
        iwin_d2.Predictor({"model": cfg.model}, weights)
    with pytest.raises(ConfigError, match="has no model"):
        iwin_d2.Predictor({"MODEL": {"WEIGHTS": "x.pkl"}}, weights)
    with pytest.raises(ConfigError, match="The config is a NoneType"):
        iwin_d2.Predictor(None, weights)
    with pytest.raises(ConfigError, match="give a list"):
        iwin_d2.Predictor(cfg, weights, "model.num_classes=3")
    with pytest.raises(ConfigError, match="Did you mean"):
        iwin_d2.Predictor(cfg, weights, ["model.num_clases=3"])
    with pytest.raises(ConfigError, match="array_format='rgb'"):
        iwin_d2.Predictor(cfg, weights, array_format="rgb")
    with pytest.raises(ConfigError, match="amp=float64"):
        iwin_d2.Predictor(cfg, weights, amp="float64")
    with pytest.raises(ConfigError, match="no device"):
        iwin_d2.Predictor(cfg, weights, device="gpu")


def test_weights_that_do_not_fill_the_model_are_refused(weights, tmp_path):
    with pytest.raises(CheckpointError, match=r"2 of its 3 tensors.*other shapes.*head\."):
        iwin_d2.Predictor(make_config(num_classes=3), weights)
    part = tmp_path / "part.pth"
    torch.save({"head.bias": torch.zeros(2)}, part)
    with pytest.raises(
        CheckpointError, match=r"2 of its 3 tensors are not in the file, such as head\.weight"
    ):
        iwin_d2.Predictor(make_config(), part)


# ---- classes ------------------------------------------------------------------------------------


def own_data(json_file):
    """A config that counts the classes of a json, as custom_coco.py does."""
    cfg = make_config()
    cfg.dataset = {"train_json": json_file}
    cfg.model.num_classes = L(num_coco_classes)(json_file="${dataset.train_json}")
    names = L(register_coco)(
        name="predictor_own_data", json_file="${dataset.train_json}", image_root="."
    )
    cfg.dataloader.train = {"dataset": {"names": names}}
    cfg.dataloader.test.dataset.names = "nobody_registered_this"
    return cfg


def test_classes_are_those_of_the_json(weights, tmp_path):
    path = tmp_path / "train.json"
    categories = [{"id": 7, "name": "date"}, {"id": 3, "name": "acorn"}]
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    predictor = iwin_d2.Predictor(own_data(str(path)), weights)
    assert predictor.class_names == ["acorn", "date"]
    assert predictor.metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}


def test_without_the_json_a_sentence_says_what_to_add(weights):
    with pytest.raises(ConfigError, match=r"dataset\.train_json is not set.*model\.num_classes="):
        iwin_d2.Predictor(own_data("???"), weights)
    with pytest.raises(ConfigError, match=r"gone\.json does not exist.*add dataset\.train_json="):
        iwin_d2.Predictor(own_data("gone.json"), weights)
    predictor = iwin_d2.Predictor(own_data("gone.json"), weights, ["model.num_classes=2"])
    assert len(predictor(noise())["instances"]) == 1
    assert predictor.class_names is None


def test_a_checkpoint_that_names_its_classes_needs_no_json(tmp_path):
    path = tmp_path / "weights.pth"
    names = ["acorn", "date", "fig"]
    metadata = {"thing_classes": names, "thing_dataset_id_to_contiguous_id": {3: 0, 7: 1, 8: 2}}
    torch.save({"model": Detector(3).state_dict(), "metadata": metadata, "iteration": 5}, path)
    for config in (own_data("???"), own_data("gone.json")):
        predictor = iwin_d2.Predictor(config, path)
        assert predictor.model.head.out_features == 3
        assert predictor.class_names == names
        assert predictor.metadata.thing_dataset_id_to_contiguous_id[7] == 1


# ---- batches and precision ----------------------------------------------------------------------


def test_streams_keep_order_and_batch_what_is_padded_alike(predictor):
    predictor.model.backbone = nn.Module()
    predictor.model.backbone.size_divisibility = 16
    widths = [40, 80, 41, 79, 42, 40, 80, 81]  # resized to 43 to 45, and to 80
    images = [noise(30, width, seed) for seed, width in enumerate(widths)]
    single = [predictor(image)["instances"] for image in images]
    predictor.model.batches.clear()
    for workers in (0, 2):
        outputs = list(predictor.stream(images, batch_size=3, workers=workers))
        assert [o["instances"].image_size for o in outputs] == [(30, width) for width in widths]
        for expected, output in zip(single, outputs):
            assert torch.equal(expected.scores, output["instances"].scores)
    assert len(predictor.model.batches) < 2 * len(images)
    for batch in predictor.model.batches:
        assert len(batch) <= 3
        assert len({-(-width // 16) for _, width in batch}) == 1


def test_streams_are_lazy_and_lists_are_lists(predictor):
    drawn = itertools.count()
    images = (noise(seed=next(drawn)) for _ in itertools.count())
    outputs = list(itertools.islice(predictor.stream(images, batch_size=2, workers=1), 3))
    assert len(outputs) == 3
    assert next(drawn) <= 3 + 5 * 2 + 1
    assert predictor.batch([]) == []
    predictor.model.batches.clear()
    assert len(predictor.batch([noise(), noise(seed=1), Image.fromarray(noise())])) == 3
    assert [len(batch) for batch in predictor.model.batches] == [3]


def test_a_bad_image_in_a_stream_raises_in_its_turn(predictor):
    outputs = predictor.stream([noise(), noise(), "nowhere.png", noise()], batch_size=1)
    assert len([next(outputs), next(outputs)]) == 2
    with pytest.raises(DataError, match=r"nowhere\.png"):
        next(outputs)


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    """The quickstart's detector, with random weights that make it sure of itself."""
    cfg = load_config(QUICKSTART, ["model.roi_heads.num_classes=3", "train.device=cpu"])
    resize = "dataloader.test.mapper.augmentations.0"
    apply_overrides(cfg, [f"{resize}.short_edge_length=64", f"{resize}.max_size=400"])
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    with torch.no_grad():
        for layers in model.roi_heads.box_predictor:
            layers.cls_score.weight.mul_(200)
    path = tmp_path_factory.mktemp("cascade") / "weights.pth"
    torch.save(model.state_dict(), path)
    return cfg, str(path)


def blocks(height, width, seed):
    image = noise(height // 8, width // 8, seed)
    return np.kron(image, np.ones((8, 8, 1), dtype=np.uint8))


def test_batches_give_the_predictions_of_single_images(cascade):
    predictor = iwin_d2.Predictor(*cascade)
    sizes = [(64, 64), (64, 128), (64, 64), (64, 120)]
    images = [blocks(*size, seed) for seed, size in enumerate(sizes)]
    single = [predictor(image)["instances"] for image in images]
    for expected, output in zip(single, predictor.stream(images, batch_size=4)):
        found = output["instances"]
        assert len(found) == len(expected) > 0
        assert torch.equal(found.pred_classes, expected.pred_classes)
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=0)
        boxes = found.pred_boxes.tensor, expected.pred_boxes.tensor
        torch.testing.assert_close(*boxes, atol=1e-3, rtol=0)  # pixels
        assert (found.pred_masks != expected.pred_masks).float().mean() < 1e-4


@pytest.mark.parametrize("amp", [True, "bfloat16", torch.bfloat16])
def test_mixed_precision_gives_float32(weights, amp):
    predictor = iwin_d2.Predictor(make_config(), weights, amp=amp)
    exact = iwin_d2.Predictor(make_config(), weights)(noise())["instances"]
    found = predictor(noise())["instances"]
    assert predictor.model.dtype == torch.bfloat16
    assert found.scores.dtype == found.pred_boxes.tensor.dtype == torch.float32
    assert found.scores.item() == pytest.approx(exact.scores.item(), abs=1e-2)
    assert found.scores.item() != exact.scores.item()


def test_mixed_precision_runs_the_whole_cascade(cascade):
    image = blocks(64, 64, 0)
    found = iwin_d2.Predictor(*cascade, amp=True)(image)["instances"]
    assert len(found) > 0
    assert found.pred_boxes.tensor.isfinite().all()
    assert found.pred_masks.shape == (len(found), 64, 64)


def test_too_little_memory_is_said_with_sizes(tmp_path):
    cfg = make_config()
    cfg.model = L(OutOfMemory)(in_features=1, out_features=1)
    path = tmp_path / "weights.pth"
    torch.save(OutOfMemory(1, 1).state_dict(), path)
    predictor = iwin_d2.Predictor(cfg, path)
    with pytest.raises(ConfigError, match=r"cpu .* 2 images of up to 43 x 32 pixels.*batch size"):
        predictor.batch([noise(), noise()])


# ---- the package --------------------------------------------------------------------------------


def test_importing_the_package_stays_light():
    code = (
        "import sys, iwin_d2; assert 'Predictor' in dir(iwin_d2); "
        "assert not {'torch', 'numpy', 'PIL', 'omegaconf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_other_names_are_not_in_the_package():
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        iwin_d2.Predicter  # noqa: B018
