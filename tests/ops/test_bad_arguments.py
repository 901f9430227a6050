"""Arguments that do not fit: one sentence with the values received, whatever the entrance.

One table; each call is made through the public function, through the fake kernel (on meta tensors
and on fake ones) and straight to the C++ operator.
"""

import functools
from dataclasses import dataclass

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from iwin_d2.ops import (
    extension,
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
    use_backend,
)

PUBLIC = {
    "partition": interleaved_window_partition,
    "merge": interleaved_window_merge,
    "attention": interleaved_window_attention,
}


@dataclass(frozen=True)
class T:
    """A tensor argument, made where and as the entrance wants it."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    elsewhere: bool = False  # on another device than the others

    def make(self, device):
        if self.elsewhere:
            device = "cpu" if device == "meta" else "meta"
        return torch.zeros(self.shape, dtype=self.dtype, device=device)


@dataclass(frozen=True)
class Bad:
    """A call and what its error says; `only` names the entrances that can be called like this."""

    operator: str
    arguments: tuple
    message: str
    only: tuple[str, ...] = ("public", "meta", "fake", "c++")


MAP, QKV, GRAD = T((1, 4, 4, 8)), T((1, 4, 4, 24)), T((1, 4, 4, 8))
OPERATORS_ONLY = ("meta", "fake", "c++")

TABLE = [
    # Windows.
    *(
        Bad(operator, (x, window, *rest), f"window_size.*positive integer or a pair.*{got}")
        for operator, x, rest in (
            ("partition", MAP, ()),
            ("merge", T((1, 49, 8)), ((4, 4),)),
        )
        for window, got in (
            ((0, 7), "0, 7"),
            ((7, -1), "7, -1"),
            ((2, 2, 2), "2, 2, 2"),
            ((2,), "2"),
            ((), "[(\\[]"),
        )
    ),
    *(
        Bad("attention", (QKV, 2, window), f"window_size.*positive integer or a pair.*{got}")
        for window, got in (((0, 7), "0, 7"), ((7, -1), "7, -1"), ((2, 2, 2), "2, 2, 2"))
    ),
    Bad("partition", (MAP, 0), "window_size.*positive integer.*0", ("public",)),
    Bad("partition", (MAP, 7.0), "window_size.*positive integer.*7.0", ("public",)),
    Bad("partition", (MAP, (7, True)), "window_size.*positive integer.*True", ("public",)),
    Bad("attention", (QKV, 2, "7"), "window_size.*positive integer.*'7'", ("public",)),
    # Maps.
    Bad("partition", (T((2, 3, 4)), (7, 7)), r"\[B, H, W, C\].*\(2, 3, 4\)"),
    Bad("partition", (T((1, 2, 3, 4, 5)), (7, 7)), r"\[B, H, W, C\].*\(1, 2, 3, 4, 5\)"),
    Bad("partition", (T(()), (7, 7)), r"\[B, H, W, C\].*\(\)"),
    Bad("partition", (T((1, 0, 4, 8)), (7, 7)), r"empty side.*\(1, 0, 4, 8\)"),
    Bad("attention", (T((1, 4, 24)), 2, (7, 7)), r"\[B, T, H, W, 3 \* C\].*\(1, 4, 24\)"),
    Bad("attention", (T((1, 1, 1, 4, 4, 24)), 2, (7, 7)), r"got shape \(1, 1, 1, 4, 4, 24\)"),
    Bad("attention", (T((1, 4, 0, 24)), 2, (7, 7)), r"empty side.*\(1, 4, 0, 24\)"),
    Bad("attention", (T((1, 0, 4, 4, 24)), 2, (7, 7)), r"empty side.*\(1, 0, 4, 4, 24\)"),
    # What is to be merged.
    Bad("merge", (T((4, 49, 8)), (6, 6), (9, 9)), r"Gw, 36, C\].*\(6, 6\).*\(4, 49, 8\)"),
    Bad("merge", (T((4, 49)), (7, 7), (9, 9)), r"Gw, 49, C\].*\(4, 49\)"),
    Bad("merge", (T((3, 49, 8)), (7, 7), (9, 9)), r"3 windows.*\(9, 9\).* 4 windows.*\(7, 7\)"),
    Bad("merge", (T((4, 49, 8)), (7, 7), (0, 9)), r"size.*pair of positive integers.*0, 9"),
    Bad("merge", (T((4, 49, 8)), (7, 7), (9, -9)), r"size.*pair of positive integers.*9, -9"),
    Bad("merge", (T((4, 49, 8)), (7, 7), (1, 9, 9)), r"size.*pair of positive integers.*1, 9, 9"),
    Bad("merge", (T((4, 49, 8)), (7, 7), 9), r"size.*pair of positive integers.*9", ("public",)),
    # Heads and channels.
    Bad("attention", (T((1, 4, 4, 20)), 2, (7, 7)), "20 channels.*2 heads"),
    Bad("attention", (T((1, 4, 4, 24)), 3, (7, 7)), "24 channels.*3 heads"),
    Bad("attention", (QKV, 0, (7, 7)), "24 channels.*0 heads"),
    Bad("attention", (QKV, -2, (7, 7)), "24 channels.*-2 heads"),
    Bad("attention", (QKV, 2**62, (7, 7)), f"24 channels.*{2**62} heads"),
    Bad("attention", (QKV, 2.0, (7, 7)), r"num_heads.*2\.0", ("public",)),
    # Dtypes.
    *(
        Bad(
            "attention",
            (T((1, 4, 4, 24), dtype), 1, (7, 7)),
            f"(floating-point dtype|dtype float32).*{name}",
        )
        for dtype, name in (
            (torch.int64, "(int64|Long)"),
            (torch.bool, "(bool|Bool)"),
            (torch.complex64, "(complex64|ComplexFloat)"),
        )
    ),
    Bad(
        "attention",
        (QKV, 1, (7, 7), T((24,), torch.float64)),
        "one dtype.*(float32|Float).*(float64|Double)",
        OPERATORS_ONLY,  # the public function casts the row of the padding
    ),
    # The row of the padding.
    Bad("attention", (QKV, 1, (7, 7), T((8,))), r"pad_qkv of shape \(24,\).*\(8,\)"),
    Bad("attention", (QKV, 1, (7, 7), T((1, 24))), r"pad_qkv of shape \(24,\).*\(1, 24\)"),
    Bad("attention", (QKV, 1, (7, 7), T(())), r"pad_qkv of shape \(24,\).*\(\)"),
    Bad(
        "attention",
        (QKV, 1, (7, 7), T((24,), elsewhere=True)),
        "qkv and pad_qkv on one device.*(cpu|meta).*and (meta|cpu)",
        ("public", "meta", "c++"),  # fake tensors have PyTorch's own error for this
    ),
    # The operator of the gradient.
    *(
        Bad("attention_backward", (GRAD, *case.arguments), case.message, OPERATORS_ONLY)
        for case in (
            Bad("", (T((1, 4, 24)), 2, (7, 7)), r"\[B, T, H, W, 3 \* C\].*\(1, 4, 24\)"),
            Bad("", (QKV, 5, (7, 7)), "24 channels.*5 heads"),
            Bad("", (QKV, 1, (7, 0)), "window_size.*7, 0"),
            Bad("", (QKV, 1, (7, 7), T((8,))), r"pad_qkv of shape \(24,\).*\(8,\)"),
        )
    ),
    *(
        Bad("attention_backward", (grad, QKV, 1, (7, 7)), message, OPERATORS_ONLY)
        for grad, message in (
            (QKV, r"gradient of shape .1, 4, 4, 8.*got shape .1, 4, 4, 24"),
            (T((2, 4, 4, 8)), r"gradient of shape .1, 4, 4, 8.*got shape .2, 4, 4, 8"),
            (T((4, 4, 8)), r"gradient of shape .1, 4, 4, 8.*got shape .4, 4, 8"),
            (
                T((1, 4, 4, 8), torch.float64),
                "dtype.*(float32|Float|float).*(float64|Double|double)",
            ),
        )
    ),
    Bad(
        "attention_backward",
        (T((1, 4, 4, 8), elsewhere=True), QKV, 1, (7, 7)),
        "gradient on (cpu|meta).*(meta|cpu)",
        ("meta", "c++"),
    ),
]


def call_public(operator, arguments):
    PUBLIC[operator](*arguments)


def call_operator(operator, arguments):
    """The operators take no defaults: neither for the row of the padding nor for the scale."""
    if operator.startswith("attention"):
        optional = len(arguments) - (4 if operator == "attention_backward" else 3)
        arguments = (*arguments, *(() if optional else (None,)), 1.0)
    getattr(torch.ops.iwin_d2, operator)(*arguments)


ENTRANCES = {
    "public": (call_public, "cpu"),
    "meta": (call_operator, "meta"),
    "fake": (call_operator, "cpu"),
    "c++": (call_operator, "cpu"),
}


@pytest.mark.parametrize(
    ("entrance", "case"),
    [
        pytest.param(entrance, case, id=f"{entrance}-{case.operator}-{index}")
        for index, case in enumerate(TABLE)
        for entrance in case.only
    ],
)
def test_one_sentence_with_the_values(entrance, case):
    if entrance != "public" and not extension.loaded():
        pytest.skip(extension.reason())
    call, device = ENTRANCES[entrance]
    make = functools.partial(_make, device=device)
    context = FakeTensorMode() if entrance == "fake" else use_backend("auto")
    with context, pytest.raises(ValueError, match=case.message) as error:
        call(case.operator, tuple(map(make, case.arguments)))
    sentence = str(error.value)
    assert 20 < len(sentence) < 250
    assert "\n" not in sentence and "Exception raised from" not in sentence


def _make(argument, device):
    return argument.make(device) if isinstance(argument, T) else argument


@pytest.mark.parametrize("name", ["auto", "reference"])
def test_no_backend_is_asked_before_the_arguments_fit(name):
    with use_backend(name), pytest.raises(ValueError, match="2 heads"):
        interleaved_window_attention(torch.zeros(1, 4, 4, 20), 2, 7)
    with use_backend(name), pytest.raises(ValueError, match=r"scale.*number.*'1'"):
        interleaved_window_attention(torch.zeros(1, 4, 4, 24), 1, 7, scale="1")
