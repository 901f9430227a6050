"""Overrides, whatever is typed: set where they were meant to be, or refused in one sentence."""

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from iwin_d2.config_overrides import apply_overrides, parse_value
from iwin_d2.d2.config import LazyCall as L
from iwin_d2.errors import ConfigError

quick = settings(max_examples=100, deadline=None, derandomize=True)


def backbone(embed_dim, depths, drop_path_rate=0.0):
    return embed_dim, depths, drop_path_rate


def config() -> DictConfig:
    content = {
        "model": {
            "backbone": {"bottom_up": L(backbone)(embed_dim=96, depths=[2, 2, 6, 2])},
            "num_classes": 80,
            "head": {"num_classes": "${..num_classes}", "names": ["cat", "dog"]},
            "alias": "${.head}",
            "nowhere": "${gone}",
            "by_name": {"_target_": "torch.nn.Linear", "in_features": 3},
            "no_target": {"_target_": "no.such.thing", "width": 2},
        },
        "optimizer": {"lr": 1e-4, "betas": [0.9, 0.999]},
        "heads": [{"iou": 0.5}, {"iou": 0.6}, [1, [2]]],
        "empty": None,
        "open": "???",
        "plain": {},
        1: {2: 3},
    }
    return DictConfig(content, flags={"allow_objects": True})


def leaves(cfg: DictConfig) -> dict[tuple, object]:
    """All values by their paths, interpolations as they are written."""

    def walk(node, path):
        if isinstance(node, (dict, list)) and node:
            items = node.items() if isinstance(node, dict) else enumerate(node)
            for key, child in items:
                yield from walk(child, (*path, str(key)))
        else:
            yield path, node

    return dict(walk(OmegaConf.to_container(cfg, resolve=False), ()))


# What can be set: every key of the config whose path leads through no reference.
KEYS = [
    "model.backbone.bottom_up.embed_dim",
    "model.backbone.bottom_up.depths",
    "model.backbone.bottom_up.depths.2",
    "model.backbone.bottom_up.depths[3]",
    "model.num_classes",
    "model.head.num_classes",
    "model.head.names.0",
    "model.alias",
    "model.nowhere",
    "model.by_name.in_features",
    "model.no_target.width",
    "optimizer.lr",
    "optimizer.betas.1",
    "heads.0.iou",
    "heads.2",
    "heads.2.1.0",
    "empty",
    "open",
    "1.2",
]

# Texts that look like the parts of keys and values, so that many examples come far.
pieces = st.sampled_from([*"abzj_.019-+e,: \t\n#%&*!'\"\\[]{}()$=é\u0000", "${", "???", "None"])
noise = st.one_of(st.text(max_size=20), st.lists(pieces, max_size=12).map("".join))
NAMES = """
model backbone bottom_up embed_dim depths head alias nowhere by_name no_target optimizer lr betas
heads iou empty open plain 0 1 2 -1 99 new _target_ __class__ bias [0] [0 ]
"""
names = st.sampled_from([*NAMES.split(), "", " ", "9" * 5000])
keys = st.one_of(st.sampled_from(KEYS), st.lists(names, max_size=5).map(".".join), noise)
overrides = st.one_of(
    noise, st.tuples(st.sampled_from(["", "+"]), keys, st.just("="), noise).map("".join)
)

# Values that a config can hold and that mean nothing special in it.
texts = st.text(max_size=8).filter(lambda text: "$" not in text and text != "???")
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(texts | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


def is_one_sentence(error: ConfigError, *typed: str) -> bool:
    """One line, but for line breaks that were typed in the key itself."""
    return len(str(error).splitlines()) <= 1 + sum(len(text.splitlines()) for text in typed)


@quick
@given(noise)
def test_any_text_is_a_value_or_refused(text):
    try:
        value = parse_value(text)
    except ConfigError as error:
        assert "brackets" in str(error) and is_one_sentence(error)
    else:
        assert value is None or isinstance(value, (bool, int, float, str, list, tuple, dict))


@quick
@given(values)
def test_what_python_writes_is_read_again(value):
    parsed = parse_value(repr(value))
    assert parsed == value and type(parsed) is type(value)


@quick
@given(st.sampled_from(["inf", "-inf", "+Inf", "INF"]))
def test_infinity(text):
    assert math.isinf(parse_value(text))


@quick
@given(st.lists(overrides, max_size=3))
def test_any_override_is_applied_or_refused(texts):
    cfg = config()
    try:
        assert apply_overrides(cfg, texts) is cfg
    except ConfigError as error:
        typed = [text for text in texts if len(text.splitlines()) > 1]
        assert is_one_sentence(error, *typed)


@quick
@given(st.sampled_from(KEYS), values)
def test_the_value_arrives_and_nothing_else_changes(key, value):
    cfg = config()
    before = leaves(cfg)
    apply_overrides(cfg, [f"{key}={value!r}"])
    after = leaves(cfg)
    path = tuple(key.replace("[", ".").replace("]", "").split("."))

    def split(content):
        there = {p[len(path) :]: v for p, v in content.items() if p[: len(path)] == path}
        return there, {p: v for p, v in content.items() if p[: len(path)] != path}

    there, others = split(after)
    assert others == split(before)[1]
    holder = DictConfig({"x": value}, flags={"allow_objects": True})
    assert there == {p[1:]: v for p, v in leaves(holder).items()}


@quick
@given(st.dictionaries(st.sampled_from(["embed_dim", "depths", "drop_path_rate"]), values))
def test_a_mapping_sets_its_keys_and_no_others(value):
    at_once = apply_overrides(config(), [f"model.backbone.bottom_up={value!r}"])
    texts = [f"model.backbone.bottom_up.{name}={item!r}" for name, item in value.items()]
    assert leaves(at_once) == leaves(apply_overrides(config(), texts))


@quick
@given(st.sampled_from(["", "model.", "plain.", "model.head."]), values)
def test_a_new_key_takes_any_value(parent, value):
    cfg = apply_overrides(config(), [f"+{parent}brand_new={value!r}"])
    found = OmegaConf.to_container(cfg, resolve=False)
    for name in [*parent.split(".")[:-1], "brand_new"]:
        found = found[name]
    assert found == value


@st.composite
def misspelt(draw):
    """A name in a key, and the key with one letter of that name doubled, lost or changed."""
    key = draw(st.sampled_from(KEYS[: KEYS.index("1.2")]))
    parts = key.split(".")
    position = draw(st.sampled_from([i for i, part in enumerate(parts) if part.isidentifier()]))
    name = parts[position]
    at = draw(st.integers(0, len(name) - 1))
    wrong = draw(st.sampled_from(["", name[at] * 2, "q", name[at].swapcase(), name[at] + "x"]))
    parts[position] = name[:at] + wrong + name[at + 1 :]
    assume(parts[position] != name)
    return name, ".".join(parts)


@quick
@given(misspelt(), st.sampled_from(["1", "[1, 2]", "{a: 1}", "text"]))
def test_a_misspelt_key_is_refused_and_the_right_one_named(keys, value):
    name, wrong = keys
    override = f"{wrong}={value}"
    cfg = config()
    before = leaves(cfg)
    with pytest.raises(ConfigError, match="unknown config key") as caught:
        apply_overrides(cfg, [override])
    assert name in str(caught.value).split(f"{override!r}.", 1)[1]
    assert leaves(cfg) == before
