"""iwin_d2.Predictor with semantic segmenters: scores and labels, streams, class names, views."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import iwin_d2
from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.data import MetadataCatalog
from iwin_d2.d2.data import transforms as T
from iwin_d2.d2.modeling import SemanticSegmentor
from iwin_d2.d2.structures import Instances
from iwin_d2.data.mapper import DetectionMapper
from iwin_d2.data.semantic_segmentation import SemSegMapper
from iwin_d2.engine.outputs import without_scores
from iwin_d2.errors import ConfigError, DataError
from iwin_d2.modeling import IwinTransformer, UPerNetHead
from iwin_d2.modeling.iwin import iwin_shapes
from iwin_d2.modeling.segmentation_inference import SegmenterInference

QUICKSTART = "projects/cascade_mask_rcnn/configs/quickstart.py"
NAMES = ["soil", "grass", "sky"]
COLORS = [(120, 70, 20), (30, 160, 40), (90, 150, 230)]
MetadataCatalog.get("fields_test").set(stuff_classes=NAMES)
MetadataCatalog.get("panoptic_fields_test").set(stuff_classes=NAMES, thing_classes=["cow"])


class ColorSegmenter(nn.Module):
    """The class of a pixel is that of the nearest colour; not Detectron2's SemanticSegmentor."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.mix = nn.Conv2d(3, num_classes, 1)
        self.batches = []  # the image sizes of each

    def forward(self, batch):
        assert not self.training and not torch.is_grad_enabled()
        self.batches.append([tuple(item["image"].shape[1:]) for item in batch])
        images = torch.stack([item["image"] for item in batch]).float() / 255
        outputs = []
        for item, scores in zip(batch, self.mix(images)):
            self.dtype = scores.dtype
            size = item["height"], item["width"]
            scores = nn.functional.interpolate(scores[None], size, mode="bilinear")[0]
            outputs.append({"sem_seg": scores})
        return outputs


