"""Reading json files: numbers shared, one key alone, and what is wrong with a file."""

import gc
import json

import pytest

from iwin_d2.data import coco_json
from iwin_d2.data.coco_json import read_coco_json, read_single_list
from iwin_d2.data.memory import paused_gc, release_memory, spare_gc
from iwin_d2.errors import DataError


def write(folder, content) -> str:
    path = folder / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return str(path)


@pytest.mark.parametrize("limit", [0, 2, 2**18])
def test_numbers_are_those_of_json(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(coco_json, "_MAX_SHARED_NUMBERS", limit)
    text = "[0.5, 0.5, -0.0, 0.0, 1e3, 12, 1.25, 1.250, NaN, -Infinity, 1e999, 0.1]"
    read = read_coco_json(write(tmp_path, text))
    assert repr(read) == repr(json.loads(text))
    assert (read[0] is read[1]) == (limit > 0)


def test_a_number_of_five_thousand_digits(tmp_path):
    with pytest.raises(DataError, match=r"file\.json is not COCO: Exceeds the limit"):
        read_coco_json(write(tmp_path, f'{{"images": [{"1" * 5000}]}}'))


def test_lists_within_lists_without_end(tmp_path):
    with pytest.raises(DataError, match="nests too deeply"):
        read_coco_json(write(tmp_path, "[" * 200_000))


CATEGORIES = [{"id": 1, "name": 'n"ut'}, {"id": 3, "name": "Grün" * 30_000}]


@pytest.mark.parametrize(
    "content",
    [
        {"categories": CATEGORIES, "images": [1, 2]},
        {"images": [1] * 40_000, "categories": CATEGORIES},
        {"info": 'all "categories": [] here', "categories": CATEGORIES},
    ],
)
@pytest.mark.parametrize("indent", [None, 4])
def test_one_list_is_read_without_the_rest(tmp_path, content, indent, monkeypatch):
    monkeypatch.delattr(json, "load")
    path = write(tmp_path, json.dumps(content, indent=indent, ensure_ascii=False))
    assert read_single_list(path, "categories") == CATEGORIES


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"categories": 5}',
        '{"categories": [1, 2',
        '{"categories"',
        '{"info": {"categories": [7]}, "categories": [8]}',
        '{"info": "categories", "categories": [8]}',
    ],
)
def test_one_list_is_not_guessed(tmp_path, content):
    assert read_single_list(write(tmp_path, content), "categories") is None


def test_no_list_of_no_file(tmp_path):
    assert read_single_list(tmp_path / "gone.json", "categories") is None


def test_the_garbage_collector_is_left_as_it_was():
    with paused_gc():
        assert not gc.isenabled()
        with paused_gc():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    spare_gc(10)
    assert gc.get_freeze_count() == 0
    spare_gc(10**6)
    assert gc.get_freeze_count() > 0
    release_memory()
    assert gc.get_freeze_count() == 0
