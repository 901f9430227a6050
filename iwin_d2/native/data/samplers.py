"""Samplers for several processes: endless ones for training, an exact division for inference."""

import itertools
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from ..utils import comm


class TrainingSampler(Sampler):
    """An endless stream of indices: one permutation after the other, divided over processes.

    All processes draw the same permutations (with `seed` None they agree on a random one), and
    process r of n takes items r, r + n, r + 2n, ... Without `shuffle`, 0, 1, 2, ... is repeated.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None):
        if size <= 0:
            raise ValueError(f"TrainingSampler needs at least one item, got size={size}.")
        self._size = size
        self._shuffle = shuffle
        self._seed = int(comm.shared_random_seed() if seed is None else seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            if self._shuffle:
                yield from torch.randperm(self._size, generator=generator).tolist()
            else:
                yield from range(self._size)


class InferenceSampler(Sampler):
    """Each index of `size` exactly once over all processes; each process takes one range."""

    def __init__(self, size: int):
        rank, (share, rest) = comm.get_rank(), divmod(size, comm.get_world_size())
        # The first `rest` processes take one more.
        begin = rank * share + min(rank, rest)
        self._local_indices = range(begin, begin + share + (rank < rest))

    def __iter__(self) -> Iterator[int]:
        yield from self._local_indices

    def __len__(self) -> int:
        return len(self._local_indices)
