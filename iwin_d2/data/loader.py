"""The training loader: endless batches in an order that a resumed run takes up exactly.

Detectron2's loader shuffles in the sampler, groups by shape behind the workers and draws its
augmentations from each worker's random numbers, so that what comes next depends on the number of
workers and on everything since the start. Here a plan, made from one seed, says which image stands
at which position of the stream and in which batch; the random numbers of its augmentation are
seeded from that position. The n-th batch is thus the same for any number of workers, of processes
that share the total batch, and of restarts.
"""

import itertools
import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..d2.data import DatasetFromList
from ..d2.utils import comm
from ..errors import AugmentationError, ConfigError, DataError
from .memory import release_memory

__all__ = ["BatchPlan", "TrainLoader", "build_train_loader"]

logger = logging.getLogger(__name__)

_SAME_SHAPE_TRIES = 100  # how often a stand-in of the same orientation is looked for


def build_train_loader(
    dataset: Sequence[dict],
    *,
    mapper: Callable[[dict], dict | None],
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    max_bad_images: int = 0,
    seed: int | None = None,
    pin_memory: bool = False,
    prefetch_factor: int | None = None,
) -> "TrainLoader":
    """Build the endless loader of a training: batches, lists of what `mapper` makes of records.

    Args:
        dataset: the records, dicts in Detectron2's format. A list is packed, so that workers share
            it; what is none (`data.video.records.VideoList`) is taken as it is.
        mapper: makes the model's input of a record; where it returns None another record is taken.
            Its `unit`, "image" by default, is what messages call a record.
        total_batch_size: images a batch, of all processes together.
        aspect_ratio_grouping: whether the images of a batch are all upright or all lying, so that
            little padding is needed; wants `width` and `height` in the records.
        num_workers: processes that load, for each process that trains; 0 loads in the process.
        max_bad_images: how many different images may be left out, each with a warning, because the
            mapper raises a DataError for them; the next one ends the training, as with 0 the first.
        seed: of order and augmentations; None draws one, the same in all processes.
        pin_memory: whether batches are put into page-locked memory, where there is a GPU.
        prefetch_factor: batches that each worker loads ahead; None for torch's default.

    Raises:
        DataError: the data set is empty, has no sizes to group by, or has records that the mapper
            can tell to be bad without reading images.
        ConfigError: the batch cannot be divided by the processes; settings that make no sense.
    """
    if not len(dataset):
        unit = getattr(mapper, "unit", "image")
        raise DataError(f"The training set is empty: there is no {unit} to train on.")
    share, rest = divmod(total_batch_size, comm.get_world_size())
    if share <= 0 or rest:
        raise ConfigError(
            f"dataloader.train.total_batch_size={total_batch_size} cannot be shared equally by "
            f"{comm.get_world_size()} processes: set it to a multiple of that."
        )
    if max_bad_images < 0:
        raise ConfigError(
            f"dataloader.train.max_bad_images={max_bad_images} makes no sense: set it to 0 or more."
        )
    if prefetch_factor is not None and not num_workers:
        raise ConfigError(
            f"dataloader.train.prefetch_factor={prefetch_factor} is for workers, and there are "
            "none: set it to None, or num_workers to 1 or more."
        )
    if not max_bad_images and hasattr(mapper, "check_records"):
        mapper.check_records(dataset)
    groups = _orientations(dataset) if aspect_ratio_grouping else None
    packed = DatasetFromList(dataset) if isinstance(dataset, list) else dataset
    seed = int(comm.shared_random_seed() if seed is None else seed)
    return TrainLoader(
        _MappedRecords(packed, mapper, groups, max_bad_images),
        BatchPlan(len(dataset), total_batch_size, seed, groups),
        num_workers=num_workers,
        pin_memory=pin_memory and torch.cuda.is_available(),
        prefetch_factor=prefetch_factor,
    )


