"""Every kind of bad COCO file is found, and said in one sentence with file and record."""

import copy
import json
import re

import numpy as np
import pytest
from PIL import Image

from iwin_d2.data import image_check
from iwin_d2.data.coco_check import check_coco
from iwin_d2.data.problems import Problem, raise_on_problems
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
        {
            "id": 2,
            "image_id": 8,
            "category_id": 4,
            "bbox": [0.5, 0.5, 4, 4],
            "area": 16.0,
            "iscrowd": 0,
            "segmentation": [[0.5, 0.5, 4.5, 0.5, 4.5, 4.5], [1, 1, 2, 1, 2, 2]],
        },
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


def image(**change):
    return lambda data: data["images"][1].update(change)


def category(**change):
    return lambda data: data["categories"][1].update(change)


@pytest.mark.parametrize(
    ("edit", "kind", "sentence"),
    [
        (
            annotation(category_id=3),
            "category",
            r"annotation 1 \(image 7, a\.jpg\) has category_id 3, which is not among",
        ),
        (
            annotation(image_id=9),
            "image-id",
            r"annotation 1 \(image 9\) belongs to an image that is",
        ),
        (annotation(id=2), "duplicate-id", "annotation 2 .* has the id of an earlier annotation"),
        (annotation(id="x"), "structure", "annotation 'x' .* whole numbers"),
        (annotation(image_id=None), "structure", "whole numbers"),
        (annotation(category_id=True), "structure", "whole numbers"),
        (lambda d: d["annotations"][0].pop("image_id"), "structure", "annotation number 1 needs"),
        (lambda d: d["annotations"].insert(0, []), "structure", "annotation number 1 needs"),
        (annotation(iscrowd=2), "iscrowd", "has iscrowd 2: 0 for a single object, 1 for a crowd"),
        (annotation(iscrowd=None), "iscrowd", "has iscrowd None"),
        (annotation(ignore=1), "ignore", "is marked 'ignore'"),
        (image(id=7), "duplicate-id", r"image 7 \(b\.png\) has the id of an earlier"),
        (image(id="8"), "structure", "needs a whole number as id"),
        (image(width=0), "structure", "width 0 and height 20"),
        (image(height=19.5), "structure", "width 20 and height 19.5"),
        (lambda d: d["images"][1].pop("height"), "structure", "height None"),
        (lambda d: d["images"][1].pop("file_name"), "structure", "image number 2 needs the keys"),
        (lambda d: d["images"].append("x"), "structure", "image number 3 needs the keys"),
        (image(file_name=3), "structure", "the name of a file as file_name"),
        (image(file_name=""), "structure", "the name of a file as file_name"),
        (image(file_name="b\0.png"), "structure", "the name of a file as file_name"),
        (image(file_name="c.png"), "image-missing", r"image 8: .*c\.png does not exist"),
        (image(file_name="B.PNG"), "image-missing", r"folder has b\.png, so correct upper"),
        (category(id=1), "duplicate-id", "category number 2 has the id 1"),
        (category(id="4"), "structure", "ids are whole numbers"),
        (category(name=""), "structure", "needs a text as its name"),
        (lambda d: d["categories"].append("x"), "structure", "category number 3 needs the keys"),
    ],
)
def test_bad_records(root, edit, kind, sentence):
    problems = check_coco(write(root, edited(edit)), root)
    assert problems[0].kind == kind
    with pytest.raises(DataError, match=sentence) as caught:
        raise_on_problems(problems)
    assert "train.json" in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "kind", "text"),
    [
        (annotation(area=None), "area", "annotation 1 .* has no area: evaluation by size takes"),
        (lambda d: d["annotations"][0].pop("area"), "area", "has no area"),
        (annotation(area=float("nan")), "area", "has the area nan"),
        (annotation(area=-1), "area", "has the area -1"),
        (lambda d: d["annotations"][0].pop("iscrowd"), "iscrowd", "annotation 1 .* no iscrowd"),
        (annotation(segmentation=[]), "mask-missing", "annotation 1 .* has no segmentation, but"),
        (
            category(name="nut"),
            "category",
            r"category number 2 \(id 4\) has the name 'nut' of category 1",
        ),
        (
            lambda d: d["images"].append({**d["images"][1], "id": 9, "file_name": "./b.png"}),
            "duplicate-file",
            r"image 9 \(\./b\.png\) is the file of image 8, too",
        ),
    ],
)
def test_warnings_do_not_keep_from_training(root, edit, kind, text):
    problems = check_coco(write(root, edited(edit)), root)
    assert [(problem.kind, problem.severity) for problem in problems] == [(kind, "warning")]
    assert re.search(text, problems[0].message)
    raise_on_problems(problems)


