"""Loaders for training and testing, and the small data sets that they are made of."""

import itertools
import logging
import operator
import pickle
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from ...errors import DataError
from ..utils import comm
from ..utils.env import seed_all_rng
from .catalog import DatasetCatalog, MetadataCatalog
from .samplers import InferenceSampler, TrainingSampler

_logger = logging.getLogger(__name__)


class DatasetFromList(Dataset):
    """A list as a data set, kept as one block of bytes.

    Worker processes share it, where the counting of references would make each of them copy a list
    of objects piece by piece.
    """

    def __init__(self, lst: list):
        ends, pickled = [0], bytearray()  # which grows in place
        for item in lst:
            pickled += pickle.dumps(item, protocol=-1)
            ends.append(len(pickled))
        # Tensors: torch hands those without a copy to processes that do not fork, too.
        self._ends = torch.tensor(ends)
        self._bytes = torch.from_numpy(np.frombuffer(pickled, np.uint8))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Any:
        index = range(len(self))[index]  # counts negative ones from the end, refuses those outside
        start, end = self._ends[index : index + 2].tolist()
        return pickle.loads(memoryview(self._bytes[start:end].numpy()))


class MapDataset(Dataset):
    """A function applied to each item; where it gives None, another item is taken at random."""

    def __init__(self, dataset: Dataset, map_func: Callable):
        self._dataset = dataset
        self._map_func = map_func
        self._random = random.Random(42)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        data = self._map_func(self._dataset[index])
        if data is None:
            others = self._random.sample(range(len(self)), len(self))
            mapped = (self._map_func(self._dataset[other]) for other in others)
            data = next((item for item in mapped if item is not None), None)
        if data is None:
            raise RuntimeError("the mapper returned None for every item of the data set")
        return data


class _SampledDataset(IterableDataset):
    """The items that a sampler names, as a stream that worker processes divide among them.

    A worker takes `chunk` items in a row: a batch, so that the batches come in the sampler's order.
    """

    def __init__(self, dataset: Dataset, sampler: Sampler, chunk: int):
        self.dataset = dataset
        self.sampler = sampler
        self.chunk = chunk

    def __iter__(self) -> Iterator:
        worker = get_worker_info()
        for number, index in enumerate(self.sampler):
            if worker is None or number // self.chunk % worker.num_workers == worker.id:
                yield self.dataset[index]


class AspectRatioGroupedDataset(IterableDataset):
    """Batches of images that are all upright or all lying, so that little padding is needed."""

    def __init__(self, dataset: Iterable[dict], batch_size: int, collate_fn: Callable = list):
        self.dataset = dataset
        self.batch_size = batch_size
        self.collate_fn = collate_fn

    def __iter__(self) -> Iterator[list[dict]]:
        groups: dict[bool, list[dict]] = {True: [], False: []}
        for item in self.dataset:
            lying = item["width"] > item["height"]
            groups[lying].append(item)
            if len(groups[lying]) == self.batch_size:
                batch, groups[lying] = groups[lying], []
                yield self.collate_fn(batch)