class BatchPlan:
    """The batches of all processes together, as an endless stream of (position, index) lists.

    The stream of indices is one permutation after the other; `position` counts through it.

    Args:
        size: number of records.
        batch_size: images a batch.
        seed: of the permutations.
        groups: [size] a number for each record; a batch has records of one number only. What does
            not fill a batch at the end of a permutation waits for the next. None: one group.
    """

    def __init__(self, size: int, batch_size: int, seed: int, groups: np.ndarray | None = None):
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.groups = groups

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.batches()

    def batches(self, first: int = 0) -> Iterator[list[tuple[int, int]]]:
        """The batches from number `first` on."""
        if self.groups is not None:  # what waits depends on everything before
            yield from itertools.islice(self._grouped(), first, None)
            return
        # Of what is over only the permutations are drawn: epochs of millions are soon passed.
        skipped = first * self.batch_size
        batch: list[tuple[int, int]] = []
        generator = torch.Generator().manual_seed(self.seed)
        for start in itertools.count(step=self.size):
            order = torch.randperm(self.size, generator=generator)
            begin = max(skipped - start, 0)
            for position, index in enumerate(order[begin:].tolist(), start + begin):
                batch.append((position, index))
                if len(batch) == self.batch_size:
                    yield batch
                    batch = []

    def _grouped(self) -> Iterator[list[tuple[int, int]]]:
        waiting: dict[int, list[tuple[int, int]]] = {}
        generator = torch.Generator().manual_seed(self.seed)
        for start in itertools.count(step=self.size):
            order = torch.randperm(self.size, generator=generator).numpy()
            keys = self.groups[order].tolist()
            for position, (index, key) in enumerate(zip(order.tolist(), keys), start):
                batch = waiting.setdefault(key, [])
                batch.append((position, index))
                if len(batch) == self.batch_size:
                    del waiting[key]
                    yield batch


class TrainLoader:
    """Iterates over this process's share of a plan's batches, from the first or a later one."""

    def __init__(self, records: "_MappedRecords", plan: BatchPlan, **loader_options: Any):
        self._records = records
        self._plan = plan
        self._options = loader_options
        self._begun_at = 0  # the batches that the training had seen when this order began
        self._first = 0  # the batch of this order to begin with

    @property
    def total_batch_size(self) -> int:
        """Images a batch, of all processes together."""
        return self._plan.batch_size

    @property
    def unit(self) -> str:
        """What messages call a record: "image", or "video"."""
        return self._records.unit

    @property
    def num_records(self) -> int:
        """Records in the data set: an epoch."""
        return self._plan.size

    def __iter__(self) -> Iterator[list[dict]]:
        self._records.seed = self._plan.seed
        release_memory()  # of the loading of the data set, before workers begin as copies
        share = _Share(self._plan, self._first)
        loader = DataLoader(
            self._records,
            batch_sampler=share,
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # else torch's own would lose a number to the workers
            worker_init_fn=_leave_stopping_to_the_trainer,
            **self._options,
        )
        with _sigterm_kept():
            batches = iter(loader)
        yield from batches

    def state_dict(self) -> dict[str, int]:
        """What the order of the batches depends on."""
        return {
            "seed": self._plan.seed,
            "begun_at": self._begun_at,
            "total_batch_size": self._plan.batch_size,
            "size": self._plan.size,
        }

    def resume(self, state: dict[str, int], batches: int) -> None:
        """Go on where a training was after its first `batches` batches; `state` is its loader's.

        Takes effect where iteration begins. Where the data set or the batch has another size now,
        a warning says that the order begins anew, with another seed.
        """
        self._plan.seed, self._begun_at = state["seed"], state["begun_at"]
        self._first = batches - self._begun_at
        if state != self.state_dict():
            logger.warning(
                "The checkpoint was made with %d images, %d a batch, this run has %d, %d a batch: "
                "the order of the images begins anew.",
                *(state["size"], state["total_batch_size"], self._plan.size, self.total_batch_size),
            )
            self._plan.seed += batches  # not the first batches of that run once more
            self._begun_at, self._first = batches, 0


