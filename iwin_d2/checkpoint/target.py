"""The model that a checkpoint is to be loaded into."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from .. import __version__
from .architecture import STAGES, Architecture, Shapes, describe
from .layouts import backbone_prefixes, is_backbone_name, is_final_norm, is_time_embedding
from .provenance import STAMP, make_stamp

__all__ = ["Target", "stamp", "unwrap"]


@dataclass(frozen=True)
class Target:
    """A model as loading sees it.

    Attributes:
        state: its state dict.
        prefixes: what stands before the names of each of its Iwin backbones.
        architecture: what model it is.
        num_heads: attention heads of the stages of its first backbone; None if there is none.
        window_size: of its first block; None if that is not known.
    """

    state: dict[str, Tensor]
    prefixes: list[str]
    architecture: Architecture
    num_heads: tuple[int, ...] | None
    window_size: int | None

    @classmethod
    def of(cls, model: nn.Module) -> "Target":
        """Look at a model, not wrapped."""
        state = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
        prefixes = backbone_prefixes(state)
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        heads = windows = ()
        if prefixes:
            heads, windows = _attention(model, prefixes[0])
        return cls(
            state,
            prefixes,
            describe(shapes),
            tuple(heads) or None,
            windows[0] if windows else None,
        )

    @property
    def shapes(self) -> Shapes:
        """Of all its tensors."""
        return {name: tuple(tensor.shape) for name, tensor in self.state.items()}

    @property
    def is_backbone(self) -> bool:
        """Whether it is an Iwin backbone and nothing else."""
        return bool(self.prefixes) and all(map(self.in_backbone, self.state))

    def in_backbone(self, name: str) -> bool:
        """Whether a tensor is of an Iwin backbone, its final norm among them."""
        return any(
            is_backbone_name(name, prefix) or is_final_norm(name, prefix)
            for prefix in self.prefixes
        )

    @property
    def is_for_video(self) -> bool:
        """Whether its backbone is one for clips."""
        return any(is_time_embedding(name) and self.in_backbone(name) for name in self.state)

    def is_not_built(self, name: str) -> bool:
        """Whether a name is of a stage, or of an output, that its backbone does not go as far as.

        A backbone is built up to the last output that is asked for.
        """
        depths = self.architecture.depths
        for prefix in self.prefixes:
            if not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if match := re.match(r"layers\.(\d{1,6})\.(downsample\.)?", rest):
                stage = int(match[1])
                last = len(depths) - 1
                behind = stage > last or (bool(match[2]) and stage == last)
                return last + 1 < STAGES and behind
            if re.match(r"norm[0-3]\.", rest):
                return name not in self.state
        return False


def _attention(model: nn.Module, prefix: str) -> tuple[list[int], list[int]]:
    """Heads and window of the first block of each stage."""
    heads, windows = [], []
    for name, module in model.named_modules():
        if re.fullmatch(re.escape(prefix) + r"layers\.\d+\.blocks\.0\.attn", name):
            heads.append(getattr(module, "num_heads", 0))
            windows.append(getattr(module, "window_size", 0))
    return heads, [max(_as_pair(window)) for window in windows]


def _as_pair(window: int | Iterable[int]) -> tuple[int, ...]:
    return (window,) if isinstance(window, int) else tuple(window)


def stamp(model: nn.Module) -> dict[str, Any]:
    """What a file with a model's weights should say beside them; {} without an Iwin backbone."""
    target = Target.of(unwrap(model))
    if target.num_heads is None:
        return {}
    return {STAMP: make_stamp(target.num_heads, target.window_size, version=__version__)}


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside what distributes or compiles it."""
    while True:
        if isinstance(model, (DistributedDataParallel, DataParallel)):
            model = model.module
        elif hasattr(model, "_orig_mod"):  # of torch.compile
            model = model._orig_mod
        else:
            return model
