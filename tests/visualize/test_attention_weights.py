"""Which tokens a window holds and where they attend: what is drawn is what the model computes."""

import numpy as np
import pytest
import torch
from attention_model import TinyDetector, sharpen
from torch import nn

from iwin_d2.errors import ConfigError
from iwin_d2.ops import interleaved_window_partition
from iwin_d2.visualize import window_attention


def model_input(height, width):
    generator = torch.Generator().manual_seed(1)
    return {"image": torch.randint(0, 256, (3, height, width), generator=generator)}


@pytest.fixture(scope="module")
def model():
    return sharpen(TinyDetector()).eval()


def attend(model, size=(70, 100), stage="res3", block=1, at=None):
    return window_attention(model, model_input(*size), stage=stage, block=block, at=at)


def watch(attn):
    """Have what goes in and out of a module kept."""
    seen = {}
    handle = attn.register_forward_hook(lambda _, args, out: seen.update(x=args[0], out=out))
    return seen, handle


@pytest.mark.parametrize("size", [(70, 100), (33, 40), (96, 96)])
@pytest.mark.parametrize(
    ("stage", "number", "block"), [("res2", 0, 0), ("res3", 1, 1), ("res5", 3, 0)]
)
def test_the_weights_give_the_output_of_the_models_own_attention(model, size, stage, number, block):
    attn = model.backbone.layers[number].blocks[block].attn
    seen, handle = watch(attn)
    with torch.no_grad():
        model([model_input(*size)])
    handle.remove()
    height, width = size
    for at in [(0, 0), (width - 1, height - 1), (width * 0.4, height * 0.7)]:
        found = attend(model, size, stage, block, at)
        assert found.map_size == seen["x"].shape[1:3]
        values = attn.qkv(torch.zeros_like(seen["x"][0, 0, 0])).expand(3, 3, -1).clone()
        for i, row in enumerate(found.rows):
            for j, column in enumerate(found.columns):
                if not found.padding[i, j]:
                    values[i, j] = attn.qkv(seen["x"][0, row, column])
        values = values.chunk(3, -1)[2].unflatten(-1, (attn.num_heads, -1))
        mixed = torch.einsum("hij,ijhd->hd", torch.from_numpy(found.weights), values).flatten()
        torch.testing.assert_close(attn.proj(mixed), seen["out"][0][found.token])
        assert found.weights.sum((1, 2)) == pytest.approx(np.ones(attn.num_heads), abs=1e-5)


@pytest.mark.parametrize("at", [(0, 0), (99, 69), (50, 20)])
def test_the_window_holds_the_tokens_that_the_operator_gathers(model, at):
    found = attend(model, at=at)
    height, width = found.map_size
    numbers = torch.arange(1.0, height * width + 1).reshape(1, height, width, 1)
    windows = interleaved_window_partition(numbers, 3)[..., 0]
    expected = windows[found.window[0] * found.groups[1] + found.window[1]].reshape(3, 3)
    rows, columns = np.meshgrid(found.rows, found.columns, indexing="ij")
    ours = np.where(found.padding, 0, rows * width + columns + 1)
    np.testing.assert_array_equal(ours, expected.numpy())
    assert found.token[0] in found.rows and found.token[1] in found.columns


def test_the_token_lies_under_the_pixel_and_the_middle_is_the_default(model):
    found = attend(model, at=(41, 30))
    assert (found.stride, found.token) == (8, (3, 5))
    assert attend(model).token == (35 // 8, 50 // 8)
    assert (found.image_size, found.input_size) == ((70, 100), (96, 128))
    assert (found.map_size, found.padded_size) == ((12, 16), (12, 18))


def test_attention_is_shared_out_among_image_and_paddings(model):
    found = attend(model, at=(44, 10))  # its window reaches into both paddings
    assert found.border.any() and found.padding.any() and not (found.border & found.padding).any()
    rows, columns = np.meshgrid(found.rows, found.columns, indexing="ij")
    np.testing.assert_array_equal(found.padding, columns >= 16)
    np.testing.assert_array_equal(found.border, ((rows >= 9) | (columns >= 13)) & (columns < 16))
    image = ~(found.border | found.padding)
    for head in (None, 0, 1):
        shares = [found.share(part, head) for part in (image, found.border, found.padding)]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert min(shares) > 0
    assert found.share(image) == pytest.approx(
        (found.share(image, 0) + found.share(image, 1)) / 2, abs=1e-6
    )


def test_a_map_smaller_than_the_window_is_mostly_padding():
    found = attend(sharpen(TinyDetector(window_size=7)), (64, 64), "res5", 0)
    assert (found.map_size, found.groups, found.padded_size) == ((2, 2), (1, 1), (7, 7))
    assert int((~found.padding).sum()) == 4
    # All tokens of the padding are equal, and so are their weights.
    assert np.ptp(found.weights[:, found.padding], axis=1) == pytest.approx(np.zeros(4), abs=1e-7)


def test_the_last_block_is_the_default_and_nothing_is_left_on_the_model(model):
    assert attend(model, block=None).block == 1
    with pytest.raises(ConfigError):
        window_attention(model, {"image": torch.zeros(4, 50, 50)}, stage="res2", block=0, at=None)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stage": "res6"}, "no stage res6: give one of res2, res3, res4, res5"),
        ({"block": 2}, "res3 has no block 2: its blocks are 0 to 1"),
        ({"stage": "res5", "block": 1}, "res5 has no block 1: its only one is 0"),
        ({"at": (100, 0)}, "100,0 is outside"),
        ({"at": (0, -1)}, "0,-1 is outside"),
    ],
)
def test_what_is_not_there_is_named(model, change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        attend(model, **change)


def test_a_stage_that_is_not_built_is_named():
    with pytest.raises(ConfigError, match="no stage res5: give one of res2, res3"):
        attend(TinyDetector(out_features=("res3",)), stage="res5", block=0)


def test_models_without_our_backbone_are_named():
    with pytest.raises(ConfigError, match=r"no Iwin backbone \(but Conv2d\)"):
        attend(nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 1)}))