def _as_it_is(batch: list[dict]) -> list[dict]:
    return batch


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Let a SIGTERM wait, so that processes that are started here begin with it blocked.

    A worker blocks it by itself too late: PyTorch may have started threads in it by then, and one
    of them would take the signal and end the worker.
    """
    if not hasattr(signal, "sigwaitinfo"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_stopping_to_the_trainer(worker: int) -> None:
    """Let a worker outlive the Ctrl-C or SIGTERM that asks a whole job to stop.

    The process that trains needs data for the step in progress; its own SIGTERM ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # which tells the sender; macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_the_trainer, daemon=True).start()


def _obey_the_trainer() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)  # as torch's own workers do


class _Share:
    """This process's part of each batch, beginning with batch number `first`."""

    def __init__(self, plan: BatchPlan, first: int):
        self._plan, self._first = plan, first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        share = self._plan.batch_size // comm.get_world_size()
        start = share * comm.get_rank()
        for batch in self._plan.batches(self._first):
            yield batch[start : start + share]


class _MappedRecords(Dataset):
    """Maps (position, index) to the mapped record, its randomness seeded from seed and position."""

    def __init__(
        self,
        records: Sequence[dict],
        mapper: Callable[[dict], dict | None],
        groups: np.ndarray | None,
        max_bad_images: int,
    ):
        self._records = records
        self._mapper = mapper
        self.unit = getattr(mapper, "unit", "image")
        self._groups = groups
        self._max_bad = max_bad_images
        # A mark for each bad record, in memory that all workers share.
        self._bad = torch.zeros(len(records), dtype=torch.uint8).share_memory_()
        self.seed = 0

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        position, index = key
        tried: set[int] = set()
        while len(tried) < len(self):
            with _seeded(self.seed, position, len(tried)):
                item = self._map(index)
                if item is not None:
                    return item
                tried.add(index)
                index = self._stand_in(index, tried)
        raise DataError(
            f"The mapper can use none of the training {self.unit}s: check the data set."
        )

    def _map(self, index: int) -> dict | None:
        """The mapped record; None if it is left out."""
        if self._bad[index]:
            return None
        try:
            return self._mapper(self._records[index])
        except AugmentationError:  # the config's fault, or a bug's: not the image's
            raise
        except DataError as error:
            if self._bad[index]:  # another worker has found it meanwhile
                return None
            if int(self._bad.sum()) >= self._max_bad:
                raise self._too_many(error) from error
            self._bad[index] = 1
            logger.warning(
                "Left out bad %s %d of at most %d (dataloader.train.max_bad_images): %s",
                *(self.unit, int(self._bad.sum()), self._max_bad, error.sentence),
            )
            return None

    def _too_many(self, error: DataError) -> DataError:
        if not self._max_bad:
            return error
        return DataError(
            f"More than dataloader.train.max_bad_images={self._max_bad} {self.unit}s are bad; the "
            f"next one: {error.sentence}"
        )

    def _stand_in(self, index: int, tried: set[int]) -> int:
        """Another record, of the same orientation if one is easily found."""
        untried = (i for i in iter(lambda: random.randrange(len(self)), None) if i not in tried)
        if len(tried) == len(self):
            return index
        if self._groups is not None:
            for other in itertools.islice(untried, _SAME_SHAPE_TRIES):
                if self._groups[other] == self._groups[index]:
                    return other
        return next(untried)


@contextmanager
def _seeded(*entropy: int) -> Iterator[None]:
    """Seed the random numbers of Python, NumPy and torch's CPU; outside of workers, give them back.

    In a process that trains, the model's random numbers are not the loader's to change.
    """
    words = np.random.SeedSequence(entropy).generate_state(4)
    in_worker = get_worker_info() is not None
    if not in_worker:
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.default_generator.manual_seed(int(words[2]) << 32 | int(words[3]))
    try:
        yield
    finally:
        if not in_worker:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])


def _orientations(records: Sequence[dict]) -> np.ndarray:
    """1 for each record that is wider than high, else 0."""
    try:
        return np.array([r["width"] > r["height"] for r in records], dtype=np.uint8)
    except KeyError as error:
        raise DataError(
            f"A record of the training set has no {error}, which grouping by shape needs: add it, "
            "or set dataloader.train.aspect_ratio_grouping=False."
        ) from None