def test_names_that_differ_in_case_only(root):
    Image.new("RGB", (20, 20)).save(root / "B.PNG")
    data = edited(lambda d: d["images"].append({**d["images"][1], "id": 9, "file_name": "B.PNG"}))
    (problem,) = check_coco(write(root, data), root)
    assert (problem.kind, problem.severity) == ("file-case", "warning")
    assert "image 9 (B.PNG) and image 8 (b.png) differ in upper and lower case" in problem.message


def test_files_that_are_not_listed_are_noted(root):
    Image.new("RGB", (20, 20)).save(root / "z.png")
    json_file = write(root, GOOD)
    assert check_coco(json_file, root) == []
    (problem,) = check_coco(json_file, root, check_files="open")
    assert (problem.kind, problem.severity) == ("unlisted", "note")
    assert str(root / "z.png") in problem.message


def test_an_annotation_of_id_0_is_noted(root):
    (problem,) = check_coco(write(root, edited(annotation(id=0))), root)
    assert (problem.kind, problem.severity, problem.annotation_id) == ("zero-id", "note", 0)


def test_boxes_alone_need_no_masks(root):
    data = edited(lambda d: [item.pop("segmentation") for item in d["annotations"]])
    assert check_coco(write(root, data), root) == []


def test_everything_about_one_record_is_found(root):
    edit = annotation(
        category_id=99, bbox=[1, 2, -3, 4], segmentation=[[1, 2], [1] * 7], area="x", iscrowd="no"
    )
    problems = check_coco(write(root, edited(edit)), root)
    kinds = ["category", "box", "polygon", "polygon", "area", "iscrowd"]
    assert [problem.kind for problem in problems] == kinds
    assert {(problem.image_id, problem.annotation_id) for problem in problems} == {(7, 1)}


def test_all_problems_are_found_in_one_pass_and_one_is_raised(root):
    def edit(data):
        data["annotations"][0]["category_id"] = 99
        data["annotations"][1]["bbox"][2] = -1
        data["images"][0]["file_name"] = "gone.jpg"

    problems = check_coco(write(root, edited(edit)), root)
    assert [problem.kind for problem in problems] == ["image-missing", "category", "box"]
    with pytest.raises(DataError, match=r"gone\.jpg.*\(2 more problems in the same data set"):
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


def test_a_thousand_missing_files_are_not_looked_up_one_by_one(root, monkeypatch):
    looks = []
    monkeypatch.setattr(image_check, "_MAX_SECOND_LOOKS", 3)
    monkeypatch.setattr(image_check.os.path, "isfile", lambda path: looks.append(path))
    images = [{**GOOD["images"][0], "id": i, "file_name": f"{i}.jpg"} for i in range(100, 120)]
    data = edited(lambda d: d["images"].extend(images))
    problems = check_coco(write(root, data), root)
    assert len(problems) == 20
    assert {problem.kind for problem in problems} == {"image-missing"}
    assert len(looks) == 3


def test_raising_nothing():
    raise_on_problems([])
    raise_on_problems([Problem("box-empty", "a warning", "warning")])
