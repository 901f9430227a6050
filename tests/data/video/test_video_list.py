"""Lists of videos: what they say, what is wrong with them, and how little they hold."""

import itertools
import pickle
import tracemalloc

import numpy as np
import pytest

from iwin_d2.d2.data import build_detection_test_loader
from iwin_d2.data.loader import build_train_loader
from iwin_d2.data.video.records import (
    list_problems,
    load_video_list,
    num_video_classes,
    video_classes,
)
from iwin_d2.errors import DataError


@pytest.fixture
def write(tmp_path):
    """Write a list, and (empty) files for its videos."""

    def write(content, *videos, encoding="utf-8"):
        for name in videos:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        path = tmp_path / "list.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


def pairs(videos, root):
    return [(r["file_name"].removeprefix(f"{root}/"), r["label"]) for r in videos]


@pytest.mark.parametrize(
    "content",
    [
        "a.mp4 0\nsub dir/b c.mp4 12\nü.mp4 3",
        "a.mp4 0\r\nsub dir/b c.mp4 12\r\nü.mp4 3\r\n",
        "a.mp4\t0\nsub dir/b c.mp4\t12\nü.mp4\t3\n",
        "a.mp4,0\nsub dir/b c.mp4,12\n\n\nü.mp4,3\n",
        "a.mp4, 0\nsub dir/b c.mp4 , 12\nü.mp4,3\n",
        "a.mp4;0\nsub dir/b c.mp4;12\nü.mp4;3\n",
        "  a.mp4   0  \nsub dir/b c.mp4   12\n\tü.mp4 03\n",
        b"\xef\xbb\xbf" + "a.mp4 0\nsub dir/b c.mp4 12\nü.mp4 3\n".encode(),
        "path,label\na.mp4,0\nsub dir/b c.mp4,12\nü.mp4,3\n",
        "Label;Split;Video\n0;train;a.mp4\n12;train;sub dir/b c.mp4\n3;train;ü.mp4\n",
        '"a.mp4",0\n"sub dir/b c.mp4",12\nü.mp4,3\n',
        'file_name,label\n"a.mp4","0"\n"sub dir/b c.mp4","12"\n\n"ü.mp4","3"\n',
    ],
)
def test_every_way_to_write_a_list(write, tmp_path, content):
    videos = load_video_list(write(content, "a.mp4"))
    assert pairs(videos, tmp_path) == [("a.mp4", 0), ("sub dir/b c.mp4", 12), ("ü.mp4", 3)]
    assert [record["image_id"] for record in videos] == [0, 1, 2]
    assert videos.labels.tolist() == [0, 12, 3]
    assert videos[-1] == videos[2]
    with pytest.raises(IndexError):
        videos[3]


def test_paths_start_at_the_root(write, tmp_path):
    path = write("a.mp4 0\n/elsewhere/b.mp4 1\n", "videos/a.mp4")
    videos = load_video_list(path, root=tmp_path / "videos")
    assert videos[0]["file_name"] == f"{tmp_path}/videos/a.mp4"
    assert videos[1]["file_name"] == "/elsewhere/b.mp4"
    with pytest.raises(DataError, match=r"list.txt are not there, such as .*wrong/a.mp4: set root"):
        load_video_list(path, root=tmp_path / "wrong")


def test_one_video_that_is_there_is_enough(write):
    names = [f"{number}.mp4" for number in range(40)]
    videos = load_video_list(write("".join(f"{name} 0\n" for name in names), *names[1:3], *names))
    assert len(videos) == 40


def test_names_of_classes(write, tmp_path):
    classes = tmp_path / "classes.txt"
    classes.write_text("playing guitar\nswimming\nyoga\n")
    numbers = write("a.mp4 2\nb.mp4 0\n", "a.mp4")
    assert video_classes(numbers, classes) == ["playing guitar", "swimming", "yoga"]
    assert load_video_list(numbers, classes=classes).class_names[1] == "swimming"
    assert video_classes(numbers) == ["0", "1", "2"] and num_video_classes(numbers) == 3
    assert num_video_classes(numbers, num_classes=5) == 5
    assert num_video_classes(numbers, ["x", "y", "z"]) == 3
    with pytest.raises(DataError, match="3 names of classes, but num_classes=4"):
        num_video_classes(numbers, classes, num_classes=4)
    for content in ("a.mp4,yoga\nb.mp4,playing guitar\n", "label,path\nyoga,a.mp4\n0,b.mp4\n"):
        named = load_video_list(write(content, "a.mp4"), classes=classes)
        assert pairs(named, tmp_path) == [("a.mp4", 2), ("b.mp4", 0)]
    with pytest.raises(DataError, match=r"line 2: flying is no label of b.mp4"):
        load_video_list(write("a.mp4,yoga\nb.mp4,flying\n", "a.mp4"), classes=classes)


