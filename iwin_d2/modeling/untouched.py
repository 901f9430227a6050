"""Whether a module is still what its class makes it, so that an operator may stand for it."""

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

__all__ = ["is_convolution", "is_depthwise_3x3", "is_untouched"]


def is_untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling `module` does what its class does and no more.

    Then what it computes may be computed from its parameters alone. Otherwise it was replaced
    (adapters), wrapped (offloading, parametrisation), its parameters are tensors of a class of
    their own (quantisation, sharding), or somebody listens to it.
    """
    return (
        type(module) is kind
        and "forward" not in vars(module)
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
        and not _has_any_global_hook()
        and all(type(p) in (nn.Parameter, Tensor, type(None)) for p in module._parameters.values())
    )


def is_convolution(
    conv: nn.Module, *, kernel_size: int, stride: int, padding: int, groups: int
) -> bool:
    """Whether `conv` is an untouched two-dimensional convolution of these settings, both ways."""
    return (
        is_untouched(conv, nn.Conv2d)
        and conv.kernel_size == (kernel_size, kernel_size)
        and conv.stride == (stride, stride)
        and conv.padding == (padding, padding)
        and conv.dilation == (1, 1)
        and conv.groups == groups
        and conv.padding_mode == "zeros"
    )


def is_depthwise_3x3(conv: nn.Module) -> bool:
    """Whether `conv` is an untouched 3x3 depthwise convolution that pads with one zero."""
    return (
        type(conv) is nn.Conv2d
        and conv.in_channels == conv.out_channels
        and is_convolution(conv, kernel_size=3, stride=1, padding=1, groups=conv.in_channels)
    )