def get_detection_dataset_dicts(
    names: str | Sequence[str], filter_empty: bool = True, check_consistency: bool = True
) -> list[dict]:
    """Load the records of one or several registered data sets.

    `filter_empty` leaves out images without annotations, or with crowds only; `check_consistency`
    refuses to join data sets of different classes. Raises DataError where nothing is left.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise DataError("no data set is named: set the loader's dataset.names.")
    datasets = [DatasetCatalog.get(name) for name in names]
    for name, records in zip(names, datasets):
        if not records:
            raise DataError(f"data set {name!r} is empty: {_source(name)} holds no images.")
    records = list(itertools.chain.from_iterable(datasets))
    if "annotations" not in records[0]:
        return records
    if filter_empty:
        records = _with_objects(records, names)
    if check_consistency:
        classes = _common_classes(names)
        if classes is not None:
            _log_class_histogram(records, classes)
    return records


def _with_objects(records: list[dict], names: Sequence[str]) -> list[dict]:
    """Return the records that have an annotation which is not of a crowd."""
    kept = [r for r in records if any(a.get("iscrowd", 0) == 0 for a in r["annotations"])]
    if not kept:
        bare = sum(not record["annotations"] for record in records)
        raise DataError(
            f"nothing to train on in data set {', '.join(names)}: of its {len(records)} images "
            f"{bare} have no annotations and {len(records) - bare} only annotations of crowds "
            f"(iscrowd=1); check {', '.join(map(_source, names))}, or set filter_empty=False."
        )
    removed = len(records) - len(kept)
    _logger.info(
        "Removed %d images with no usable annotations. %d images left.", removed, len(kept)
    )
    return kept


def _source(name: str) -> str:
    return MetadataCatalog.get(name).get("json_file") or "what it is registered with"


def _common_classes(names: Sequence[str]) -> list[str] | None:
    """Return the class names of data sets that are to be joined; ValueError if they differ."""
    first, *others = (MetadataCatalog.get(name).get("thing_classes") for name in names)
    for name, other in zip(names[1:], others):
        if other != first:
            raise ValueError(
                f"data sets {names[0]!r} and {name!r} cannot be joined, for they differ in "
                f"thing_classes: {first} and {other}."
            )
    return first


def _log_class_histogram(records: list[dict], class_names: Sequence[str]) -> None:
    """Log how many instances each class has, crowds left out."""
    annotations = itertools.chain.from_iterable(record["annotations"] for record in records)
    counts = Counter(a["category_id"] for a in annotations if not a.get("iscrowd", 0))
    outside = [c for c in counts if not 0 <= c < len(class_names)]
    if outside:
        raise DataError(
            f"annotations have the category id {outside[0]}, but there are {len(class_names)} "
            "classes: category ids of records run from 0 to classes - 1."
        )
    cells = [cell for number, name in enumerate(class_names) for cell in (name, counts[number])]
    cells += ["total", sum(counts.values())]
    rows = [cells[i : i + 6] for i in range(0, len(cells), 6)]
    table = tabulate(rows, headers=["category", "#instances"] * 3, tablefmt="pipe", numalign="left")
    _logger.info("Distribution of instances among all %d categories:\n%s", len(class_names), table)


def build_detection_train_loader(
    dataset: list | Dataset,
    *,
    mapper: Callable[[dict], Any] | None,
    sampler: Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    drop_last: bool = True,
    prefetch_factor: int | None = None,
    persistent_workers: bool = False,
    pin_memory: bool = False,
    seed: int | None = None,
) -> Iterable:
    """Build the endless loader of a training: batches, lists of what `mapper` makes of records.

    Without a `sampler` a TrainingSampler shuffles. `total_batch_size` counts the images of all
    processes together. `aspect_ratio_grouping` puts upright images together, and lying ones.
    `num_workers` processes load for each that trains; `seed` is that of their random numbers.
    """
    dataset = _mapped(dataset, mapper, "the training set is empty: there is no image to train on.")
    batch_size, rest = divmod(total_batch_size, comm.get_world_size())
    if batch_size <= 0 or rest:
        raise AssertionError(
            f"{total_batch_size} images a batch do not divide by {comm.get_world_size()} processes"
        )
    if sampler is None:
        sampler = TrainingSampler(len(dataset))
    collate_fn = collate_fn or trivial_batch_collator
    # For grouping, the workers give single items, which make batches only behind them.
    loader = DataLoader(
        _SampledDataset(dataset, sampler, chunk=batch_size),
        batch_size=1 if aspect_ratio_grouping else batch_size,
        drop_last=drop_last,
        num_workers=num_workers,
        collate_fn=operator.itemgetter(0) if aspect_ratio_grouping else collate_fn,
        worker_init_fn=worker_init_reset_seed,
        prefetch_factor=prefetch_factor,
        persistent_workers=persistent_workers,
        pin_memory=pin_memory,
        generator=None if seed is None else torch.Generator().manual_seed(seed),
    )
    if aspect_ratio_grouping:
        return AspectRatioGroupedDataset(loader, batch_size, collate_fn)
    return loader


def build_detection_test_loader(
    dataset: list | Dataset,
    *,
    mapper: Callable[[dict], Any],
    sampler: Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
) -> DataLoader:
    """Build the loader of an evaluation: each record once, in order, divided over the processes.

    `batch_size` counts the images of one process.
    """
    dataset = _mapped(dataset, mapper, "the test set is empty: there is no image to evaluate on.")
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=InferenceSampler(len(dataset)) if sampler is None else sampler,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )


def _mapped(dataset: list | Dataset, mapper: Callable | None, complaint: str) -> Dataset:
    if isinstance(dataset, list):
        if not dataset:
            raise DataError(complaint)
        dataset = DatasetFromList(dataset)
    return dataset if mapper is None else MapDataset(dataset, mapper)


def trivial_batch_collator(batch: list) -> list:
    """Leave a batch a list."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed Python's, NumPy's and torch's random numbers of a worker process, each differently."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)
