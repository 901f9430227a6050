"""Boxes and masks of annotations: what is wrong with them, and what training makes of the rest."""

import json
import uuid

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iwin_d2.d2.data import get_detection_dataset_dicts
from iwin_d2.data.annotation_check import check_annotations, decode_rle_counts
from iwin_d2.data.coco import register_coco
from iwin_d2.data.coco_check import check_coco
from iwin_d2.data.mapper import DetectionMapper
from iwin_d2.errors import DataError

WIDTH, HEIGHT = 40, 30
IMAGE = {"id": 7, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
NAN, INF = float("nan"), float("inf")


def annotation(**change) -> dict:
    return {
        "id": 1,
        "image_id": 7,
        "category_id": 1,
        "bbox": [1, 2, 10, 12],
        "area": 60,
        "iscrowd": 0,
        "segmentation": [[1, 2, 11, 2, 11, 14]],
        **change,
    }


def check(record: dict) -> list:
    return list(check_annotations([record], {7: IMAGE}, {1}, "train.json"))


@pytest.mark.parametrize(
    ("change", "kind", "severity", "text"),
    [
        ({"bbox": [1, 2, -3, 4]}, "box", "error", "[1, 2, -3, 4] of negative size"),
        ({"bbox": [1, 2, NAN, 4]}, "box", "error", "must be finite numbers"),
        ({"bbox": [1, 2, INF, 4]}, "box", "error", "must be finite numbers"),
        ({"bbox": [-INF, 2, INF, 4]}, "box", "error", "must be finite numbers"),
        ({"bbox": [1, 2, 10**400, 4]}, "box", "error", "must be finite numbers"),
        ({"bbox": [1, 2, 2**63, 4]}, "box", "error", "must be finite numbers"),
        ({"bbox": [1, 2, 3]}, "box", "error", "the bbox [1, 2, 3]: four numbers x, y, width"),
        ({"bbox": ["1", "2", "3", "4"]}, "box", "error", "four numbers"),
        ({"bbox": [[1], [2], [3], [4]]}, "box", "error", "four numbers"),
        ({"bbox": "1234"}, "box", "error", "four numbers"),
        ({"bbox": None}, "box", "error", "four numbers"),
        ({"bbox": {"x": 1}}, "box", "error", "four numbers"),
        ({"bbox": [0] * 10**5}, "box", "error", "four numbers"),
        ({"bbox": [1, 2, 3, 0]}, "box-empty", "warning", "without area: it is left out"),
        ({"bbox": [40, 2, 3, 3]}, "box-outside", "warning", "outside its image of 40x30 pixels"),
        ({"bbox": [3, -9, 3, 3]}, "box-outside", "warning", "it is left out in training"),
        ({"bbox": [30, 2, 12, 3]}, "box-outside", "warning", "reaching out of its image of 40x30"),
        ({"bbox": [-1.5, 2, 9, 3]}, "box-outside", "warning", "it is cut in training"),
        ({"segmentation": [[1, 2, 3, 4]]}, "polygon", "error", "a polygon of 4 numbers"),
        ({"segmentation": [[]]}, "polygon", "error", "a polygon of 0 numbers"),
        ({"segmentation": [[1] * 7]}, "polygon", "error", "a polygon of 7 numbers"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "polygon", "error", "not a list of polygons"),
        ({"segmentation": "poly"}, "polygon", "error", "neither polygons nor RLE"),
        ({"segmentation": [["a"] * 6]}, "polygon", "error", "not all finite numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, NAN]]}, "polygon", "error", "not all finite"),
        ({"segmentation": [[1, 2, 3, 4, 5, 10**400]]}, "polygon", "error", "not all finite"),
        ({"segmentation": [[1, 2, 3, 4, 5, None]]}, "polygon", "error", "not all finite"),
        (
            {"segmentation": [[1, 2, 3, 31.5, 5, 6]]},
            "polygon-outside",
            "warning",
            "from (1, 2) to (5, 31.5) in an image of 40x30 pixels: check that it",
        ),
        (
            {"segmentation": [[1, 2, 3, 4, 5, 1e9]]},
            "polygon-outside",
            "error",
            "no coordinates of this image",
        ),
        ({"segmentation": {"size": [30, 40]}}, "rle", "error", "without counts"),
        ({"segmentation": {"counts": [1200]}}, "rle", "error", "RLE segmentation of size None"),
        (
            {"segmentation": {"size": [40, 30], "counts": [1200]}},
            "rle",
            "error",
            "size [40, 30], but its image has [height, width] = [30, 40]",
        ),
        (
            {"segmentation": {"size": [30, 40], "counts": [600, 500]}},
            "rle",
            "error",
            "RLE counts of 1100 pixels together, but a size of 30x40 = 1200",
        ),
        (
            {"segmentation": {"size": [30, 40], "counts": [1300, -100]}},
            "rle",
            "error",
            "not all whole numbers from 0 up",
        ),
        (
            {"segmentation": {"size": [30, 40], "counts": [1, "2"]}},
            "rle",
            "error",
            "not all whole numbers",
        ),
        (
            {"segmentation": {"size": [30, 40], "counts": "PP"}},
            "rle",
            "error",
            "damaged: they do not decode",
        ),
        ({"segmentation": {"size": [30, 40], "counts": "é"}}, "rle", "error", "damaged"),
        ({"segmentation": {"size": [30, 40], "counts": "5"}}, "rle", "error", "of 5 pixels"),
        ({"segmentation": {"size": [30, 40], "counts": ""}}, "rle", "error", "of 0 pixels"),
    ],
)
def test_bad_boxes_and_masks(change, kind, severity, text):
    (problem,) = check(annotation(**change))
    assert (problem.kind, problem.severity) == (kind, severity)
    assert problem.message.startswith("train.json: annotation 1 (image 7, a.png) has ")
    assert text in problem.message
    assert len(problem.message) < 300


def test_a_box_is_needed():
    record = annotation()
    del record["bbox"]
    (problem,) = check(record)
    assert (problem.kind, problem.fatal) == ("box", True)


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": [-0.5, 0, WIDTH + 1.2, HEIGHT]},  # rounded
        {"segmentation": [[-0.5, 0, 40.7, 0, 40.7, 30.9]]},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 5, 1195]}},
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1200]}, "iscrowd": 1},
        {"iscrowd": True, "area": 0},
        {"segmentation": None},
        {"segmentation": {}},
    ],
)
def test_good_annotations(change):
    assert check(annotation(**change)) == []


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.01, 0.3, 0.5, 1.0]))
@settings(max_examples=50, deadline=None)
def test_compressed_rle_is_decoded_as_pycocotools_encodes_it(seed, density):
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 300, 2)) < density
    text = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    flat = mask.ravel(order="F").astype(int)
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *ends, flat.size]).tolist()
    assert decode_rle_counts(text) == ([0, *runs] if flat[0] else runs)


