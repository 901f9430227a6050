"""Whatever a file holds, it is loaded, or refused in a sentence with the model as it was."""

import random
import warnings

import pytest
import torch
from published_files import build, copied, same_state

from iwin_d2.checkpoint import load_pretrained
from iwin_d2.checkpoint.reading import read_checkpoint
from iwin_d2.checkpoint.weights import recognise
from iwin_d2.errors import UserError
from iwin_d2.modeling import IwinTransformer

LONG = "9" * 5000
NAMES = [
    "",
    ".",
    "layers",
    "patch_embed.proj.weight",
    "backbone.patch_embed.proj.weight",
    f"layers.{LONG}.blocks.{LONG}.norm1.weight",
    f"neck.lateral_convs.{LONG}.conv.weight",
    "roi_head.bbox_head.fc_cls.weight",
    "roi_heads.box_predictor.cls_score.weight",
    "head.weight",
    "backbone.time_embed",
    "norm7.weight",
    "module.x",
    "{0}.{}.%s\n",
]
VALUES = [
    torch.zeros(()),
    torch.zeros(0),
    torch.zeros(3, 0, 4, 4),
    torch.zeros(1).expand(2**40),
    torch.zeros(8, 3, 4, 4, dtype=torch.bool),
    torch.zeros(16, dtype=torch.float64),
    torch.full((16,), torch.nan),
    "text",
    None,
    {"a": torch.zeros(1)},
    [1, 2],
]
EXTRAS = {
    "meta": [None, 3, {"CLASSES": 5}, {"CLASSES": (1, None)}, {"config": ["num_heads=[1]"]}],
    "config": [[1], {"NUM_HEADS": {"NUM_HEADS": [[]]}}, {"WINDOW_SIZE": "7", 3: {4: {}}}],
    "metadata": [7, {"thing_classes": {}}, {"thing_classes": [None]}],
    "iwin_d2": [
        1,
        {"format": "1"},
        {"format": None},
        {"format": 1, "num_heads": "3"},
        {"format": 1},
    ],
    "model": [torch.zeros(2), 3, {"x": 1}],
    "state_dict": [None, [], {"y": torch.zeros(1)}],
    5: [torch.zeros(1)],
}


@pytest.fixture(scope="module")
def model():
    return build(lambda: IwinTransformer(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8)))


def spoil(state, draw):
    """A state dict with some names and values changed, in some container."""
    state = dict(state)
    for _ in range(draw.randrange(3)):
        name = draw.choice([*NAMES, *draw.sample(sorted(state), 3)])
        if draw.random() < 0.3:
            state.pop(name, None)
        else:
            state[name] = draw.choice(VALUES)
    prefix = draw.choice(["", "", "module.", "backbone.", "backbone.bottom_up."])
    state = {f"{prefix}{name}": value for name, value in state.items()}
    content = draw.choice([state, {"model": state}, {"state_dict": state}])
    for key in draw.sample(list(EXTRAS), draw.randrange(3)):
        content = {**content, key: draw.choice(EXTRAS[key])}
    return content


@pytest.mark.parametrize("seed", range(2))
def test_files_spoiled_at_random(tmp_path, model, seed):
    draw, path, refused = random.Random(seed), tmp_path / "spoiled.pth", 0
    good = model.state_dict()
    for _ in range(40):
        torch.save(spoil(good, draw), path)
        before = copied(model)
        options = {
            "part": draw.choice(["all", "backbone"]),
            "classes": draw.choice(["same", "new", [0, 1]]),
            "channels": draw.choice(["same", "adapt"]),
        }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                load_pretrained(model, path, **options)
        except UserError as error:
            refused += 1
            assert len(str(error)) < 1500 and len(str(error).splitlines()) == 1
            assert same_state_or_nan(before, model.state_dict())
    assert 10 < refused < 40


def same_state_or_nan(one, other):
    return same_state(
        {name: value.nan_to_num() for name, value in one.items()},
        {name: value.nan_to_num() for name, value in other.items()},
    )


def test_a_tensor_larger_than_the_memory_is_never_made(tmp_path):
    """A view with a stride of zero takes no room until it is copied."""
    state = {"patch_embed.proj.weight": torch.zeros(1).expand(96, 3, 2**20, 2**20)}
    torch.save(state, tmp_path / "vast.pth")
    weights = recognise(read_checkpoint(str(tmp_path / "vast.pth")), "vast.pth")
    assert weights.shapes["patch_embed.proj.weight"] == (96, 3, 2**20, 2**20)
