"""The operators on a GPU: who serves them, their numbers, what PyTorch checks, what they refuse.

tests/ops has the one tester of the attention, which runs on a GPU as well.
"""

import logging

import pytest
import torch
from small_models import CALLS, DEVICE, DTYPES, TOLERANCES, assert_close

from iwin_d2.errors import ConfigError
from iwin_d2.ops import backends, interleaved_window_attention, use_backend
from iwin_d2.ops.bias_gelu import bias_gelu
from iwin_d2.ops.depthwise_conv import depthwise_conv_add

OPERATORS = ("partition", "merge", "attention", "depthwise_conv_add", "bias_gelu")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_serves_every_dtype(name, dtype):
    assert backends.why_not(name, torch.zeros(1, device=DEVICE, dtype=dtype)) is None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_numbers_and_gradients(call, dtype):
    """Against plain PyTorch on the CPU, in float64, from the same numbers."""
    with use_backend("compiled"):
        results = call.gradients(call.inputs(dtype, requires_grad=True))
    with use_backend("reference"):
        truth = call.gradients(call.inputs(torch.float64, "cpu", requires_grad=True))
    for result, x in zip(results, truth, strict=True):
        assert result.dtype == dtype
        assert_close(result, x, TOLERANCES[dtype])


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_gradcheck_of_what_float64_runs_on(call):
    """No kernel serves float64 with products: plain PyTorch does, on the GPU as well."""
    small = {
        "attention": ((1, 4, 5, 18), (18,)),
        "attention on clips": ((1, 2, 3, 4, 18), (18,)),
        "partition and merge": ((1, 4, 5, 2),),
        "depthwise_conv_add": ((1, 3, 4, 2), (2, 1, 3, 3), (2,), (1, 3, 4, 2)),
        "bias_gelu": ((3, 4), (4,)),
    }[call.name]
    inputs = [torch.randn(s, dtype=torch.float64, device=DEVICE).requires_grad_() for s in small]
    assert torch.autograd.gradcheck(call.function, inputs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("step", [slice(None, None, 2), slice(1, None, 3)])
def test_channels_that_do_not_lie_together(dtype, step):
    (qkv, pad), (x, weight, bias, other) = CALLS[0].inputs(dtype), CALLS[3].inputs(dtype)
    strided = [t.repeat_interleave(6, -1)[..., ::6][:, step] for t in (qkv, x, other)]
    assert not strided[0].is_contiguous()
    together = [t.contiguous() for t in strided]
    with use_backend("compiled"):
        for qkv, x, other in (strided, together):
            results = [
                interleaved_window_attention(qkv, 3, 7, pad),
                depthwise_conv_add(x, weight, bias, other),
                bias_gelu(x, bias),
            ]
            if qkv is strided[0]:
                expected = results
    for result, first in zip(results, expected):
        assert torch.equal(result, first)


def operator_calls(dtype):
    """Each operator with small arguments."""

    def random(*shape):
        return torch.randn(shape, device=DEVICE).to(dtype)

    qkv, pad, grad = random(2, 5, 7, 48), random(48), random(2, 5, 7, 16)
    attention = (qkv, 2, (3, 4), pad, 0.25)
    clip = (random(1, 3, 5, 4, 48), 2, (2, 3), None, 0.25)
    x, weight, bias = random(2, 5, 6, 20), random(20, 1, 3, 3), random(20)
    return {
        "attention": attention,
        "attention on clips": clip,
        "attention_backward": (grad, *attention),
        "partition": (x, (3, 4)),
        "merge": (random(4, 12, 8), (3, 4), (5, 7)),
        "depthwise_conv_add": (x, weight, bias, random(2, 5, 6, 20)),
        "depthwise_conv_backward": (random(2, 5, 6, 20), x, weight),
        "bias_gelu": (x, bias),
        "bias_gelu_backward": (random(2, 5, 6, 20), x, bias),
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_opcheck(dtype):
    for name, arguments in operator_calls(dtype).items():
        operator = getattr(torch.ops.iwin_d2, name.partition(" ")[0]).default
        wanted = not name.endswith("_backward")
        leaves = [x.requires_grad_(wanted) if isinstance(x, torch.Tensor) else x for x in arguments]
        torch.library.opcheck(operator, tuple(leaves))


def test_nothing_to_do():
    with use_backend("compiled"):
        for call in CALLS:
            shapes = call.shapes
            inputs = call.inputs(requires_grad=True)
            empty = [
                x[:0].detach().requires_grad_()
                if len(shape) > 1 and shape[0] == shapes[0][0]
                else x
                for x, shape in zip(inputs, shapes)
            ]
            out, *gradients = call.gradients(empty)
            assert out.shape[0] == 0
            assert all(not gradient.any() for gradient in gradients)


class TestRefusals:
    """What cannot be served is said in a sentence."""

    def test_float64_runs_in_plain_pytorch_and_says_so_once(self, caplog, monkeypatch):
        monkeypatch.setattr(backends, "_logged", set())
        qkv, pad = CALLS[0].inputs(torch.float64)
        with use_backend("auto"), caplog.at_level(logging.INFO):
            out = interleaved_window_attention(qkv, 3, 7, pad)
            interleaved_window_attention(qkv, 3, 7, pad)
        assert out.dtype == torch.float64 and out.device.type == DEVICE
        assert len(caplog.records) == 1 and "not float64" in caplog.text
        with use_backend("compiled"), pytest.raises(ConfigError, match="not float64"):
            interleaved_window_attention(qkv, 3, 7, pad)

    def test_the_operators_themselves_refuse_float64(self):
        for name, arguments in operator_calls(torch.float64).items():
            operator = getattr(torch.ops.iwin_d2, name.partition(" ")[0]).default
            if operator in (torch.ops.iwin_d2.partition.default, torch.ops.iwin_d2.merge.default):
                operator(*arguments)  # copies, whatever the numbers are
                continue
            with pytest.raises((ValueError, RuntimeError), match="float32, bfloat16 or float16"):
                operator(*arguments)

    @pytest.mark.parametrize("head_dim", [12, 136])
    def test_head_dimensions(self, head_dim):
        qkv = torch.randn(1, 4, 4, 3 * head_dim, device=DEVICE)
        with use_backend("compiled"), pytest.raises(ConfigError, match=f"not {head_dim}"):
            interleaved_window_attention(qkv, 1, 2)
        with pytest.raises((ValueError, RuntimeError), match="head dimension"):
            torch.ops.iwin_d2.attention(qkv, 1, (2, 2), None, 1.0)

    def test_integers(self):
        qkv = torch.zeros(1, 4, 4, 48, device=DEVICE, dtype=torch.int32)
        with pytest.raises(ValueError, match="floating-point dtype"):
            interleaved_window_attention(qkv, 2, 2)

    def test_two_devices(self):
        qkv, pad = CALLS[0].inputs()
        with pytest.raises(ValueError, match=r"on one device, got cuda:0 and cpu"):
            interleaved_window_attention(qkv, 3, 7, pad.cpu())
        x, weight, bias, other = CALLS[3].inputs()
        for arguments in ((x, weight.cpu(), bias, other), (x, weight, bias, other.cpu())):
            with pytest.raises(ValueError, match=r"on one device .* cuda:0 .* cpu"):
                depthwise_conv_add(*arguments)
        with pytest.raises(ValueError, match=r"on one device .* cuda:0 .* cpu"):
            bias_gelu(x, bias.cpu())

    def test_two_devices_in_the_operators(self):
        qkv, pad = CALLS[0].inputs()
        with pytest.raises((ValueError, RuntimeError), match=r"one device"):
            torch.ops.iwin_d2.attention(qkv, 3, (7, 7), pad.cpu(), 1.0)
        x, bias = CALLS[4].inputs()
        with pytest.raises((ValueError, RuntimeError), match=r"one device"):
            torch.ops.iwin_d2.bias_gelu(x, bias.cpu())