# ---- whatever stands in a record ----------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-3, 50),
    st.floats(-5, 60),
    st.sampled_from([0, 1, NAN, INF, -INF, 1e308, 1e18, 2**53, 2**63, 10**30, -1e6, 10**400]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)
RLE = st.fixed_dictionaries(
    {
        "size": st.sampled_from([[HEIGHT, WIDTH], [WIDTH, HEIGHT], [1, 1], None]),
        "counts": st.one_of(
            st.sampled_from([[1200], [0, 1200], [600, 600], [1, 2, 3], []]),
            st.lists(NUMBERS, max_size=4),
            st.sampled_from(["`U1", "PPP", "0`U1", "nTo0"]),
            st.text(max_size=6),
        ),
    }
)
VALUES = {
    "id": st.one_of(st.integers(0, 4), JSON),
    "image_id": st.one_of(st.just(7), JSON),
    "category_id": st.one_of(st.just(1), JSON),
    "bbox": st.one_of(st.lists(NUMBERS, min_size=4, max_size=4), JSON),
    "area": st.one_of(NUMBERS, JSON),
    "iscrowd": st.one_of(st.integers(0, 2), JSON),
    "ignore": st.one_of(st.just(0), JSON),
    "segmentation": st.one_of(
        st.lists(st.lists(NUMBERS, min_size=5, max_size=9), max_size=3), RLE, JSON
    ),
}


@st.composite
def mutated(draw) -> object:
    """A good annotation of which up to three values are others, or missing; rarely anything."""
    if draw(st.integers(0, 29)) == 0:
        return draw(JSON)
    record = annotation(id=draw(st.integers(1, 10**6)))
    for key in draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=3)):
        if draw(st.integers(0, 9)) == 0:
            record.pop(key, None)
        else:
            record[key] = draw(VALUES[key])
    return record


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.png")
    return folder


def load(json_file, root) -> list[dict]:
    name = register_coco(f"mutated_{uuid.uuid4().hex}", str(json_file), str(root))
    return get_detection_dataset_dicts(names=name, filter_empty=False)


@given(st.lists(mutated(), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_passed_can_be_trained_and_what_is_not_gets_a_sentence(root, annotations):
    content = {
        "images": [IMAGE],
        "categories": [{"id": 1, "name": "nut"}],
        "annotations": annotations,
    }
    json_file = root / "mutated.json"
    json_file.write_text(json.dumps(content))
    problems = check_coco(json_file, root)
    if any(problem.fatal for problem in problems):
        with pytest.raises(DataError) as caught:
            load(json_file, root)
        assert "mutated.json" in str(caught.value) and "\n" not in str(caught.value)
        return
    (record,) = load(json_file, root)
    objects = [a for a in annotations if a.get("iscrowd", 0) == 0]
    masks = bool(objects) and all(a.get("segmentation") for a in objects)
    options = [{}]
    if masks:
        options.append({"use_instance_mask": True, "instance_mask_format": "bitmask"})
        if not any(isinstance(a["segmentation"], dict) for a in objects):
            options.append({"use_instance_mask": True, "recompute_boxes": True})
    for option in options:
        mapper = DetectionMapper(is_train=True, augmentations=[], image_format="RGB", **option)
        instances = mapper(record)["instances"]
        assert len(instances) <= len(objects)
        boxes = instances.gt_boxes.tensor
        assert boxes.isfinite().all()
        if "recompute_boxes" not in option:
            assert (
                (boxes >= 0).all()
                and (boxes[:, 2] <= WIDTH).all()
                and (boxes[:, 3] <= HEIGHT).all()
            )
