"""Which operators belong together in a profile."""

from torch.autograd.profiler_util import FunctionEvent

__all__ = ["BLOCKS", "GROUPS", "OPTIMIZER", "group_of", "order"]

DEPTHWISE = "depthwise convolution"
BLOCKS = "whole blocks in one operator"
OPTIMIZER = "optimizer"
_SDPA = "aten::_scaled_dot_product_flash_attention_for_cpu"
GROUPS = {
    "matrix products, dense convolutions": (
        "aten::addmm",
        "aten::mm",
        "aten::mkldnn_convolution",
        "aten::cudnn_convolution",
        "aten::convolution_backward",
        "iwin_d2::downsample",  # with its norm
        "iwin_d2::linear",
        "iwin_d2::linear_backward_input",
        "iwin_d2::linear_backward_weight",
        "iwin_d2::mlp",  # with its GELU
        "iwin_d2::mlp_backward",
    ),
    "attention": (
        "aten::bmm",
        "aten::_softmax",
        "aten::_softmax_backward_data",
        _SDPA,
        f"{_SDPA}_backward",
        "aten::_flash_attention_forward",
        "aten::_flash_attention_backward",
        "aten::_efficient_attention_forward",
        "aten::_efficient_attention_backward",
        "iwin_d2::attention",
        "iwin_d2::attention_backward",
    ),
    DEPTHWISE: (
        "aten::_conv_depthwise2d",
        "iwin_d2::depthwise_conv_add",
        "iwin_d2::depthwise_conv_backward",
    ),
    "GELU": (
        "aten::gelu",
        "aten::gelu_backward",
        "iwin_d2::bias_gelu",
        "iwin_d2::bias_gelu_backward",
    ),
    "norms": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "copies, padding": (
        "aten::copy_",
        "aten::constant_pad_nd",
        "aten::cat",
        "aten::fill_",
        "aten::zero_",
        "aten::roll",
        "aten::index",
        "aten::_index_put_impl_",
    ),
    "sums, scaling": (
        "aten::add",
        "aten::add_",
        "aten::mul",
        "aten::sum",
        "aten::div",
        "aten::div_",
    ),
    BLOCKS: ("iwin_d2::iwin_block",),
    OPTIMIZER: ("aten::_fused_adamw_",),
}
_GROUP_OF = {operator: group for group, operators in GROUPS.items() for operator in operators}
# Where each of these has the convolution's weight among its arguments.
_WEIGHTS = {
    "aten::mkldnn_convolution": 1,
    "aten::cudnn_convolution": 1,
    "aten::convolution_backward": 2,
}


def group_of(event: FunctionEvent | None) -> str | None:
    """The group of the innermost operator around an event that belongs to one, if any does.

    An operator of this package that no group names is its own.
    """
    while event is not None and event.name not in _GROUP_OF:
        if event.name.startswith("iwin_d2::"):
            return event.name
        event = event.cpu_parent
    if event is None:
        return None
    return DEPTHWISE if _is_depthwise(event) else _GROUP_OF[event.name]


def _is_depthwise(event: FunctionEvent) -> bool:
    if event.name not in _WEIGHTS:
        return False
    weight = event.input_shapes[_WEIGHTS[event.name]]
    return len(weight) > 1 and weight[1] == 1


def order(group: str, last: str) -> tuple[int, str]:
    """Sort groups as in GROUPS, then what is not in there, `last` behind all."""
    places = [*GROUPS, None, last]
    return places.index(group if group in places else None), group
