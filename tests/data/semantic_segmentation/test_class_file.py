"""Class names from text files."""

import pytest

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import instantiate
from iwin_d2.data.semantic_segmentation import class_names, num_classes
from iwin_d2.errors import DataError


def write(tmp_path, content: bytes):
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"sky\ntree, dead\nm\xc3\xbcll\n",
        b"sky\r\n tree, dead\r\nm\xc3\xbcll",
        b"\xef\xbb\xbfsky\ntree, dead \nm\xc3\xbcll\n\n\n",
    ],
)
def test_names_in_the_order_of_the_lines(tmp_path, content):
    path = write(tmp_path, content)
    assert class_names(path) == ["sky", "tree, dead", "m\xfcll"]
    assert instantiate(L(num_classes)(classes=str(path))) == 3


def test_a_count_alone_or_beside_the_file(tmp_path):
    path = write(tmp_path, b"sky\ntree\n")
    assert num_classes(None, 7) == 7
    assert num_classes(path, 2) == 2
    with pytest.raises(DataError, match="has 2 names, but num_classes=3"):
        num_classes(path, 3)
    with pytest.raises(DataError, match="needs its classes"):
        num_classes(None)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"sky\ntree\nsky\n", "has the name 'sky' twice, in lines 1 and 3"),
        (b"sky\n\ntree\n", "line 2 of the class file .* is empty"),
        (b"", "is empty: write the names"),
        (b" \n\n", "is empty: write the names"),
        (b"1\tsky\n", "line 1 .* has tabs or control characters"),
        ("sky\nmüll".encode("latin-1"), r"is not UTF-8 text \(byte 5\)"),
        ("sky\ntree".encode("utf-16"), "is not UTF-8 text"),
        ("sky\ntree".encode("utf-16-le"), "is not UTF-8 text"),
    ],
)
def test_bad_class_files(tmp_path, content, sentence):
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=sentence) as caught:
        class_names(path)
    assert str(path) in str(caught.value)


def test_no_class_file(tmp_path):
    with pytest.raises(DataError, match="does not exist: check the path"):
        class_names(tmp_path / "classes.txt")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        class_names(tmp_path)
