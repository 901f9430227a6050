"""Samplers for several processes: endless ones for training, an exact division for inference."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from ..utils import comm

__all__ = ["InferenceSampler", "RepeatFactorTrainingSampler", "TrainingSampler"]


class TrainingSampler(Sampler):
    """An endless stream of indices: one permutation after the other, divided over processes.

    All processes draw the same permutations, and process r of n takes items r, r + n, r + 2n, ...

    Args:
        size: of the data set.
        shuffle: False gives 0, 1, 2, ... again and again.
        seed: of the shuffle, the same in all processes. None: they agree on a random one.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None):
        if not isinstance(size, int):
            raise TypeError(f"TrainingSampler needs an int for size, got {type(size).__name__}.")
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
            indices = self._epoch(generator)
            if self._shuffle:
                indices = indices[torch.randperm(len(indices), generator=generator)]
            yield from indices.tolist()

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        return torch.arange(self._size)


class RepeatFactorTrainingSampler(TrainingSampler):
    """An endless stream in which each image comes repeat-factor times an epoch.

    The fraction of a factor is a chance, drawn anew each epoch. See Gupta et al., "LVIS" (2019).

    Args:
        repeat_factors: Tensor[N] of floats, one an image.
        shuffle, seed: as for TrainingSampler.
    """

    def __init__(
        self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None
    ):
        super().__init__(len(repeat_factors), shuffle, seed)
        self._whole = torch.floor(repeat_factors)
        self._fraction = repeat_factors - self._whole

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: list[dict], repeat_thresh: float
    ) -> torch.Tensor:
        """Return how often to repeat each image for its rarest class, Tensor[N], at least 1.

        With f the fraction of images that show a class, the class has the factor
        max(1, sqrt(repeat_thresh / f)); an image has the largest factor of its classes.
        """
        classes = [{a["category_id"] for a in record["annotations"]} for record in dataset_dicts]
        factors = {
            category: max(1.0, math.sqrt(repeat_thresh * len(dataset_dicts) / count))
            for category, count in Counter(itertools.chain(*classes)).items()
        }
        return torch.tensor([max((factors[c] for c in seen), default=1.0) for seen in classes])

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        drawn = torch.rand(self._size, generator=generator) < self._fraction
        return torch.repeat_interleave((self._whole + drawn).long())


class InferenceSampler(Sampler):
    """Each index exactly once over all processes; each process takes one range.

    Args:
        size: of the data set.
    """

    def __init__(self, size: int):
        if size <= 0:
            raise AssertionError("InferenceSampler needs at least one item")
        rank, (share, rest) = comm.get_rank(), divmod(size, comm.get_world_size())
        # The first `rest` processes take one more.
        begin = rank * share + min(rank, rest)
        self._local_indices = range(begin, begin + share + (rank < rest))

    def __iter__(self) -> Iterator[int]:
        yield from self._local_indices

    def __len__(self) -> int:
        return len(self._local_indices)
