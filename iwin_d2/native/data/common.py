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
        self._copy = copy
        self._serialize = serialize
        if not serialize:
            self._lst = lst
            return
        pickled = [pickle.dumps(item, protocol=-1) for item in lst]
        # Tensors, since torch hands those to processes that do not fork without a copy, too.
        self._ends = torch.from_numpy(np.cumsum([len(item) for item in pickled], dtype=np.int64))
        self._lst = torch.frombuffer(bytearray(b"".join(pickled) or b"\0"), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._ends if self._serialize else self._lst)

    def __getitem__(self, index: int) -> Any:
        if not self._serialize:
            item = self._lst[index]
            return pickle.loads(pickle.dumps(item, protocol=-1)) if self._copy else item
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        index %= len(self)
        start = int(self._ends[index - 1]) if index else 0
        return pickle.loads(memoryview(self._lst[start : int(self._ends[index])].numpy()))


class MapDataset(Dataset):
    """A function applied to each item of a data set.

    Args:
        dataset: a Dataset, an IterableDataset or anything that can be iterated over.
        map_func: the function. Where it returns None, another item is taken at random, or, of what
            can only be iterated over, the next one.
    """

    def __new__(cls, dataset: Any, map_func: Callable) -> Dataset:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            return _MapIterableDataset(dataset, map_func)
        return super().__new__(cls)

    def __init__(self, dataset: Dataset, map_func: Callable):
        self._dataset = dataset
        self._map_func = map_func
        self._fallbacks = set(range(len(dataset)))
        self._random = random.Random(42)

    def __getnewargs__(self) -> tuple:
        return self._dataset, self._map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        failures, current = 0, int(index)
        while True:
            data = self._map_func(self._dataset[current])
            if data is not None:
                self._fallbacks.add(current)
                return data
            failures += 1
            self._fallbacks.discard(current)
            if not self._fallbacks:
                raise RuntimeError("the mapper returned None for every item of the data set")
            if failures >= 3:
                logging.getLogger(__name__).warning(
                    "The mapper returned None %d times in a row, first for item %d", failures, index
                )
            current = self._random.choice(sorted(self._fallbacks))


class _MapIterableDataset(IterableDataset):
    """A function applied to each item as it comes; those for which it returns None are left out."""

    def __init__(self, dataset: Iterable, map_func: Callable):
        self._dataset = dataset
        self._map_func = map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator:
        for item in map(self._map_func, self._dataset):
            if item is not None:
                yield item


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
        worker = get_worker_info()
        if not self.shard_sampler or worker is None:
            indices: Iterable[int] = iter(self.sampler)
        else:
            indices = _every_nth_chunk(
                self.sampler, self.shard_chunk_size, worker.id, worker.num_workers
            )
        for index in indices:
            yield self.dataset[index]


def _every_nth_chunk(sampler: Iterable[int], size: int, first: int, n: int) -> Iterator[int]:
    indices = iter(sampler)
    for number in itertools.count():
        chunk = list(itertools.islice(indices, size))
        if not chunk:
            return
        if number % n == first:
            yield from chunk


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
        waiting: tuple[list, list] = ([], [])
        for item in self.dataset:
            group = waiting[0 if item["width"] > item["height"] else 1]
            group.append(item)
            if len(group) == self.batch_size:
                batch = group[:]
                # First, since whoever gets the batch may never come back.
                group.clear()
                yield batch
