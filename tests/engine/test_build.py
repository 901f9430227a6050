"""What cannot be built is named by its place in the config."""

import pytest
import torch
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.engine.build import build, reason_of
from iwin_d2.errors import ConfigError, DataError


class Part:
    def __init__(self, size, name="a", inner=None):
        if size < 0:
            raise ValueError("size is negative")
        self.size = size


def hold(a):
    return a


def make(kind):
    raise kind("of no use")


def config(part) -> DictConfig:
    return DictConfig({"model": {"part": part}, "other": L(Part)(size=1)})


def test_what_can_be_built_is_built():
    assert build(config(L(Part)(size=2)), "model.part").size == 2
    assert build(config(None), "model.part") is None


def test_a_call_that_fails_is_named_by_its_place():
    cfg = config(L(Part)(size=1, inner=L(Part)(size=-1)))
    with pytest.raises(ConfigError, match=r"^model\.part cannot be built .*size is negative"):
        build(cfg, "model.part")
    cfg = config(L(hold)(a=L(Part)(size=-1)))
    with pytest.raises(ConfigError, match=r"^model\.part\.a cannot be built .*negative, in Part\)"):
        build(cfg, "model.part")


def test_arguments_are_shown_where_the_error_does_not_say_them():
    cfg = config(L(Part)(size="big", inner=L(Part)(size=3)))
    message = r"^model\.part cannot be built \(TypeError: .*, in Part"
    with pytest.raises(ConfigError, match=message) as caught:
        build(cfg, "model.part")
    assert isinstance(caught.value.__cause__, TypeError)
    cfg = config(L(torch.nn.Linear)(in_features="x", out_features=2))
    with pytest.raises(ConfigError, match=r"Linear\(in_features='x', out_features=2\)"):
        build(cfg, "model.part")


def test_functions_and_errors_of_their_own():
    with pytest.raises(ConfigError, match=r"^model\.part cannot be built \(OSError: of no use, in"):
        build(config(L(make)(kind=OSError)), "model.part")
    with pytest.raises(DataError, match=r"^of no use$"):
        build(config(L(make)(kind=DataError)), "model.part")


def test_values_left_open_are_left_to_others():
    with pytest.raises((MissingMandatoryValue, ConfigError), match=r"\?\?\?|Missing mandatory"):
        build(config(L(Part)(size="???")), "model.part")


def test_reasons_are_one_line():
    assert reason_of(ValueError("two\nlines.")) == "ValueError: two lines"
    assert reason_of(KeyError("p9")) == "KeyError: 'p9'"
    assert reason_of(KeyError("no such thing")) == "KeyError: no such thing"
    assert reason_of(AssertionError()) == "AssertionError"
    assert len(reason_of(ValueError("x" * 1000))) < 350
