"""Loaders for training and testing."""

import itertools
import logging
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ...errors import DataError
from ..utils import comm
from ..utils.env import seed_all_rng
from .catalog import DatasetCatalog, MetadataCatalog
from .common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from .detection_utils import check_metadata_consistency
from .samplers import InferenceSampler, TrainingSampler

__all__ = [
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "filter_images_with_only_crowd_annotations",
    "get_detection_dataset_dicts",
    "print_instances_class_histogram",
    "trivial_batch_collator",
    "worker_init_reset_seed",
]

_logger = logging.getLogger(__name__)


def filter_images_with_only_crowd_annotations(dataset_dicts: list[dict]) -> list[dict]:
    """Return the records that have an annotation which is not of a crowd."""
    kept = [
        record
        for record in dataset_dicts
        if any(a.get("iscrowd", 0) == 0 for a in record["annotations"])
    ]
    _logger.info(
        "Removed %d images with no usable annotations. %d images left.",
        len(dataset_dicts) - len(kept),
        len(kept),
    )
    return kept


def print_instances_class_histogram(dataset_dicts: list[dict], class_names: Sequence[str]) -> None:
    """Log how many instances each class has, crowds left out."""
    from tabulate import tabulate

    counts = Counter(
        annotation["category_id"]
        for record in dataset_dicts
        for annotation in record["annotations"]
        if not annotation.get("iscrowd", 0)
    )
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


def get_detection_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    check_consistency: bool = True,
) -> list[dict] | Dataset:
    """Load the records of one or several registered data sets.

    Args:
        names: the data sets.
        filter_empty: whether images without annotations, or with crowds only, are left out.
        min_keypoints: not supported here.
        proposal_files: not supported here.
        check_consistency: whether data sets to be joined must have the same classes.

    Raises:
        DataError: a name is not registered, or no image is left; says why.
    """
    if min_keypoints or proposal_files:
        raise NotImplementedError("keypoints and precomputed proposals need Detectron2")
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise DataError("no data set is named: set the loader's dataset.names.")
    datasets = [DatasetCatalog.get(name) for name in names]
    if isinstance(datasets[0], Dataset):
        return torch.utils.data.ConcatDataset(datasets) if len(datasets) > 1 else datasets[0]
    for name, records in zip(names, datasets):
        if not records:
            raise DataError(f"data set {name!r} is empty: {_source(name)} holds no images.")
    records = list(itertools.chain.from_iterable(datasets))
    has_instances = "annotations" in records[0]
    if filter_empty and has_instances:
        kept = filter_images_with_only_crowd_annotations(records)
        if not kept:
            raise _nothing_left(names, records)
        records = kept
    if check_consistency and has_instances:
        check_metadata_consistency("thing_classes", names)
        class_names = MetadataCatalog.get(names[0]).get("thing_classes")
        if class_names is not None:
            print_instances_class_histogram(records, class_names)
    return records


def _source(name: str) -> str:
    return MetadataCatalog.get(name).get("json_file") or "what it is registered with"


def _nothing_left(names: Sequence[str], records: list[dict]) -> DataError:
    bare = sum(not record["annotations"] for record in records)
    crowds = len(records) - bare
    return DataError(
        f"nothing to train on in data set {', '.join(names)}: of its {len(records)} images {bare} "
        f"have no annotations and {crowds} only annotations of crowds (iscrowd=1); check "
        f"{', '.join(_source(name) for name in names)}, or set filter_empty=False."
    )


