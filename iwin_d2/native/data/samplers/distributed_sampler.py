"""Samplers for several processes: endless ones for training, an exact division for inference."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from ...utils import comm

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
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            if self._shuffle:
                yield from torch.randperm(self._size, generator=generator).tolist()
            else:
                yield from range(self._size)


class RepeatFactorTrainingSampler(Sampler):
    """An endless stream in which each image comes repeat-factor times an epoch.

    The fraction of a factor is a chance, drawn anew each epoch. See Gupta et al., "LVIS" (2019).

    Args:
        repeat_factors: Tensor[N] of floats, one an image.
        shuffle: whether to shuffle each epoch.
        seed: the same in all processes. None: they agree on a random one.
    """

    def __init__(
        self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None
    ):
        self._shuffle = shuffle
        self._seed = int(comm.shared_random_seed() if seed is None else seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()
        self._whole = torch.floor(repeat_factors)
        self._fraction = repeat_factors - self._whole

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: list[dict], repeat_thresh: float
    ) -> torch.Tensor:
        """Return how often to repeat each image for its rarest class.

        With f the fraction of images that show a class, the class has the factor
        max(1, sqrt(repeat_thresh / f)); an image has the largest factor of its classes.

        Args:
            dataset_dicts: the records.
            repeat_thresh: classes on a smaller fraction of the images than this are repeated.

        Returns:
            Tensor[N] of floats, at least 1.
        """
        classes = [{a["category_id"] for a in record["annotations"]} for record in dataset_dicts]
        images_with = Counter(itertools.chain(*classes))
        factors = {
            category: max(1.0, math.sqrt(repeat_thresh / (count / len(dataset_dicts))))
            for category, count in images_with.items()
        }
        return torch.tensor(
            [max((factors[c] for c in present), default=1.0) for present in classes],
            dtype=torch.float32,
        )

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            drawn = torch.rand(len(self._fraction), generator=generator) < self._fraction
            repeats = (self._whole + drawn).to(torch.int64)
            indices = torch.repeat_interleave(torch.arange(len(repeats)), repeats)
            if self._shuffle:
                indices = indices[torch.randperm(len(indices), generator=generator)]
            yield from indices.tolist()


class InferenceSampler(Sampler):
    """Each index exactly once over all processes; each process takes one range.

    Args:
        size: of the data set.
    """

    def __init__(self, size: int):
        if size <= 0:
            raise AssertionError("InferenceSampler needs at least one item")
        rank, world_size = comm.get_rank(), comm.get_world_size()
        share, rest = divmod(size, world_size)
        # The first `rest` processes take one more.
        begin = rank * share + min(rank, rest)
        self._size = size
        self._local_indices = range(begin, begin + share + (rank < rest))

    def __iter__(self) -> Iterator[int]:
        yield from self._local_indices

    def __len__(self) -> int:
        return len(self._local_indices)
