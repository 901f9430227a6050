"""Batch norm over the batches of all processes, on any device.

torch's own SyncBatchNorm refuses CPU tensors where there are several processes, and so does
DistributedDataParallel every subclass of it.
"""

import functools

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..d2.utils import comm

__all__ = ["SyncBatchNorm", "convert_sync_batch_norm"]


def convert_sync_batch_norm(model: nn.Module) -> nn.Module:
    """Make a model's SyncBatchNorms work on the CPU where there are several processes.

    Names, parameters and buffers stay the same objects. All processes must call this together.

    Args:
        model: changed in place, where it lies on the CPU.

    Returns:
        The model.
    """
    if comm.get_world_size() > 1:
        for module in model.modules():
            if type(module) is nn.SyncBatchNorm and _is_on_cpu(module):
                module.__class__ = SyncBatchNorm  # the same attributes
                _own_group(dist.group.WORLD)  # made in all processes, whatever comes first
    return model


def _is_on_cpu(module: nn.Module) -> bool:
    return all(tensor.device.type == "cpu" for tensor in module.state_dict().values())


class SyncBatchNorm(_BatchNorm):
    """`torch.nn.SyncBatchNorm` for any device: the same state and results.

    In training with several processes, outputs, gradients and running statistics are those of
    BatchNorm over the joint batch. Processes may have batches of different sizes, also empty ones;
    where all are empty, the running statistics stay as they are.
    """

    process_group: dist.ProcessGroup | None = None

    def forward(self, input: Tensor) -> Tensor:
        """Normalise Tensor[N, C, ...] over all but C, and over the processes."""
        if not self.training or comm.get_world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        group = self.process_group or _own_group(dist.group.WORLD)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)

        # The count goes with the sum: one exchange. The variance is taken around the mean of all,
        # for the mean of squares less the squared mean loses digits.
        local_count = x.new_tensor([x.numel() / x.shape[1]])
        sums = _SumOverProcesses.apply(torch.cat([x.sum(axes), local_count]), group)
        count = sums[-1].detach()
        mean = sums[:-1] / count.clamp(min=1)
        centered = x - mean.view(shape)
        squares = _SumOverProcesses.apply(centered.square().sum(axes), group)
        variance = squares / count.clamp(min=1)
        self._track(mean.detach(), squares.detach() / (count - 1).clamp(min=1), count)

        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        output = centered * scale.view(shape)
        if self.affine:
            output = output + self.bias.view(shape)
        return output.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2 or input.shape[1] != self.num_features:
            raise ValueError(
                f"expected Tensor[N, {self.num_features}, ...], got {list(input.shape)}"
            )

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor, count: Tensor) -> None:
        """Update the running statistics."""
        if not self.track_running_stats or count == 0:
            return
        self.num_batches_tracked += 1
        momentum = self.momentum
        if momentum is None:  # the mean over all batches
            momentum = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(unbiased_variance.to(self.running_var), momentum)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of each process's tensor; the gradient is the sum of the gradients."""

    @staticmethod
    def forward(ctx, tensor: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        total = tensor.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


@functools.lru_cache(maxsize=1)
def _own_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    """A group of all processes for these sums alone.

    In the backward pass they are exchanged while DistributedDataParallel exchanges gradients, in an
    order that may differ between processes; within one group that would mix them up. It is kept
    outside of the modules, so that these can be copied and pickled.
    """
    return dist.new_group()
