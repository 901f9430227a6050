"""Small data sets that wrap others."""

import itertools
import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

__all__ = ["AspectRatioGroupedDataset", "DatasetFromList", "MapDataset", "ToIterableDataset"]


class DatasetFromList(Dataset):
    """A list as a data set.

    Args:
        lst: the items.
        copy: whether items are copied before they are handed out, if they are not serialised.
        serialize: keep the items as one block of bytes. Worker processes then share it, where the
            counting of references would make each of them copy a list of objects piece by piece.
    """

    def __init__(self, lst: list, copy: bool = True, serialize: bool = True):
        self._lst, self._copy, self._serialize = lst, copy, serialize
        if serialize:
            pickled = [pickle.dumps(item, protocol=-1) for item in lst]
            # Tensors: torch hands those without a copy to processes that do not fork, too.
            self._ends = torch.tensor(np.cumsum([0] + [len(item) for item in pickled]))
            self._lst = torch.from_numpy(np.frombuffer(bytearray(b"".join(pickled)), np.uint8))

    def __len__(self) -> int:
        return len(self._ends) - 1 if self._serialize else len(self._lst)

    def __getitem__(self, index: int) -> Any:
        if not self._serialize:
            item = self._lst[index]
            return pickle.loads(pickle.dumps(item, protocol=-1)) if self._copy else item
        index = range(len(self))[index]  # counts negative ones from the end, refuses those outside
        start, end = self._ends[index : index + 2].tolist()
        return pickle.loads(memoryview(self._lst[start:end].numpy()))


class MapDataset(Dataset):
    """A function applied to each item of a data set.

    Args:
        dataset: a Dataset, or anything that can be iterated over.
        map_func: the function. Where it returns None, another item is taken at random, or, of what
            can only be iterated over, the next one.
    """

    def __new__(cls, dataset: Any, map_func: Callable) -> Dataset:
        if isinstance(dataset, IterableDataset):
            return _MapIterableDataset(dataset, map_func)
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple:
        return self._dataset, self._map_func

    def __init__(self, dataset: Dataset, map_func: Callable):
        self._dataset = dataset
        self._map_func = map_func
        self._random = random.Random(42)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        untried = None
        current = int(index)
        for failures in itertools.count(1):
            data = self._map_func(self._dataset[current])
            if data is not None:
                return data
            untried = set(range(len(self))) if untried is None else untried
            untried.discard(current)
            if not untried:
                raise RuntimeError("the mapper returned None for every item of the data set")
            if failures == 3:
                logging.getLogger(__name__).warning(
                    "The mapper returned None %d times in a row, first for item %d", failures, index
                )
            current = self._random.choice(sorted(untried))


class _MapIterableDataset(IterableDataset):
    """A function applied to each item as it comes; those for which it returns None are left out."""

    def __init__(self, dataset: Iterable, map_func: Callable):
        self._dataset = dataset
        self._map_func = map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator:
        return (item for item in map(self._map_func, self._dataset) if item is not None)


class ToIterableDataset(IterableDataset):
    """The items that a sampler names, as a stream that worker processes divide among them.

    Args:
        dataset: the items.
        sampler: their order; the same in every worker.
        shard_sampler: whether each worker takes its share of the sampler only.
        shard_chunk_size: how many items in a row a worker takes.
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: Sampler,
        shard_sampler: bool = True,
        shard_chunk_size: int = 1,
    ):
        self.dataset = dataset
        self.sampler = sampler
        self.shard_sampler = shard_sampler
        self.shard_chunk_size = shard_chunk_size

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator:
        worker = get_worker_info() if self.shard_sampler else None
        for number, index in enumerate(self.sampler):
            chunk = number // self.shard_chunk_size
            if worker is None or chunk % worker.num_workers == worker.id:
                yield self.dataset[index]


class AspectRatioGroupedDataset(IterableDataset):
    """Batches of images that are all upright or all lying, so that little padding is needed.

    Args:
        dataset: gives dicts with "width" and "height".
        batch_size: items a batch.
    """

    def __init__(self, dataset: Iterable[dict], batch_size: int):
        self.dataset = dataset
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[dict]]:
        groups: dict[bool, list[dict]] = {True: [], False: []}
        for item in self.dataset:
            lying = item["width"] > item["height"]
            groups[lying].append(item)
            if len(groups[lying]) == self.batch_size:
                batch, groups[lying] = groups[lying], []
                yield batch
