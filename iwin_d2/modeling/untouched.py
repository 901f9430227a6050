"""Whether a module is still what its class makes it, so that an operator may stand for it."""

from torch import nn
from torch.nn.modules.module import _has_any_global_hook

__all__ = ["is_depthwise_3x3", "is_untouched"]


def is_untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling `module` does what its class does and no more.

    Then what it computes may be computed from its parameters alone. Otherwise it was replaced
    (adapters, quantisation), wrapped (offloading, parametrisation), or somebody listens to it.
    """
    return (
        type(module) is kind
        and "forward" not in vars(module)
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not (module._backward_hooks or module._backward_pre_hooks)
        and not _has_any_global_hook()
    )


def is_depthwise_3x3(conv: nn.Module) -> bool:
    """Whether `conv` is an untouched 3x3 depthwise convolution that pads with one zero."""
    return (
        is_untouched(conv, nn.Conv2d)
        and conv.in_channels == conv.out_channels == conv.groups
        and (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
        and (conv.dilation, conv.padding_mode) == ((1, 1), "zeros")
    )
