"""Lazy configs: files that import each other, calls, yaml."""

import collections
import logging

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from iwin_d2.d2.config import LazyCall as L
from iwin_d2.d2.config import LazyConfig, instantiate
from iwin_d2.d2.framework import USE_DETECTRON2
from iwin_d2.errors import ConfigError

native_only = pytest.mark.skipif(USE_DETECTRON2, reason="the errors and types of native")

Pair = collections.namedtuple("Pair", "left right")


class Recorder:
    made = 0

    def __init__(self, x, y=2, *, items=(), other=None):
        Recorder.made += 1
        self.x, self.y, self.items, self.other = x, y, items, other


class Fails:
    def __init__(self):
        raise RuntimeError("inside the target")


@pytest.fixture
def tree(tmp_path):
    """Config files at three depths."""
    (tmp_path / "common" / "models").mkdir(parents=True)
    (tmp_path / "projects" / "x" / "configs").mkdir(parents=True)
    (tmp_path / "common" / "models" / "net.py").write_text(
        "from torch.nn import Linear\n"
        "from iwin_d2.d2.config import LazyCall as L\n"
        "from ..train import train\n"
        "model = L(Linear)(in_features=3, out_features='${.in_features}')\n"
        "plain = dict(a=1, b=dict(c=[1, 2]))\n"
        "_hidden = dict(a=1)\n"
        "number = 5\n"
        "def helper(): pass\n"
    )
    (tmp_path / "common" / "train.py").write_text("train = dict(max_iter=10, steps=[1, 2])\n")
    main = tmp_path / "projects" / "x" / "configs" / "main.py"
    main.write_text(
        "from ....common.models.net import model, plain\n"
        "from ....common.train import train\n"
        "model.in_features = 7\n"
        "train.steps.append(3)\n"
    )
    return tmp_path


def main_of(tree):
    return str(tree / "projects" / "x" / "configs" / "main.py")


def test_load_follows_relative_imports(tree):
    cfg = LazyConfig.load(main_of(tree))
    assert set(cfg) == {"model", "plain", "train"}
    assert isinstance(cfg.plain, DictConfig) and cfg.plain.b.c == [1, 2]
    assert cfg.train.steps == [1, 2, 3]
    layer = instantiate(cfg.model)
    assert (layer.in_features, layer.out_features) == (7, 7)


def test_edits_never_leak_between_loads(tree):
    first = LazyConfig.load(main_of(tree))
    first.train.max_iter = 99
    second = LazyConfig.load(main_of(tree))
    assert second.train.max_iter == 10 and second.train.steps == [1, 2, 3]
    # main.py edits what it imports; those who import the same file do not see it
    assert LazyConfig.load(str(tree / "common" / "models" / "net.py")).train.steps == [1, 2]


def test_only_public_mappings_are_loaded_unless_asked_for(tree):
    path = str(tree / "common" / "models" / "net.py")
    assert set(LazyConfig.load(path)) == {"model", "plain", "train"}
    assert LazyConfig.load(path, "number") == 5
    hidden, plain = LazyConfig.load(path, ("_hidden", "plain"))
    assert hidden.a == 1 and plain.a == 1


def test_load_rel(tmp_path):
    (tmp_path / "a.py").write_text("x = dict(y=1)\n")
    caller = tmp_path / "caller.py"
    caller.write_text(
        "from iwin_d2.d2.config import LazyConfig\nloaded = LazyConfig.load_rel('a.py', 'x')\n"
    )
    assert LazyConfig.load(str(caller), "loaded").y == 1


def test_relative_import_inside_a_function(tmp_path):
    (tmp_path / "a.py").write_text("x = dict(y=1)\n")
    (tmp_path / "b.py").write_text(
        "def get():\n    from .a import x\n    return x\nresult = get()\n"
    )
    assert LazyConfig.load(str(tmp_path / "b.py")).result.y == 1


