"""Parameters, multiply-adds and activations of a detector or segmenter, module by module.

Counted are the convolutions, matrix products and attentions that one image takes, by fvcore's
counters on a trace of the model. Tracing takes every operator's plain-PyTorch form, whose FLOPs are
those that `iwin_d2.ops` registers for the compiled operators; likewise a segmenter's convolution of
upsampled maps is counted as it is defined.
"""

import contextlib
import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from fvcore.nn import parameter_count
from fvcore.nn.jit_analysis import JitModelAnalysis
from fvcore.nn.jit_handles import (
    addmm_flop_jit,
    bmm_flop_jit,
    conv_flop_jit,
    einsum_flop_jit,
    get_shape,
    linear_flop_jit,
    matmul_flop_jit,
)
from torch import Tensor, nn

from ..d2.structures import Boxes, Instances
from ..engine.model_check import explain_misfit
from ..ops import use_backend

__all__ = ["Analysis", "ModuleCount", "analyze", "analyze_classifier"]

_MULTIPLY_ADDS, _ACTIVATIONS = "multiply_adds", "activations"
_ATTENTION, _ELEMENTWISE = "attention", "elementwise"


@dataclass(frozen=True)
class ModuleCount:
    """A module of the model, with all that is in it.

    Attributes:
        name: dotted; "" for the whole model.
        kind: the name of its class.
        parameters: how many numbers it learns, or could learn: frozen ones too.
        multiply_adds: of one image; half of its FLOPs.
        activations: elements of the results of its convolutions, products and attentions.
    """

    name: str
    kind: str
    parameters: int
    multiply_adds: int
    activations: int

    @property
    def depth(self) -> int:
        """How deep in the model: 0 for the model itself."""
        return self.name.count(".") + 1 if self.name else 0


@dataclass(frozen=True)
class Analysis:
    """What `analyze` finds.

    Attributes:
        modules: the model and everything in it, parents first.
        attention: multiply-adds of attentions' products (logits, sums of values) among all.
        elementwise: what is not among them, though MMDetection's counter adds it: for each element
            of a result one for the bias of a convolution and for ReLU, two for a norm.
        image_size: (height, width) of the image in pixels.
        proposals: boxes that the box heads took; None for models without proposals.
        detections: boxes that the heads behind them took; None for models without.
        frames: of the clip; None for an image.
    """

    modules: tuple[ModuleCount, ...]
    attention: int
    elementwise: int
    image_size: tuple[int, int]
    proposals: int | None = None
    detections: int | None = None
    frames: int | None = None

    @property
    def total(self) -> ModuleCount:
        """The whole model."""
        return self.modules[0]

    def down_to(self, depth: int) -> list[ModuleCount]:
        """The modules no deeper than `depth` that hold or do something."""
        return [m for m in self.modules if m.depth <= depth and (m.parameters or m.multiply_adds)]


def analyze(model: nn.Module, image_size: tuple[int, int] = (800, 1280)) -> Analysis:
    """Count what a detector or segmenter holds, and does for one image.

    What training alone has, such as auxiliary heads, is among the parameters, and does nothing.

    For the numbers to be the model's, and not an image's or the weights', the image is noise and
    every limit of the config is reached: as many proposals and detections as it lets through.

    Args:
        model: takes a list of {"image": Tensor[C, H, W]}, as Detectron2's do. It stays as it was.
        image_size: (height, width) in pixels, before the model pads.

    Raises:
        ConfigError: the model's parts do not fit together, or do not take such an image.
    """
    channels = len(getattr(model, "pixel_mean", ())) or 3
    image = 255 * _noise(channels, *image_size)
    with _at_its_limits(model) as limits, explain_misfit(model):
        return _analyze(model, _OnImage, image, image_size, *limits)


def analyze_classifier(
    model: nn.Module,
    image_size: tuple[int, int] = (224, 224),
    *,
    frames: int | None = None,
    channels: int = 3,
) -> Analysis:
    """Count what a classifier of images or clips holds, and does for one of them.

    Args:
        model: takes Tensor[1, channels, H, W], or Tensor[1, channels, T, H, W]. It stays as it was.
        image_size: (height, width) in pixels.
        frames: T of a clip; None for an image.
        channels: of the images.

    Raises:
        ConfigError: the model does not take such an image or clip.
    """
    shape = (*(() if frames is None else (frames,)), *image_size)
    with explain_misfit(model):
        found = _analyze(model, _OnBatch, _noise(1, channels, *shape), image_size)
    return replace(found, frames=frames)


def _noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def _analyze(
    model: nn.Module,
    wrapper: type[nn.Module],
    image: Tensor,
    image_size: tuple[int, int],
    *limits: int | None,
) -> Analysis:
    """Count a model that `wrapper` makes a function of one tensor."""
    training = model.training
    # All but the reference would refuse to be traced.
    with torch.no_grad(), use_backend("reference"):
        try:
            counter = _Counter(wrapper(model.eval()), (image.to(_device_of(model)),))
            counts = counter.by_module_and_operator()
        finally:
            model.train(training)
    parameters = parameter_count(model)
    modules = tuple(
        ModuleCount(
            name,
            type(module).__name__,
            parameters[name],
            *(int(counts[f"model.{name}".rstrip(".")][what]) for what in _COUNTED),
        )
        for name, module in model.named_modules()
    )
    beside = (int(counts[""][what]) for what in (_ATTENTION, _ELEMENTWISE))
    return Analysis(modules, *beside, tuple(image_size), *limits)


