"""Talk between the processes of one run; without torch.distributed every call is trivial."""

import functools
import os
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


def _running() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """The number of processes of the run."""
    return dist.get_world_size() if _running() else 1


def get_rank() -> int:
    """The number of this process among all, from 0."""
    return dist.get_rank() if _running() else 0


def get_local_rank() -> int:
    """The number of this process on its machine, from 0: LOCAL_RANK, as launch and torchrun set."""
    return dist.get_node_local_rank() if _running() else 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Make get_local_rank work where LOCAL_RANK is not set: each machine's ranks are in a row."""
    os.environ.setdefault("LOCAL_RANK", str(get_rank() % num_workers_per_machine))


def is_main_process() -> bool:
    """Whether this is the process that writes files and logs."""
    return get_rank() == 0


def synchronize() -> None:
    """Wait until every process has come here."""
    if get_world_size() > 1:
        nccl = dist.get_backend() == dist.Backend.NCCL
        dist.barrier(device_ids=[torch.cuda.current_device()] if nccl else None)


@functools.lru_cache
def _object_group():
    """A group that can exchange Python objects through CPU memory."""
    return dist.new_group(backend="gloo") if dist.get_backend() == "nccl" else dist.group.WORLD


def all_gather(data: Any, group=None) -> list[Any]:
    """Collect one picklable object of every process, in the order of ranks, in each of them."""
    if get_world_size() == 1:
        return [data]
    group = group or _object_group()
    output = [None] * dist.get_world_size(group)
    dist.all_gather_object(output, data, group=group)
    return output


def gather(data: Any, dst: int = 0, group=None) -> list[Any]:
    """Collect one picklable object of every process in process `dst`; others get []."""
    if get_world_size() == 1:
        return [data]
    group = group or _object_group()
    output = [None] * dist.get_world_size(group) if dist.get_rank(group) == dst else None
    dist.gather_object(data, output, dst=dst, group=group)
    return output or []


def shared_random_seed() -> int:
    """A random number that is the same in all processes; NumPy's generator draws it."""
    return all_gather(int(np.random.randint(2**31)))[0]


@torch.no_grad()
def reduce_dict(input_dict: dict[str, torch.Tensor], average: bool = True):
    """Sum or average tensors of the same names over all processes; valid in process 0 only."""
    if get_world_size() == 1:
        return input_dict
    names = sorted(input_dict)  # the same order everywhere
    values = torch.stack([input_dict[name] for name in names])
    dist.reduce(values, dst=0)
    if average and dist.get_rank() == 0:
        values /= get_world_size()
    return dict(zip(names, values))