@native_only
@pytest.mark.parametrize(
    "text, message",
    [
        ("x = dict(\ny = 3\n", r"main\.py, line 1: .*never closed"),
        ("\nfrom .nothing import x\n", r"main\.py, line 2 imports \.nothing, but there is no file"),
        ("from .bse import x\n", r"Did you mean base\?"),
        ("from .base import modl\n", r"line 1 imports 'modl'.*base\.py.*Did you mean model\?"),
        ("from .broken import x\n", r"broken\.py, line 2: "),
        ("from . import base\n", r"line 1: name the file"),
        ("from .base import model\n\nmodel.nme.x = 1\n", r"main\.py, line 3: .*nme"),
        ("x = dict(a=undefined)\n", r"main\.py, line 1: .*undefined"),
    ],
)
def test_errors_name_file_and_line(tmp_path, text, message):
    (tmp_path / "base.py").write_text("model = dict(name=1)\n")
    (tmp_path / "broken.py").write_text("\nx = = 1\n")
    (tmp_path / "main.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        LazyConfig.load(str(tmp_path / "main.py"))


@native_only
def test_missing_files_and_keys(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.py does not exist"):
        LazyConfig.load(str(tmp_path / "no.py"))
    with pytest.raises(ConfigError, match="must end in"):
        (tmp_path / "a.txt").write_text("")
        LazyConfig.load(str(tmp_path / "a.txt"))
    (tmp_path / "a.py").write_text("x = {}\n")
    with pytest.raises(ConfigError, match="does not define 'y'"):
        LazyConfig.load(str(tmp_path / "a.py"), "y")
    (tmp_path / "a.yaml").write_text("a: [1\n")
    with pytest.raises(ConfigError, match="not valid yaml"):
        LazyConfig.load(str(tmp_path / "a.yaml"))


def test_an_import_error_of_ordinary_code_stays_what_it_is(tmp_path):
    (tmp_path / "a.py").write_text("import no_such_package_anywhere\n")
    with pytest.raises(ModuleNotFoundError):
        LazyConfig.load(str(tmp_path / "a.py"))


def test_lazy_call_refuses_what_cannot_be_called():
    with pytest.raises(TypeError):
        L(3)


def test_instantiate_is_recursive():
    cfg = L(Recorder)(x=L(Recorder)(x=1), items=[L(Recorder)(x=2), 3, {"a": 4}])
    made = instantiate(cfg)
    assert isinstance(made.x, Recorder) and made.x.x == 1
    assert made.items[0].x == 2 and made.items[1] == 3 and made.items[2]["a"] == 4
    assert made.y == 2


@native_only
def test_lists_are_lists():
    made = instantiate(L(Recorder)(x=1, items=[1, [2]]))
    assert type(made.items) is list and type(made.items[1]) is list
    assert [r.x for r in instantiate([L(Recorder)(x=1), L(Recorder)(x=2)])] == [1, 2]


def test_what_is_no_call_is_returned_as_it_is():
    module = torch.nn.ReLU()
    assert instantiate(module) is module
    assert instantiate(5) == 5 and instantiate(None) is None
    plain = OmegaConf.create({"a": {"b": 1}})
    assert instantiate(plain) is plain
    unset = OmegaConf.create({"a": {"b": "???"}})
    assert instantiate(unset) is unset


def test_targets_by_name_and_as_calls():
    assert isinstance(instantiate(L("torch.nn.ReLU")()), torch.nn.ReLU)
    assert instantiate({"_target_": "builtins.dict", "a": 1}) == {"a": 1}


def give_recorder():
    return Recorder


def test_a_target_may_itself_be_a_call():
    assert instantiate(L(L(give_recorder)())(x=5)).x == 5


@native_only
def test_builtin_containers_as_targets():
    assert instantiate(L(dict)(a=L(Recorder)(x=1)))["a"].x == 1


def test_interpolations_resolve_and_calls_behind_them_are_made_anew():
    cfg = OmegaConf.create(
        {
            "n": 3,
            "shared": L(Recorder)(x="${n}"),
            "user": L(Recorder)(x=7, y="${.x}", other="${shared}", items=["${..x}", "${n}"]),
        },
        flags={"allow_objects": True},
    )
    user, shared = instantiate(cfg.user), instantiate(cfg.shared)
    assert (user.y, list(user.items)) == (7, [7, 3])
    assert isinstance(user.other, Recorder) and user.other.x == 3 and user.other is not shared


def test_objects_can_be_put_into_a_config():
    model = torch.nn.Linear(2, 2)
    cfg = OmegaConf.create(
        {"optimizer": L(torch.optim.SGD)(params=None, lr=0.1)}, flags={"allow_objects": True}
    )
    cfg.optimizer.params = L(model.parameters)()
    assert len(instantiate(cfg.optimizer).param_groups[0]["params"]) == 2


@native_only
@pytest.mark.parametrize(
    "call, message",
    [
        ({"z": 1}, r"config, at a\.b: .*Recorder takes no argument 'z'"),
        ({"x": 1, "itms": 1}, r"takes no argument 'itms'\. Did you mean items\?"),
        ({"y": 1}, r"Recorder needs the argument 'x'"),
        ({"x": "???"}, r"a\.b\.x: this has no value yet"),
        ({"x": "${nowhere}"}, r"a\.b\.x: this cannot be resolved: .*nowhere"),
    ],
)
def test_wrong_arguments_name_the_place(call, message):
    before = Recorder.made
    cfg = OmegaConf.create({"a": {"b": L(Recorder)(**call)}}, flags={"allow_objects": True})
    with pytest.raises(ConfigError, match=message):
        instantiate(cfg.a.b)
    assert Recorder.made == before


@native_only
def test_targets_that_do_not_exist():
    with pytest.raises(ConfigError, match=r"Did you mean Conv2d"):
        instantiate(L("torch.nn.Conv2D")())
    with pytest.raises(ConfigError, match="not something that can be called"):
        instantiate(L("math.pi")())


def test_errors_inside_a_target_pass_through():
    with pytest.raises(RuntimeError, match="inside the target"):
        instantiate(L(Fails)())


def test_save_and_load(tree, tmp_path):
    cfg = LazyConfig.load(main_of(tree))
    cfg.plain.rate = 1e-5
    cfg.plain.text = "1"
    cfg.plain.nothing = None
    path = str(tmp_path / "saved.yaml")
    LazyConfig.save(cfg, path)
    loaded = LazyConfig.load(path)
    assert loaded.plain == cfg.plain and loaded.train == cfg.train
    assert type(loaded.plain.rate) is float and loaded.plain.text == "1"
    assert OmegaConf.to_container(loaded.model)["out_features"] == "${.in_features}"
    assert instantiate(loaded.model).out_features == 7
    assert cfg.model._target_ is torch.nn.Linear  # saving changes nothing


def test_functions_and_classes_as_arguments_survive_saving(tmp_path):
    cfg = OmegaConf.create(
        {"a": L(Recorder)(x=torch.nn.ReLU, items=[torch.relu, len])}, flags={"allow_objects": True}
    )
    LazyConfig.save(cfg, str(tmp_path / "a.yaml"))
    loaded = LazyConfig.load(str(tmp_path / "a.yaml"))
    assert loaded.a.x is torch.nn.ReLU and loaded.a["items"][1] is len


@native_only
def test_what_yaml_cannot_express_is_told(tmp_path, caplog):
    cfg = OmegaConf.create({"a": {"f": lambda: 3, "b": 1}}, flags={"allow_objects": True})
    with caplog.at_level(logging.WARNING):
        LazyConfig.save(cfg, str(tmp_path / "a.yaml"))
    assert "a.f (function)" in caplog.text
    assert LazyConfig.load(str(tmp_path / "a.yaml")).a.b == 1


@native_only
def test_yaml_files_load(tmp_path):
    (tmp_path / "a.yaml").write_text("a: {_target_: torch.nn.ReLU}\nlr: 1e-4\n")
    cfg = LazyConfig.load(str(tmp_path / "a.yaml"))
    assert isinstance(instantiate(cfg.a), torch.nn.ReLU) and cfg.lr == 1e-4