def _device_of(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


class _OnBatch(nn.Module):
    """A classifier, with the name that counts of its modules go by."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


class _OnImage(nn.Module):
    """A model as a function from a tensor to tensors, as tracing wants it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        # Pasting masks into the image is left out where that can be done.
        inference = getattr(model, "inference", None)
        plain = inference is not None and "do_postprocess" in _parameters(inference)
        self._options = {"do_postprocess": False} if plain else {}
        self._run = inference if plain else model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(_tensors(self._run([{"image": image}], **self._options)))


def _parameters(function: Callable) -> Sequence[str]:
    return list(inspect.signature(function).parameters)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a model's output."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Boxes):
        yield value.tensor
    elif isinstance(value, Instances):
        yield from _tensors(value.get_fields())
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


@contextlib.contextmanager
def _at_its_limits(model: nn.Module) -> Iterator[tuple[int | None, int | None]]:
    """Within the block, let a detector make as many proposals and detections as it may.

    Yields these two numbers; None where the model has no such limit.
    """
    changed: list[tuple[nn.Module, str, dict]] = []

    def change(module: nn.Module, name: str, value: Any) -> None:
        changed.append((module, name, {k: v for k, v in vars(module).items() if k == name}))
        setattr(module, name, value)

    proposals, detections = [], []
    for module in model.modules():
        if hasattr(module, "post_nms_topk") and hasattr(module, "nms_thresh"):
            proposals.append(module.post_nms_topk[False])
            change(module, "nms_thresh", 1.0)
        if hasattr(module, "predict_probs") and hasattr(module, "test_topk_per_image"):
            detections.append(module.test_topk_per_image)
            change(module, "test_nms_thresh", 1.0)
            change(module, "predict_probs", _Certain(module))
    try:
        yield max(proposals, default=None), max(detections, default=None)
    finally:
        for module, name, before in reversed(changed):
            delattr(module, name)
            vars(module).update(before)


class _Certain:
    """Stands for a box predictor's `predict_probs`: as many boxes are certain as may be detected.

    More candidates than these would be compared with each other, each with each.
    """

    def __init__(self, predictor: nn.Module):
        self._limit = predictor.test_topk_per_image

    def __call__(self, predictions: tuple[Tensor, Tensor], proposals: list) -> list[Tensor]:
        logits = predictions[0]
        return [self._probabilities(logits.new_zeros(len(p), logits.shape[1])) for p in proposals]

    def _probabilities(self, zeros: Tensor) -> Tensor:
        boxes, classes = len(zeros), zeros.shape[1] - 1
        number = torch.arange(min(self._limit, boxes * classes), device=zeros.device)
        zeros[number % boxes, number // boxes] = 1.0
        return zeros


class _Counter(JitModelAnalysis):
    """Counts all that an `Analysis` has, but parameters, in one trace of the model."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, ...]):
        super().__init__(model, inputs)
        self.set_op_handle(**{name: _product(name, count) for name, count in _PRODUCTS.items()})
        self.set_op_handle(**{name: _elementwise(each) for name, each in _ELEMENTWISE_OPS.items()})
        self.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        self.tracer_warnings("none")


def _attention(inputs: list, outputs: list) -> int:
    """Of queries [..., L, E], keys [..., S, E] and values [..., S, V]: logits, sums of values."""
    query, key, value = (get_shape(x) for x in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_COUNTED = (_MULTIPLY_ADDS, _ACTIVATIONS)
_CONVOLUTION = "aten::_convolution"
_SDPA = "aten::scaled_dot_product_attention"
_PRODUCTS: dict[str, Callable[[list, list], Any]] = {
    _CONVOLUTION: conv_flop_jit,
    "aten::linear": linear_flop_jit,
    "aten::addmm": addmm_flop_jit,
    "aten::mm": matmul_flop_jit,
    "aten::matmul": matmul_flop_jit,
    "aten::bmm": bmm_flop_jit,
    "aten::einsum": einsum_flop_jit,
    _SDPA: _attention,
}
_ELEMENTWISE_OPS = {
    "aten::layer_norm": 2,
    "aten::batch_norm": 2,
    "aten::group_norm": 2,
    "aten::relu": 1,
    "aten::relu_": 1,
}


def _product(name: str, count: Callable) -> Callable[[list, list], Counter]:
    """What fvcore calls for a product of the trace."""

    def counts(inputs: list, outputs: list) -> Counter:
        found = count(inputs, outputs)
        multiply_adds = int(sum(found.values()) if isinstance(found, Counter) else found)
        size = math.prod(get_shape(outputs[0]))
        biased = name == _CONVOLUTION and get_shape(inputs[2]) is not None
        return Counter(
            {
                _MULTIPLY_ADDS: multiply_adds,
                _ATTENTION: multiply_adds if name == _SDPA else 0,
                _ACTIVATIONS: size,
                _ELEMENTWISE: size if biased else 0,
            }
        )

    return counts


def _elementwise(each: int) -> Callable[[list, list], Counter]:
    """What fvcore calls for an operator with so many operations an element."""
    return lambda inputs, outputs: Counter({_ELEMENTWISE: each * math.prod(get_shape(outputs[0]))})
