"""Files written whole or not at all."""

import os
import stat

import pytest

from iwin_d2.files import atomic_write, remove_leftovers


def test_the_new_content_appears_at_the_end_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_write(path, "w") as file:
        file.write("new €")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text(encoding="utf-8") == "new €"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_kill_leaves_is_found_and_removed(tmp_path):
    path = tmp_path / "model_0000001.pth"
    path.write_bytes(b"old")
    for name in (".hidden", "notes.tmp", ".a.tmp"):
        (tmp_path / name).write_bytes(b"mine")
    process = os.fork()
    if not process:
        with atomic_write(path) as file:
            file.write(b"new")
            os._exit(0)  # as a kill would: nothing is cleaned up
    os.waitpid(process, 0)
    (left,) = remove_leftovers(tmp_path)
    assert left.name.startswith(".model_0000001.pth.")
    assert sorted(os.listdir(tmp_path)) == [".a.tmp", ".hidden", "model_0000001.pth", "notes.tmp"]
    assert path.read_bytes() == b"old"


def test_a_new_file_has_the_usual_permissions(tmp_path):
    with atomic_write(tmp_path / "ours"):
        pass
    (tmp_path / "usual").touch()
    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("ours", "usual")]
    assert modes[0] == modes[1]