BAD = {
    "": "list.txt is empty",
    "\n \n": "list.txt is empty",
    "a.mp4 0\nb.mp4\n": "line 2: b.mp4 has no label behind it",
    "a.mp4 0\nb.mp4 -1\n": "line 2: b.mp4 -1 has no label behind it",
    "a.mp4 0\nb.mp4 1.5\n": "line 2: b.mp4 1.5 has no label behind it",
    "a.mp4 0\n17\n": "line 2: 17 has no label behind it",
    "a.mp4 0\nb.mp4 12345678901234\n": "line 2: b.mp4 12345678901234 has no label",
    "a.mp4,0\n,1\n": "line 2: there is no path before the label",
    "a.mp4 0\nb.mp4 1\nc.mp4,2\n": (
        r"mixes separators: 1 of its lines, line 3 the first, have commas .* the others spaces"
    ),
    "a.mp4 0\nb.mp4\t1\nc.mp4 2\n": "line 2 the first, have tabs",
    "a.mp4 0\nb.mp4 3\n": r"line 2: label 3 of b.mp4 is out of range, as there are 3 classes",
    "path,label\na.mp4\n": "line 2: a.mp4 has no label behind it",
}


@pytest.mark.parametrize("content", BAD)
def test_bad_lists_end_in_a_sentence(write, content):
    path = write(content, "a.mp4")
    with pytest.raises(DataError, match=BAD[content]) as raised:
        load_video_list(path, num_classes=3)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_the_first_problem_and_the_number_of_the_others(write):
    path = write("a.mp4 0\nb.mp4\nc.mp4\nd.mp4,1\ne.mp4 9\n", "a.mp4")
    with pytest.raises(DataError, match=r"line 2: .* \(3 more problems .*tools/check_dataset.py"):
        load_video_list(path, num_classes=3)
    videos, lines, problems = list_problems(path, num_classes=3)
    assert [problem.kind for problem in problems] == ["line", "line", "separator", "label-values"]
    assert len(videos) == 3 and lines.tolist() == [1, 4, 5]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"a\0.mp4 0\n", "is not text"), ("a.mp4 0\n".encode("utf-16"), "is not text"), (None, "")],
)
def test_files_that_are_no_lists(write, tmp_path, content, sentence):
    path = tmp_path / "none.txt" if content is None else write(content)
    with pytest.raises(DataError, match=sentence or "none.txt does not exist"):
        load_video_list(path)
    with pytest.raises(DataError, match="cannot be read"):
        load_video_list(tmp_path)


def test_a_list_holds_its_text_and_a_few_numbers_a_line(tmp_path):
    count = 50_000
    path = tmp_path / "long.txt"
    path.write_text("".join(f"class_{i % 400}/video_{i:09}.mp4 {i % 400}\n" for i in range(count)))
    (tmp_path / "class_0").mkdir()
    (tmp_path / "class_0/video_000000000.mp4").touch()
    size = path.stat().st_size
    tracemalloc.start()
    videos = load_video_list(path)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < size + 17 * count
    # Marks for a block of text at a time, some arrays of a number for each line; never an object.
    assert peak < 2 * size + 100 * count
    assert len(pickle.dumps(videos)) < size + 17 * count  # what a worker that is no fork is sent
    assert videos[49_999]["file_name"].endswith("class_399/video_000049999.mp4")
    assert np.array_equal(videos.labels, np.arange(count) % 400)


class Passing:
    """A mapper that hands records on."""

    unit = "video"

    def __call__(self, record):
        return record


@pytest.mark.parametrize("workers", [0, 1])
def test_lists_go_into_both_loaders(write, workers):
    names = [f"{number}.mp4" for number in range(9)]
    lines = "".join(f"{name} {number % 4}\n" for number, name in enumerate(names))
    videos = load_video_list(write(lines, *names))
    assert all(record["label"] == record["image_id"] % 4 for record in videos)
    loader = build_train_loader(
        videos,
        mapper=Passing(),
        total_batch_size=3,
        aspect_ratio_grouping=False,
        num_workers=workers,
        seed=0,
    )
    epoch = [record for batch in itertools.islice(loader, 3) for record in batch]
    assert sorted(epoch, key=lambda record: record["image_id"]) == list(videos)
    tests = build_detection_test_loader(videos, mapper=Passing(), num_workers=workers)
    assert [record for batch in tests for record in batch] == list(videos)