class TooLarge(ColorSegmenter):
    """A segmenter that no device has room for."""

    def __init__(self):
        super().__init__()
        self.sem_seg_head = nn.Identity()

    def forward(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def make_config(model, size=32, names="fields_test", mapper=SemSegMapper):
    cfg = LazyConfig.load(QUICKSTART)
    cfg.model = model
    cfg.dataloader = {
        "test": {
            "dataset": {"names": names},
            "mapper": L(mapper)(
                is_train=False,
                augmentations=[L(T.ResizeShortestEdge)(short_edge_length=size, max_size=4 * size)],
                image_format="RGB",
            ),
        }
    }
    cfg.train.device = "cpu"
    return cfg


def color_weights(path, kind=ColorSegmenter, **more):
    """|x - c|^2 = |x|^2 - 2 c x + |c|^2, of which the first part is the same for all classes."""
    colors = torch.tensor(COLORS) / 255
    tensors = {"mix.weight": 20 * colors[:, :, None, None], "mix.bias": -10 * (colors**2).sum(1)}
    torch.save({"model": tensors, **more}, path)
    return str(path)


@pytest.fixture
def weights(tmp_path):
    return color_weights(tmp_path / "weights.pth")


@pytest.fixture
def predictor(weights):
    return iwin_d2.Predictor(make_config(L(ColorSegmenter)()), weights, array_format="RGB")


def field(height=64, width=80, order=(2, 1, 0)):
    """Three bands of colour above each other, and their classes."""
    labels = np.repeat(np.array(order), [height // 2, height // 4, height // 4])[:, None]
    labels = np.repeat(labels, width, axis=1)
    return np.array(COLORS, dtype=np.uint8)[labels], labels


# ---- one image -----------------------------------------------------------------------------------


def test_an_image_gives_scores_in_its_own_size_and_labels(predictor):
    image, truth = field()
    output = predictor(image)
    assert list(output) == ["sem_seg"]
    assert output["sem_seg"].shape == (3, 64, 80)
    assert output["sem_seg"].dtype == torch.float32
    labels = predictor.labels(output)
    assert not labels.is_floating_point()
    assert (labels.numpy() == truth).mean() > 0.95  # the model sees half the size
    assert (labels.numpy()[8:-8][truth[8:-8] == 2] == 2).all()
    assert [predictor.class_names[c] for c in labels.unique()] == NAMES


@pytest.mark.parametrize("mapper", [SemSegMapper, DetectionMapper])
def test_files_and_arrays_are_prepared_as_the_mapper_does_it(weights, tmp_path, mapper):
    cfg = make_config(L(ColorSegmenter)(), mapper=mapper)
    predictor = iwin_d2.Predictor(cfg, weights, array_format="RGB")
    path = tmp_path / "noise.png"
    Image.fromarray(noise(64, 80)).save(path)
    expected = predictor.mapper({"file_name": str(path), "image_id": 0})["image"]
    assert expected.shape == (3, 32, 40)
    for image in (path, noise(64, 80)):
        prepared = predictor.prepare(image)
        assert torch.equal(prepared["image"], expected)
        assert (prepared["height"], prepared["width"]) == (64, 80)
    path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(DataError, match=r"^\S+noise\.png (is truncated|cannot be read)"):
        predictor(path)


def test_mixed_precision_gives_float32(weights):
    cfg = make_config(L(ColorSegmenter)())
    predictor = iwin_d2.Predictor(cfg, weights, amp=True)
    exact = iwin_d2.Predictor(cfg, weights)(field()[0])["sem_seg"]
    found = predictor(field()[0])["sem_seg"]
    assert predictor.model.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.1


def test_labels_are_of_segmenters_alone(predictor):
    assert predictor.labels({"sem_seg_labels": torch.ones(2, 2)}).tolist() == [[1, 1], [1, 1]]
    with pytest.raises(ConfigError, match="detector's, which has no label map"):
        predictor.labels({"instances": Instances((2, 2)), "sem_seg": torch.zeros(3, 2, 2)})
    with pytest.raises(ConfigError, match="returns caption, but no instances and no sem_seg"):
        predictor.labels({"caption": "a field"})


def test_outputs_with_objects_are_left_as_they_are():
    panoptic = {"instances": Instances((2, 2)), "sem_seg": torch.zeros(3, 2, 2)}
    assert without_scores(panoptic) == panoptic


# ---- many images ---------------------------------------------------------------------------------


def test_streams_give_labels_of_one_size_together(predictor):
    sizes = [(64, 80), (64, 96), (64, 80), (96, 64), (64, 96), (64, 80)]
    images = [field(*size, order)[0] for size, order in zip(sizes, [(2, 1, 0), (0, 1, 2)] * 3)]
    single = [predictor.labels(predictor(image)) for image in images]
    predictor.model.batches.clear()
    for workers in (0, 2):
        outputs = list(predictor.stream(images, batch_size=2, workers=workers))
        assert [list(output) for output in outputs] == [["sem_seg_labels"]] * 6
        for expected, output in zip(single, outputs):
            assert output["sem_seg_labels"].dtype == torch.int32
            assert torch.equal(predictor.labels(output), expected)
    assert len(predictor.model.batches) < 2 * len(images)
    assert all(len(set(batch)) == 1 for batch in predictor.model.batches)


def test_scores_of_many_images_are_kept_on_demand(predictor):
    images = [field()[0], field(order=(0, 1, 2))[0]]
    expected = [predictor(image)["sem_seg"] for image in images]
    for outputs in (predictor.batch(images), predictor.stream(images, keep_scores=True)):
        for want, output in zip(expected, list(outputs)):
            torch.testing.assert_close(output["sem_seg"], want)


def test_too_little_memory_is_said_with_what_helps(tmp_path):
    path = color_weights(tmp_path / "weights.pth")
    predictor = iwin_d2.Predictor(make_config(L(TooLarge)()), path)
    with pytest.raises(ConfigError, match=r"40 x 32 pixels.*train\.sliding_window\.enabled=True"):
        predictor(field()[0])


# ---- classes -------------------------------------------------------------------------------------


def test_class_names_are_those_of_the_kind_of_model(weights):
    cfg = make_config(L(ColorSegmenter)(), names="panoptic_fields_test")
    predictor = iwin_d2.Predictor(cfg, weights)
    assert predictor.class_names == ["cow"]  # of such a model, nobody knows
    predictor.model.sem_seg_head = nn.Identity()
    assert predictor.class_names == NAMES
    predictor.model.roi_heads = nn.Identity()
    assert predictor.class_names == ["cow"]


def test_class_names_of_the_checkpoint_win(tmp_path):
    metadata = {"stuff_classes": ["earth", "lawn", "air"]}
    path = color_weights(tmp_path / "weights.pth", metadata=metadata)
    for names in ("fields_test", "nobody_registered_this"):
        predictor = iwin_d2.Predictor(make_config(L(ColorSegmenter)(), names=names), path)
        assert predictor.class_names == ["earth", "lawn", "air"]


def test_classes_without_names(weights):
    cfg = make_config(L(ColorSegmenter)(), names="nobody_registered_this")
    assert iwin_d2.Predictor(cfg, weights).class_names is None


# ---- UPerNet ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upernet(tmp_path_factory):
    """A small UPerNet with random weights, as config and file."""
    cfg = make_config(
        L(SemanticSegmentor)(
            backbone=L(IwinTransformer)(
                embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=3
            ),
            sem_seg_head=L(UPerNetHead)(
                input_shape=L(iwin_shapes)(embed_dim=8), num_classes=3, channels=8, norm="BN"
            ),
            pixel_mean=[123.675, 116.28, 103.53],
            pixel_std=[58.395, 57.12, 57.375],
        ),
        size=48,
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("upernet") / "weights.pth"
    torch.save({"model": instantiate(cfg.model).state_dict()}, path)
    return cfg, str(path)


def noise(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return np.kron(small, np.ones((8, 8, 1), dtype=np.uint8))


def test_streams_hold_no_scores_and_give_the_same_labels(upernet, monkeypatch):
    predictor = iwin_d2.Predictor(*upernet)
    images = [noise(72, 96, 0), noise(72, 120, 1), noise(72, 96, 2)]
    scores = [predictor(image)["sem_seg"] for image in images]
    assert len({int(label) for found in scores for label in found.argmax(0).unique()}) == 3

    def forbidden(*_):
        raise AssertionError("scores of a whole image")

    monkeypatch.setattr(SemanticSegmentor, "forward", forbidden)
    monkeypatch.setattr(SegmenterInference, "_scores", forbidden)
    outputs = list(predictor.stream(images, batch_size=2))
    for found, image, output in zip(scores, images, outputs):
        labels = output["sem_seg_labels"]
        assert labels.shape == image.shape[:2]
        assert (labels == found.argmax(0)).float().mean() > 0.999


def test_mixed_precision_runs_the_whole_upernet(upernet):
    exact, predictor = iwin_d2.Predictor(*upernet), iwin_d2.Predictor(*upernet, amp=True)
    output = predictor(noise(72, 96))
    assert output["sem_seg"].dtype == torch.float32
    (streamed,) = predictor.stream([noise(72, 96)])
    labels = exact.labels(exact(noise(72, 96)))
    for found in (predictor.labels(output), predictor.labels(streamed)):
        assert (found == labels).float().mean() > 0.9


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.sliding_window={enabled: True, window: [32, 32], stride: [16, 16]}"],
        ["train.test_time_augmentation={enabled: True, scales: [0.75, 1.0], flip: True}"],
    ],
)
def test_windows_and_views_as_the_config_asks_for_them(upernet, overrides):
    plain = iwin_d2.Predictor(*upernet)
    predictor = iwin_d2.Predictor(*upernet, overrides)
    images = [noise(72, 96, 0), noise(72, 120, 1)]
    for image, output in zip(images, predictor.stream(images, batch_size=2)):
        labels = predictor.labels(predictor(image))
        assert labels.shape == image.shape[:2]
        assert (labels == output["sem_seg_labels"]).float().mean() > 0.999
        other = plain.labels(plain(image))
        assert 0 < (labels != other).float().mean() < 0.7