def build_batch_data_loader(
    dataset: Dataset,
    sampler: Sampler | None,
    total_batch_size: int,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    drop_last: bool = True,
    prefetch_factor: int | None = None,
    persistent_workers: bool = False,
    pin_memory: bool = False,
    seed: int | None = None,
) -> Any:
    """Build a loader of batches for training.

    Args:
        dataset: gives the model's input, item by item.
        sampler: the order; None for a dataset that can only be iterated over.
        total_batch_size: images a batch over all processes; a multiple of their number.
        aspect_ratio_grouping: put upright images together, and lying ones; needs items with width
            and height.
        num_workers: processes that load, for each process that trains.
        collate_fn: makes a batch of a list; None leaves the list.
        drop_last: as for torch's DataLoader.
        prefetch_factor: as for torch's DataLoader.
        persistent_workers: as for torch's DataLoader.
        pin_memory: as for torch's DataLoader.
        seed: of the workers' random numbers.

    Returns:
        What can be iterated over to get batches.
    """
    batch_size, rest = divmod(total_batch_size, comm.get_world_size())
    if batch_size <= 0 or rest:
        raise AssertionError(
            f"{total_batch_size} images a batch do not divide by {comm.get_world_size()} processes"
        )
    if not isinstance(dataset, IterableDataset):
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)
    elif sampler is not None:
        raise AssertionError("a dataset that can only be iterated over takes no sampler")
    if aspect_ratio_grouping:
        # The workers give single items, which are grouped into batches only behind them.
        collate, drop_last = operator.itemgetter(0), False
    else:
        collate = collate_fn or trivial_batch_collator
    loader = DataLoader(
        dataset,
        batch_size=1 if aspect_ratio_grouping else batch_size,
        drop_last=drop_last,
        num_workers=num_workers,
        collate_fn=collate,
        worker_init_fn=worker_init_reset_seed,
        prefetch_factor=prefetch_factor,
        persistent_workers=persistent_workers,
        pin_memory=pin_memory,
        generator=None if seed is None else torch.Generator().manual_seed(seed),
    )
    if not aspect_ratio_grouping:
        return loader
    grouped = AspectRatioGroupedDataset(loader, batch_size)
    return grouped if collate_fn is None else MapDataset(grouped, collate_fn)


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
) -> Any:
    """Build the endless loader of a training.

    `dataset` is records, or a data set of them; `mapper` turns a record into the model's input, or
    is None; without a sampler a TrainingSampler shuffles the records. The other arguments are those
    of `build_batch_data_loader`.

    Returns:
        What can be iterated over to get batches, lists of what the mapper returns.

    Raises:
        DataError: there are no records.
    """
    dataset = _mapped(dataset, mapper, "training set is empty: there is no image to train on.")
    if sampler is None and not isinstance(dataset, IterableDataset):
        sampler = TrainingSampler(len(dataset))
    return build_batch_data_loader(
        dataset,
        sampler,
        total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
        drop_last=drop_last,
        prefetch_factor=prefetch_factor,
        persistent_workers=persistent_workers,
        pin_memory=pin_memory,
        seed=seed,
    )


def build_detection_test_loader(
    dataset: list | Dataset,
    *,
    mapper: Callable[[dict], Any],
    sampler: Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
) -> DataLoader:
    """Build the loader of an evaluation: each record once, in order.

    Args:
        dataset: records, or a data set of them.
        mapper: turns a record into the model's input.
        sampler: None divides the records over the processes (InferenceSampler).
        batch_size: images a batch, in each process.
        num_workers: processes that load.
        collate_fn: makes a batch of a list; None leaves the list.

    Raises:
        DataError: there are no records.
    """
    dataset = _mapped(dataset, mapper, "test set is empty: there is no image to evaluate on.")
    if sampler is None and not isinstance(dataset, IterableDataset):
        sampler = InferenceSampler(len(dataset))
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=False,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )


def _mapped(dataset: list | Dataset, mapper: Callable | None, complaint: str) -> Dataset:
    if isinstance(dataset, list):
        if not dataset:
            raise DataError(f"the {complaint}")
        dataset = DatasetFromList(dataset, copy=False)
    return dataset if mapper is None else MapDataset(dataset, mapper)


def trivial_batch_collator(batch: list) -> list:
    """Leave a batch a list."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed Python's, NumPy's and torch's random numbers of a worker process, each differently."""
    initial_seed = torch.initial_seed() % 2**31
    seed_all_rng(initial_seed + worker_id)
