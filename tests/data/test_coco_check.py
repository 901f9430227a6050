"""Every kind of bad COCO file is found, and said in one sentence with file and record."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from iwin_d2.data.coco_check import Problem, check_coco, diagnose_image, raise_on_problems
from iwin_d2.errors import DataError

GOOD = {
    "categories": [{"id": 1, "name": "nut"}, {"id": 4, "name": "fig"}],
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 8, "file_name": "b.png", "width": 20, "height": 20},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 1,
            "bbox": [1, 2, 10, 12],
            "area": 60,
            "iscrowd": 0,
            "segmentation": [[1, 2, 11, 2, 11, 14]],
        },
        {"id": 2, "image_id": 8, "category_id": 4, "bbox": [0.5, 0.5, 4, 4], "area": 16.0},
        {
            "id": 3,
            "image_id": 8,
            "category_id": 4,
            "bbox": [0, 0, 2, 20],
            "area": 40,
            "iscrowd": 1,
            "segmentation": {"size": [20, 20], "counts": [0, 40, 360]},
        },
    ],
}


@pytest.fixture
def root(tmp_path):
    for record in GOOD["images"]:
        pixels = np.zeros((record["height"], record["width"], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / record["file_name"])
    return tmp_path


def write(root, data) -> str:
    path = root / "train.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return str(path)


def edited(edit) -> dict:
    data = copy.deepcopy(GOOD)
    edit(data)
    return data


def test_a_good_file_has_no_problems(root):
    assert check_coco(write(root, GOOD), root, check_files="open") == []


# ---- the file as a whole


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ('{"images": [,]}', r"is not json: .* at line 1, column 13"),
        ('{\n"images": [', r"is not json: .* at line 2"),
        ("[]", "not a COCO data set: it holds a list instead of an object"),
        ('[{"image_id": 1, "score": 0.5}]', "looks like a results file"),
        ('{"images": [], "annotations": []}', "the key 'categories' is missing"),
        ('{"images": {}, "annotations": [], "categories": []}', "'images' holds an object"),
    ],
)
def test_files_that_are_not_coco(root, text, sentence):
    problems = check_coco(write(root, text), root)
    with pytest.raises(DataError, match=sentence) as caught:
        raise_on_problems(problems)
    assert "train.json" in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"gone\.json does not exist: check the path"):
        raise_on_problems(check_coco(tmp_path / "gone.json", tmp_path))


def test_a_folder_instead_of_a_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        raise_on_problems(check_coco(tmp_path, tmp_path))


def test_a_binary_file(tmp_path):
    (tmp_path / "train.json").write_bytes(b"\xff\xd8\xff\xe0 a JPEG")
    with pytest.raises(DataError, match="not json: byte 0 is not UTF-8 text"):
        raise_on_problems(check_coco(tmp_path / "train.json", tmp_path))


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda d: d.update(images=[], annotations=[]), "has no images: the data set is empty"),
        (lambda d: d.update(annotations=[]), "has 2 images but not one annotation"),
        (lambda d: d.update(annotations=d["annotations"][2:]), "crowd annotations only"),
        (lambda d: d.update(annotations=[], categories=[]), "has no categories"),
    ],
)
def test_empty_data_sets(root, edit, sentence):
    problems = check_coco(write(root, edited(edit)), root)
    assert problems[0].kind == "empty"
    with pytest.raises(DataError, match=sentence):
        raise_on_problems(problems)


def test_a_file_of_images_alone_is_fine_where_no_objects_are_needed(root):
    data = {key: GOOD[key] for key in ("images", "categories")}
    assert check_coco(write(root, data), root, require_objects=False) == []


# ---- record by record


def annotation(**change):
    return lambda data: data["annotations"][0].update(change)


@pytest.mark.parametrize(
    ("edit", "kind", "sentence"),
    [
        (
            annotation(category_id=3),
            "category",
            r"annotation 1 \(image 7, a\.jpg\) has category_id 3, which is not among",
        ),
        (annotation(image_id=9), "image", r"annotation 1 \(image 9\) belongs to an image that is"),
        (annotation(id=2), "duplicate", "annotation 2 .* has the id of an earlier annotation"),
        (annotation(id="x"), "structure", "annotation 'x' .* whole numbers"),
        (annotation(image_id=None), "structure", "whole numbers"),
        (annotation(bbox=[1, 2, -3, 4]), "box", "of negative size"),
        (annotation(bbox=[1, 2, float("nan"), 4]), "box", "must be finite"),
        (annotation(bbox=[1, 2, float("inf"), 4]), "box", "must be finite"),
        (annotation(bbox=[1, 2, 3]), "box", "four numbers"),
        (annotation(bbox="1 2 3 4"), "box", "four numbers"),
        (annotation(bbox=None), "box", "four numbers"),
        (lambda d: d["annotations"][0].pop("bbox"), "box", "has no bbox"),
        (lambda d: d["annotations"][0].pop("image_id"), "structure", "annotation number 1 needs"),
        (annotation(segmentation=[[1, 2, 3, 4]]), "segmentation", "a polygon of 4 numbers"),
        (annotation(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "segmentation", "polygon of 7 numbers"),
        (annotation(segmentation=[1, 2, 3, 4, 5, 6]), "segmentation", "not a list of polygons"),
        (annotation(segmentation="poly"), "segmentation", "neither polygons nor RLE"),
        (annotation(segmentation=[["a"] * 6]), "segmentation", "not all numbers"),
        (annotation(segmentation=[[1, 2, 3, 4, 5, float("nan")]]), "segmentation", "not all"),
        (annotation(segmentation={"size": [30, 40]}), "segmentation", "without counts"),
        (
            annotation(segmentation={"size": [40, 30], "counts": [1200]}),
            "segmentation",
            r"RLE segmentation of size \[40, 30\], but its image has \[height, width\] = \[30, 40",
        ),
        (lambda d: d["annotations"][0].pop("area"), "structure", "has no area, which COCO's eval"),
        (annotation(ignore=1), "structure", "is marked 'ignore'"),
        (lambda d: d["annotations"].insert(0, []), "structure", "annotation number 1 needs"),
        (lambda d: d["images"][1].update(id=7), "duplicate", r"image 7 \(b\.png\) has the id of"),
        (lambda d: d["images"][1].update(width=0), "structure", "width 0 and height 20"),
        (lambda d: d["images"][1].pop("height"), "structure", "height None"),
        (lambda d: d["images"][1].pop("file_name"), "structure", "image number 2 needs the keys"),
        (lambda d: d["images"][1].update(file_name=3), "structure", "text as file_name"),
        (lambda d: d["categories"][1].update(id=1), "duplicate", "category number 2 has the id 1"),
        (lambda d: d["categories"][1].update(id="4"), "structure", "ids are whole numbers"),
        (lambda d: d["categories"][1].update(name=""), "structure", "needs a text as its name"),
        (lambda d: d["categories"].append("x"), "structure", "category number 3 needs the keys"),
        (lambda d: d["images"][0].update(file_name="c.jpg"), "image", "c.jpg does not exist"),
    ],
)
def test_bad_records(root, edit, kind, sentence):
    problems = check_coco(write(root, edited(edit)), root)
    assert problems[0].kind == kind
    with pytest.raises(DataError, match=sentence) as caught:
        raise_on_problems(problems)
    assert "train.json" in str(caught.value)


@pytest.mark.parametrize(
    ("box", "text"), [([1, 2, 3, 0], "without area"), ([40, 2, 3, 3], "outside the image")]
)
def test_boxes_that_training_leaves_out_are_warnings(root, box, text):
    problems = check_coco(write(root, edited(annotation(bbox=box))), root)
    assert [problem.fatal for problem in problems] == [False]
    assert text in problems[0].message
    raise_on_problems(problems)


def test_all_problems_are_found_in_one_pass_and_one_is_raised(root):
    def edit(data):
        data["annotations"][0]["category_id"] = 99
        data["annotations"][1]["bbox"][2] = -1
        data["images"][0]["file_name"] = "gone.jpg"

    problems = check_coco(write(root, edited(edit)), root)
    assert [problem.kind for problem in problems] == ["image", "category", "box"]
    with pytest.raises(DataError, match=r"gone\.jpg.*\(2 more problems in the same data set\.\)"):
        raise_on_problems(problems)


def test_a_missing_image_folder_is_one_problem(root):
    problems = check_coco(write(root, GOOD), root / "gone")
    assert len(problems) == 1
    assert "image folder" in problems[0].message


def test_images_are_opened_only_on_request(root):
    (root / "a.jpg").write_bytes((root / "a.jpg").read_bytes()[:-300])
    json_file = write(root, GOOD)
    assert check_coco(json_file, root) == []
    assert check_coco(json_file, root / "gone", check_files=None) == []
    (problem,) = check_coco(json_file, root, check_files="open")
    assert "image 7" in problem.message
    assert "truncated" in problem.message


def test_images_in_subfolders(root):
    (root / "sub").mkdir()
    (root / "a.jpg").rename(root / "sub" / "a.jpg")
    data = edited(lambda d: d["images"][0].update(file_name="sub/a.jpg"))
    assert check_coco(write(root, data), root) == []


def test_raising_nothing():
    raise_on_problems([])
    raise_on_problems([Problem("box", "a warning", fatal=False)])


# ---- images


def test_a_turned_image_is_explained(root):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    path = root / "turned.jpg"
    Image.new("RGB", (40, 30)).save(path, exif=exif)
    assert diagnose_image(path, 30, 40) is None
    text = diagnose_image(path, 40, 30)
    assert "is 30x40 pixels, but the json says 40x30" in text
    assert "EXIF orientation" in text


@pytest.mark.parametrize(
    ("size", "text"), [((30, 40), "width and height swapped"), ((41, 30), "correct the json")]
)
def test_sizes_that_differ(root, size, text):
    assert text in diagnose_image(root / "a.jpg", *size)


def test_an_unknown_size_fits_all(root):
    assert diagnose_image(root / "a.jpg", None, None) is None


def test_files_that_are_no_images(root):
    (root / "text.jpg").write_text("not an image")
    (root / "empty.jpg").write_bytes(b"")
    for name in ("text.jpg", "empty.jpg"):
        assert "is not an image file" in diagnose_image(root / name, 1, 1)
    assert "does not exist" in diagnose_image(root / "gone.jpg", 1, 1)
