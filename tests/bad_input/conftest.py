"""Fixtures of the corpus of bad inputs."""

import logging

import pytest
from bad_input import TINY, Coco, load_tool

from iwin_d2.engine.cli import run_tool


@pytest.fixture
def run_badly(capsys, monkeypatch):
    """Run a tool that must refuse what it is given; returns the one sentence that it says.

    run_badly(tool, *arguments) asserts the exit status 1, one line on stderr, and that no
    traceback is shown anywhere, log included; with before_training, also that no step was begun.
    """
    monkeypatch.delenv("IWIN_D2_TRACEBACK", raising=False)

    def run(tool: str, *arguments, before_training: bool = True) -> str:
        capsys.readouterr()
        status = run_tool(lambda: load_tool(tool)([str(argument) for argument in arguments]))
        printed = capsys.readouterr()
        assert status == 1, printed
        assert "Traceback" not in printed.out + printed.err
        assert not (before_training and "Training from iteration" in printed.out)
        (sentence,) = printed.err.splitlines()
        assert 10 < len(sentence) < 1000
        return sentence

    return run


@pytest.fixture(autouse=True)
def no_log_of_another_run():
    """Leave no handlers behind: one process runs many tools here, with a stdout for each."""
    yield
    for name in ("iwin_d2", "detectron2", "fvcore"):
        root = logging.getLogger(name)
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            handler.close()


@pytest.fixture
def data(tmp_path) -> Coco:
    """A small data set without fault."""
    return Coco(tmp_path / "data")


@pytest.fixture
def train_badly(run_badly, data):
    """Train one step on `data`, with flags and overrides; returns the sentence that stops it."""

    def train(*arguments, config=TINY, **options) -> str:
        return run_badly(
            "lazyconfig_train_net", *train_arguments(data, arguments, config), **options
        )

    return train


@pytest.fixture
def train_well(capsys, data):
    """Train one step on `data`, with flags and overrides; returns what is printed."""

    def train(*arguments, config=TINY) -> str:
        capsys.readouterr()
        argv = train_arguments(data, arguments, config)
        assert run_tool(lambda: load_tool("lazyconfig_train_net")(argv)) == 0
        assert (data.output / "model_final.pth").exists()
        return capsys.readouterr().out

    return train


def train_arguments(data: Coco, arguments, config) -> list[str]:
    """A command line: flags come before overrides."""
    texts = [str(argument) for argument in arguments]
    flags = [text for text in texts if text.startswith("--")]
    overrides = [text for text in texts if not text.startswith("--")]
    return ["--config-file", str(config), *flags, *data.overrides, *overrides]
