"""Start the processes of a run: on one machine or several, here or by torchrun."""

import argparse
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.distributed as dist

from ..d2.engine import default_argument_parser
from ..d2.utils import comm
from ..errors import ConfigError
from .machines import Machines, listen
from .processes import is_lost_connection, lost_connection_error, run_processes

__all__ = ["add_launch_arguments", "launch", "launch_tool"]

_BACKENDS = ("nccl", "gloo")
_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_PATIENCE = 5  # seconds


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to Detectron2's command line what else `launch` takes; the address is found by itself."""
    parser.set_defaults(dist_url="auto")
    parser.add_argument(
        "--dist-backend",
        choices=_BACKENDS,
        help="how processes talk: nccl between GPUs (the default where there are any), gloo "
        "anywhere",
    )
    parser.add_argument(
        "--dist-timeout",
        type=_seconds,
        default=1800,
        metavar="SECONDS",
        help="how long machines and processes wait for each other (default: %(default)s)",
    )


def launch_tool(
    main_func: Callable, argv: list[str] | None = None, epilog: str | None = None
) -> Any:
    """Call main_func(args) in the processes that a command line in Detectron2's manner asks for.

    Args:
        main_func: takes the parsed arguments.
        argv: the command line; None for the program's own.
        epilog: of the help text.

    Returns:
        What main_func returns in the first process.

    Raises:
        UserError: for everything that the person can put right.
    """
    parser = default_argument_parser(epilog=epilog)
    add_launch_arguments(parser)
    args = parser.parse_args(argv)
    return launch(
        main_func,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
        timeout=timedelta(seconds=args.dist_timeout),
        backend=args.dist_backend,
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e8:  # nan neither; and timedelta has an end
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return value


def launch(
    main_func: Callable,
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = "auto",
    args: tuple = (),
    timeout: timedelta = timedelta(minutes=30),
    backend: str | None = None,
) -> Any:
    """Call main_func(*args) in num_gpus_per_machine processes on each machine.

    The arguments are those of Detectron2's `launch`. A single process is this one itself; without
    GPUs, several run on the CPU. Where torchrun (or a program that sets its variables) has started
    this process, it joins the others that were started.

    Args:
        main_func: can be pickled, as can `args` and what it returns.
        num_gpus_per_machine: processes on each machine.
        num_machines: machines on which the program is started.
        machine_rank: the number of this one, from 0.
        dist_url: tcp://HOST:PORT of machine 0, where the machines meet; on one machine "auto", or
            None, takes a free port.
        args: of main_func.
        timeout: how long machines wait for each other to come, and processes for an answer.
        backend: "nccl" or "gloo"; None takes NCCL where there are GPUs.

    Returns:
        What main_func returns in this machine's first process.

    Raises:
        ConfigError: counts, address or backend cannot be used.
        ProcessError: a process was killed, or another machine failed or did not come.
        BaseException: whatever main_func raises in any process; the others are ended.
    """
    if backend is None:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl" and not torch.cuda.is_available():
        raise ConfigError("--dist-backend nccl is for GPUs, and there is none here: use gloo.")
    if timeout <= timedelta(0):
        raise ConfigError("--dist-timeout must be more than 0 seconds.")
    if _by_torchrun():
        counts = num_gpus_per_machine, num_machines
        return _run_by_torchrun(main_func, args, *counts, backend, timeout)
    _check_counts(num_gpus_per_machine, num_machines, machine_rank)
    _check_gpus(num_gpus_per_machine, backend, "--num-gpus asks for")
    if num_machines * num_gpus_per_machine == 1:
        return main_func(*args)
    host, port = _parse_address(dist_url, num_machines)
    settings = {"--num-machines": num_machines, "--num-gpus": num_gpus_per_machine}
    with _meeting((host, port), machine_rank, settings, timeout) as (machines, store_port):
        group = _Group(
            store_address=(host, store_port),
            first_rank=machine_rank * num_gpus_per_machine,
            num_local=num_gpus_per_machine,
            num_machines=num_machines,
            backend=backend,
            timeout=timeout,
        )
        work = (main_func, args, group)
        return run_processes(_work, work, group.num_local, group.first_rank, machines)


@dataclass(frozen=True)
class _Group:
    """What the processes of one machine know of all."""

    store_address: tuple[str, int]
    first_rank: int
    num_local: int
    num_machines: int
    backend: str
    timeout: timedelta


def _work(local_rank: int, main_func: Callable, args: tuple, group: _Group) -> Any:
    """What each process does."""
    os.environ["LOCAL_RANK"] = str(local_rank)  # as torchrun does
    _share_cores(group.num_local)
    if group.num_machines == 1:
        _use_loopback()
    host, port = group.store_address
    store = dist.TCPStore(host, port, is_master=False, timeout=group.timeout)
    rank, world_size = group.first_rank + local_rank, group.num_machines * group.num_local
    _join(store, rank, world_size, local_rank, group.num_local, group.backend, group.timeout)
    result = main_func(*args)
    dist.destroy_process_group()
    return result


def _join(
    store: dist.Store,
    rank: int,
    world_size: int,
    local_rank: int,
    num_local: int,
    backend: str,
    timeout: timedelta,
) -> None:
    """Join the group of processes, in a way that either framework's `comm` knows."""
    if torch.cuda.is_available() and local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    comm.create_local_process_group(num_local)
    comm.synchronize()
    # DistributedDataParallel says this of depthwise convolutions, where it means nothing: what it
    # compares are strides of dimensions of size 1.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")


def _share_cores(num_local: int) -> None:
    """Give each process of a machine its share of threads; all with all cores' slow each other."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max(1, cores // num_local))


def _use_loopback() -> None:
    """Have gloo talk on this machine alone; else it looks for an address by the host's name."""
    names = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if names:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])


