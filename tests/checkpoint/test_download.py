"""Published names and addresses, from a server on the loopback that can fail in every way."""

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from published_files import SMALL, TINY, build, classifier_file, copied, same_state

from iwin_d2.checkpoint import Checkpointer, download, load_pretrained
from iwin_d2.checkpoint.download import BASE_VARIABLE, locate
from iwin_d2.checkpoint.published import PUBLISHED
from iwin_d2.d2.utils.file_io import PathManager
from iwin_d2.errors import CheckpointError
from iwin_d2.modeling import iwin_tiny


class Server:
    """Gives `content` for every address, in the way that `manner` says, and notes the requests."""

    def __init__(self, content: bytes):
        self.content, self.manner, self.requests = content, "whole", []
        self.half_sent, self.go_on = threading.Event(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.path)
                getattr(outer, outer.manner)(self)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1.0"

    def stop(self):
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _head(self, request, status=200, **headers):
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), str(value))
        request.end_headers()

    def whole(self, request):
        self._head(request, Content_Length=len(self.content))
        request.wfile.write(self.content)

    def broken_off(self, request):
        self._head(request, Content_Length=len(self.content))
        request.wfile.write(self.content[: len(self.content) // 2])

    def broken_off_unannounced(self, request):
        self._head(request)
        request.wfile.write(self.content[: len(self.content) // 2])

    def stalled(self, request):
        self.broken_off(request)
        request.wfile.flush()
        self.half_sent.set()
        self.go_on.wait(20)

    def slow(self, request):
        self.stalled(request)
        try:
            request.wfile.write(self.content[len(self.content) // 2 :])
        except OSError:  # whom it was for is gone
            request.close_connection = True

    def missing(self, request):
        request.send_error(404)

    def failing(self, request):
        request.send_error(503)

    def web_page(self, request):
        page = b"<!DOCTYPE html><title>Log in</title>"
        self._head(request, Content_Type="text/html", Content_Length=len(page))
        request.wfile.write(page)

    def empty(self, request):
        self._head(request, Content_Length=0)

    def silent(self, request):
        request.close_connection = True


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    """The bytes of two published files."""
    folder = tmp_path_factory.mktemp("published")
    paths = {name: classifier_file(folder / f"{name}.pth", name) for name in (TINY, SMALL)}
    return {name: Path(path).read_bytes() for name, path in paths.items()}


@pytest.fixture
def server(classifiers, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = Server(classifiers[TINY])
    monkeypatch.setenv(BASE_VARIABLE, server.url)
    yield server
    server.stop()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("FVCORE_CACHE", str(folder))
    return folder


def files(cache):
    """What the cache holds, locks aside."""
    found = (path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")
    return sorted(path.name for path in found)


def test_a_name_is_fetched_once(server, cache, capfd):
    path = locate(TINY)
    assert server.requests == [f"/v1.0/{TINY}.pth"]
    assert Path(path).read_bytes() == server.content
    progress = capfd.readouterr().err
    assert f"{TINY}.pth" in progress and "100%" in progress
    assert locate(f"{TINY}.pth") == path and len(server.requests) == 1
    assert files(cache) == [f"{TINY}.pth"]


def test_a_model_by_name(server, cache):
    model = build(iwin_tiny)
    report = load_pretrained(model, TINY)
    assert f"the published {TINY}" in report.title and len(report.loaded) == 180
    other = build(iwin_tiny)
    Checkpointer(other).load(TINY)
    assert len(server.requests) == 1
    kept = {name: model.state_dict()[name] for name in report.loaded}
    assert same_state(kept, {name: other.state_dict()[name] for name in kept})


def test_the_frameworks_path_manager_knows_the_names(server, cache):
    assert PathManager.get_local_path(f"iwin://{TINY}") == locate(TINY)
    with PathManager.open(f"iwin://{TINY}", "rb") as file:
        assert file.read() == server.content


def test_another_base_address_and_cache_by_argument(server, cache, tmp_path, monkeypatch):
    monkeypatch.setenv(BASE_VARIABLE, "http://127.0.0.1:9/")
    path = locate(TINY, base_url=f"{server.url}/", cache_dir=tmp_path / "other")
    assert str(tmp_path / "other") in path and not files(cache)
    # The same name from elsewhere is another file.
    server.manner = "missing"
    with pytest.raises(CheckpointError, match="404"):
        locate(TINY, base_url=f"{server.url}/mirror", cache_dir=tmp_path / "other")


def test_a_folder_in_place_of_the_address(cache, tmp_path, monkeypatch):
    monkeypatch.setenv(BASE_VARIABLE, str(tmp_path))
    with pytest.raises(CheckpointError, match=rf"no {tmp_path}/{TINY}\.pth: .*{BASE_VARIABLE}"):
        locate(TINY)
    classifier_file(tmp_path / f"{TINY}.pth")
    assert locate(TINY) == str(tmp_path / f"{TINY}.pth")


# How the server answers, and what must be said of it beside the address.
FAILURES = {
    "broken_off": "cannot be fetched (it broke off after ",
    "broken_off_unannounced": " cannot be read as a checkpoint",
    "missing": "cannot be fetched (HTTP Error 404: Not Found): check the network, set "
    f"{BASE_VARIABLE} to an address or a folder that has it, or put the file at ",
    "failing": "cannot be fetched (HTTP Error 503",
    "web_page": " is a web page, not a checkpoint: fetch it anew, or correct the path.",
    "empty": " is empty (0 bytes), not a checkpoint",
    "silent": "cannot be fetched (Remote end closed connection without response)",
    "stalled": "cannot be fetched (timed out)",
}


@pytest.mark.parametrize("manner", FAILURES)
def test_what_is_not_whole_leaves_no_file(server, cache, monkeypatch, manner):
    monkeypatch.setattr(download, "_SILENCE", 0.3)
    server.manner = manner
    model = build(iwin_tiny)
    before = copied(model)
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(model, TINY)
    sentence = str(caught.value)
    assert sentence.startswith(f"{server.url}/{TINY}.pth ") and FAILURES[manner] in sentence
    assert "partial_" not in sentence and len(sentence.splitlines()) == 1
    assert not files(cache) and same_state(before, model.state_dict())
    server.manner = "whole"
    server.go_on.set()
    assert len(load_pretrained(model, TINY).loaded) == 180


def test_the_file_of_another_model_is_not_kept(server, cache, classifiers):
    server.content = classifiers[SMALL]
    with pytest.raises(CheckpointError) as caught:
        locate(TINY)
    assert str(caught.value).startswith(
        f"{server.url}/{TINY}.pth is an image classifier on Iwin-S with 1000 classes, not the "
        f"published {TINY}: "
    )
    assert not files(cache)


def test_a_file_that_would_run_code_is_not_kept(server, cache, tmp_path):
    torch.save({"model": print}, tmp_path / "code.pth")
    server.content = (tmp_path / "code.pth").read_bytes()
    with pytest.raises(CheckpointError, match=r"^http\S* holds \S*print: .*could run code"):
        locate(TINY)
    assert not files(cache)


def test_offline(server, cache):
    url = server.url
    kept = locate(TINY)
    server.stop()
    server.stop = lambda: None
    assert locate(TINY) == kept and locate(f"{url}/{TINY}.pth") == kept
    assert len(load_pretrained(build(iwin_tiny), TINY).loaded) == 180
    with pytest.raises(CheckpointError) as caught:
        locate(SMALL)
    sentence = str(caught.value)
    assert "cannot be fetched" in sentence and "refused" in sentence
    place = sentence.split("put the file at ")[1].rstrip(".")
    classifier_file(place, SMALL)  # as it advises
    assert locate(SMALL) == place


def test_addresses(server, cache):
    """Each is a file of its own, none outside of the cache."""
    path = locate(f"{server.url}/deep/any.pth")
    assert path.endswith("/v1.0/deep/any.pth") and path.startswith(str(cache))
    two = [locate(f"{server.url}/any.pth?id={number}") for number in (1, 2)]
    assert len({path, *two}) == 3 and len(server.requests) == 3
    outside = locate(f"{server.url}/../../../%2e%2e/%2Fetc/x%00y.pth")
    assert outside.startswith(f"{cache}/") and os.path.realpath(outside) == outside


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        download._fetch(f"{server.url}/x.pth", tmp_path / "file/x.pth", lambda path: None, "hint")


LOAD = f"""
import sys
from iwin_d2.checkpoint.download import locate
print("ready", flush=True)
sys.stdin.readline()
print(locate({TINY!r}), flush=True)
"""


@pytest.fixture
def processes(cache):
    """Starts a process that fetches when it is written a line to."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", LOAD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_killed_half_way_and_two_processes_at_once(server, cache, processes):
    server.manner = "slow"
    killed, other = processes(), processes()
    assert killed.stdout.readline() == other.stdout.readline() == "ready\n"
    killed.stdin.write("\n")
    killed.stdin.flush()
    assert server.half_sent.wait(20)
    killed.kill()
    killed.wait()
    assert f"{TINY}.pth" not in files(cache)
    # The one that comes first holds the lock until the server goes on.
    server.half_sent.clear()
    other.stdin.write("\n")
    other.stdin.flush()
    assert server.half_sent.wait(20)
    found = []
    thread = threading.Thread(target=lambda: found.append(locate(TINY)))
    thread.start()
    time.sleep(0.3)
    assert not found and len(server.requests) == 2
    server.go_on.set()
    thread.join(20)
    assert found == [other.stdout.readline().strip()]
    assert len(server.requests) == 2 and f"{TINY}.pth" in files(cache)
    assert Path(found[0]).read_bytes() == server.content


@pytest.mark.parametrize("name", [TINY.replace("tiny", "tinny"), f"{TINY[:-1]}.pth"])
def test_a_misspelt_name_names_the_nearest(name):
    with pytest.raises(CheckpointError, match=rf"checkpoint {name}: .* nearest to it is {TINY}\."):
        locate(name)


def test_every_published_name_has_its_address(cache, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(download, "_fetch", lambda url, *args: asked.append(url))
    monkeypatch.delenv(BASE_VARIABLE, raising=False)
    for name in PUBLISHED:
        locate(name)
    base = "https://github.com/Cominder/Iwin-Transformer/releases/download/v1.0/"
    assert asked == [f"{base}{name}.pth" for name in PUBLISHED]


def test_a_file_is_taken_before_a_published_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier_file(f"{TINY}.pth")
    assert locate(f"{TINY}.pth") == f"{TINY}.pth"
