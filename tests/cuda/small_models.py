"""What the tests on a GPU run: the operators with their arguments, and a small backbone."""

from dataclasses import dataclass

import torch
from torch import nn

from iwin_d2.modeling import IwinTransformer
from iwin_d2.ops import (
    interleaved_window_attention,
    interleaved_window_merge,
    interleaved_window_partition,
)
from iwin_d2.ops.bias_gelu import bias_gelu
from iwin_d2.ops.depthwise_conv import depthwise_conv_add

DEVICE = "cuda"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Of results and of gradients against float64, as a share of the largest number.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@dataclass(frozen=True)
class Call:
    """A function of tensors, and the shapes of these."""

    name: str
    function: object
    shapes: tuple

    def inputs(self, dtype=torch.float32, device=DEVICE, requires_grad=False):
        """Random tensors, numbers that `dtype` has, the same for every device and dtype."""
        generator = torch.Generator().manual_seed(len(self.name))
        return [
            torch.randn(shape, generator=generator)
            .to(torch.bfloat16)  # which float16 holds exactly, unless it is tiny
            .to(device, dtype)
            .requires_grad_(requires_grad)
            for shape in self.shapes
        ]

    def gradients(self, inputs):
        """Return the result and the gradients of all inputs."""
        out = self.function(*inputs)
        generator = torch.Generator().manual_seed(0)
        grad = torch.randn(out.shape, generator=generator).to(torch.bfloat16).to(out)
        return out.detach(), *torch.autograd.grad(out, inputs, grad, materialize_grads=True)

    def __str__(self):
        return self.name


def _attend(qkv, pad):
    return interleaved_window_attention(qkv, 3, 7, pad)


def _there_and_back(x):
    windows = interleaved_window_partition(x, (3, 4))
    return interleaved_window_merge(windows * windows, (3, 4), tuple(x.shape[1:3]))


CALLS = (
    Call("attention", _attend, ((2, 17, 23, 288), (288,))),
    Call("attention on clips", _attend, ((1, 16, 9, 12, 288), (288,))),
    Call("partition and merge", _there_and_back, ((2, 13, 10, 24),)),
    Call(
        "depthwise_conv_add",
        depthwise_conv_add,
        ((2, 13, 19, 96), (96, 1, 3, 3), (96,), (2, 13, 19, 96)),
    ),
    Call("bias_gelu", bias_gelu, ((2, 13, 19, 100), (100,))),
)


def small_backbone(**options):
    """A backbone with head dimensions of 16 and 32, on the CPU."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 32, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 8, 8]}
    return IwinTransformer(**{**sizes, **options})


class Sum(nn.Module):
    """A number that depends on all maps of a backbone."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images):
        """Map images to a number."""
        maps = self.backbone(images).values()
        return sum((value.float().sin()).mean() for value in maps)


def images(batch=2, size=(75, 101), device=DEVICE, seed=0):
    """Random images of a size that no stage divides."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *size, generator=generator).to(device)


def parameter_gradients(model, loss):
    """The gradients of a loss, of all parameters."""
    return torch.autograd.grad(loss, list(model.parameters()))


def assert_close(result, truth, tolerance):
    """Compare with `truth`, up to a share of its largest number."""
    result, truth = result.detach().double().cpu(), truth.detach().double().cpu()
    assert result.shape == truth.shape and result.isfinite().all()
    largest = truth.abs().max().item() if truth.numel() else 1.0
    torch.testing.assert_close(result, truth, rtol=tolerance, atol=tolerance * max(largest, 1e-6))