@contextmanager
def _meeting(
    address: tuple[str, int], machine_rank: int, settings: dict, timeout: timedelta
) -> Iterator[tuple[Machines, int]]:
    """Meet the launchers of the other machines; yields them, and the port of the run's store.

    Machine 0 has the store, by which the processes find each other. It lives in the launcher, so
    that the death of no process takes it away.
    """
    seconds, num_machines = timeout.total_seconds(), settings["--num-machines"]
    if machine_rank > 0:
        machines, begin = Machines.join(address, machine_rank, settings, seconds)
        with closing(machines):
            yield machines, begin["store_port"]
        return
    if num_machines == 1:
        machines = Machines(0, [])
        store = _open_store(listen(address[1], everywhere=False, setting="--dist-url"), timeout)
    else:
        with listen(address[1], everywhere=True, setting="--dist-url") as server:
            machines = Machines.gather(server, num_machines, settings, seconds)
        store = _open_store(listen(0, everywhere=True, setting="the store"), timeout)
        machines.begin(store_port=store.port)
    with closing(machines):
        yield machines, store.port


def _open_store(server: socket.socket, timeout: timedelta) -> dist.TCPStore:
    port = server.getsockname()[1]
    return dist.TCPStore(
        "127.0.0.1",
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timeout,
        master_listen_fd=server.detach(),
    )


def _by_torchrun() -> bool:
    """Whether this process is one of those that torchrun starts; a launcher of ours is not."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def _run_by_torchrun(
    main_func: Callable,
    args: tuple,
    num_gpus: int,
    num_machines: int,
    backend: str,
    timeout: timedelta,
) -> Any:
    """Join the processes that torchrun has started; it ends them all when one fails."""
    rank, world_size, local_rank, num_local = _torchrun_numbers()
    if num_gpus not in (1, num_local) or num_machines not in (1, world_size // num_local):
        raise ConfigError(
            f"torchrun has started {num_local} of {world_size} processes here: leave out "
            "--num-gpus and --num-machines."
        )
    _check_gpus(num_local, backend, "torchrun has started processes for")
    if world_size == 1:
        return main_func(*args)
    _share_cores(num_local)
    if num_local == world_size:
        _use_loopback()
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
    except dist.DistError as error:
        raise lost_connection_error(error, rank) from error
    try:
        _join(store, rank, world_size, local_rank, num_local, backend, timeout)
        result = main_func(*args)
    except Exception as error:
        raise _if_first(error, store, rank) from error
    dist.destroy_process_group()
    return result


def _torchrun_numbers() -> list[int]:
    """RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE of the environment."""
    missing = [name for name in (*_NUMBERS, "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise ConfigError(
            f"RANK, WORLD_SIZE and LOCAL_RANK are set, as by torchrun, but {', '.join(missing)} "
            "not: set what is missing, or unset them all."
        )
    try:
        return [int(os.environ[name]) for name in _NUMBERS]
    except ValueError:
        values = ", ".join(f"{name}={os.environ[name]}" for name in _NUMBERS)
        raise ConfigError(f"{values}: torchrun sets these to whole numbers.") from None


def _if_first(error: Exception, store: dist.Store, rank: int) -> BaseException:
    """The error if no other process has told one; else a quiet end, for one message is enough."""
    try:
        if is_lost_connection(error):
            error = lost_connection_error(error, rank)
            time.sleep(_PATIENCE)  # the others' reason comes first; torchrun may end us meanwhile
        elif rank > 0:
            time.sleep(1)  # where all fail together, process 0 has the most to say
        first = store.add("iwin_d2/failures", 1) == 1
    except RuntimeError:  # the store is gone, too
        first = True
    return error if first else SystemExit(1)


def _check_counts(num_gpus: int, num_machines: int, machine_rank: int) -> None:
    if num_gpus < 1:
        raise ConfigError(
            f"--num-gpus {num_gpus}: give the number of processes on each machine, at least 1 "
            "(also where there is no GPU)."
        )
    if num_machines < 1:
        raise ConfigError(f"--num-machines {num_machines}: give the number of machines, 1 or more.")
    if not 0 <= machine_rank < num_machines:
        raise ConfigError(
            f"--machine-rank {machine_rank}: with --num-machines {num_machines} the machines are "
            f"numbered from 0 to {num_machines - 1}."
        )


def _check_gpus(num_local: int, backend: str, why: str) -> None:
    count = torch.cuda.device_count()
    if backend == "nccl" and num_local > count:
        raise ConfigError(
            f"{why} {num_local} GPUs, but this machine has {count}: lower the number, or add "
            "--dist-backend gloo to share GPUs or to run on the CPU."
        )


def _parse_address(dist_url: str | None, num_machines: int) -> tuple[str, int]:
    """The host and port where the machines meet; port 0 for any."""
    if dist_url in (None, "auto") and num_machines == 1:
        return "127.0.0.1", 0
    parts = urlsplit(dist_url or "")
    try:
        port = parts.port
    except ValueError:  # no number, or too large a one
        port = None
    if parts.scheme != "tcp" or not parts.hostname or not port or parts.path not in ("", "/"):
        raise ConfigError(
            f"--dist-url {dist_url}: give tcp://HOST:PORT of machine 0, the same on all machines; "
            "auto works on one machine."
        )
    return parts.hostname if num_machines > 1 else "127.0.0.1", port
