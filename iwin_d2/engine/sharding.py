"""Training a model of which each process holds a part (FSDP2), for models that fill a GPU.

Everything else sees whole models: checkpoints are those of any other training, whatever the number
of processes that wrote them.
"""

import copy
import logging
from collections import defaultdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from ..d2.utils import comm
from ..modeling.sync_batch_norm import convert_sync_batch_norm

__all__ = ["Shards", "whole"]

logger = logging.getLogger(__name__)


class Shards:
    """The parts of a model, of its gradients and of its optimizer's state, in all processes.

    Attributes:
        model: the sharded model, to be trained.
        optimizer_state: in the main process, the whole state_dict that was gathered last.
    """

    def __init__(self, source: nn.Module, optimizer: torch.optim.Optimizer):
        """Shard a model and an optimizer, which may have been loaded from a checkpoint.

        Args:
            source: the whole model, the same in all processes but for its weights: those of the
                first process are taken. It goes to the CPU; `gather` updates it.
            optimizer: of its parameters; is changed to be of the sharded ones.
        """
        self._source, self._optimizer = source, optimizer
        self.optimizer_state: dict[str, Any] | None = None
        for value in source.state_dict().values():
            dist.broadcast(value, 0)
        self.model = convert_sync_batch_norm(copy.deepcopy(source))
        device = next(source.parameters()).device.type
        mesh = init_device_mesh(device, (comm.get_world_size(),))
        blocks = [
            block
            for name, module in self.model.named_modules()
            if name.endswith("blocks") and isinstance(module, nn.ModuleList)
            for block in module
        ]
        for module in (*blocks, self.model):  # a block's weights are whole only while it runs
            fully_shard(module, mesh=mesh)
        self._shard_optimizer()
        source.to("cpu")
        count = sum(p.numel() for p in source.parameters())
        own = sum(p.to_local().numel() for p in self.model.parameters())
        logger.info("Sharded: this process holds %d of %d parameters", own, count)

    def _shard_optimizer(self) -> None:
        parts = dict(self.model.named_parameters())
        part_of = {whole: parts[name] for name, whole in self._source.named_parameters()}
        for group in self._optimizer.param_groups:
            group["params"] = [part_of[parameter] for parameter in group["params"]]
        state: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        for parameter, values in self._optimizer.state.items():
            part = part_of[parameter]
            state[part] = {name: _part(value, part) for name, value in values.items()}
        self._optimizer.state = state

    @torch.no_grad()
    def gather(self, optimizer: bool) -> None:
        """Copy the weights into the whole model; all processes have to call this together.

        Args:
            optimizer: whether to gather its state, too, for a checkpoint.
        """
        target = self._source.state_dict()
        for name, value in self.model.state_dict().items():
            target[name].copy_(whole(value))
        if optimizer:
            self.optimizer_state = None  # before there is another one
            self.optimizer_state = tree_map(_to_main, self._optimizer.state_dict())


def whole(value: Any) -> Any:
    """A sharded tensor as a whole one, for which all processes have to ask; all else as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _part(value: Any, like: DTensor) -> Any:
    """This process's part of a tensor that belongs to a parameter; a step count stays as it is."""
    if not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def _to_main(value: Any) -> Any:
    """The whole tensor, on the CPU, in the main process; the others only help to gather it."""
    if not isinstance(value, DTensor):
        return value
    tensor = value.full_tensor()
    return tensor.cpu() if comm.is_main_process() else None
