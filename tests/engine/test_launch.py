"""Starting the processes of a run: what is refused, how machines meet, and how all end."""

import argparse
import os
import signal
import socket
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import distributed_checks as checks
import pytest
import torch
import torch.distributed as dist

from iwin_d2.d2.utils import comm
from iwin_d2.engine.cli import pick_device, run_tool
from iwin_d2.engine.launch import add_launch_arguments, launch
from iwin_d2.engine.machines import Machines, RemoteError, listen
from iwin_d2.engine.processes import (
    _Child,
    _gravest,
    _Outcome,
    _write,
    is_lost_connection,
    lost_connection_error,
)
from iwin_d2.errors import ConfigError, DataError, ProcessError, UserError

SETTINGS = {"--num-machines": 2, "--num-gpus": 1}
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)


def refuse():
    raise AssertionError("nothing was to be started")


def test_one_process_is_this_one():
    assert launch(os.getpid, 1) == os.getpid()
    assert launch(lambda a, b: a + b, 1, args=(1, 2), dist_url="nonsense") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_gpus_per_machine": 0}, r"--num-gpus 0: .* at least 1"),
        ({"num_gpus_per_machine": -2}, r"--num-gpus -2"),
        ({"num_machines": 0}, r"--num-machines 0"),
        ({"machine_rank": 1}, r"--machine-rank 1: with --num-machines 1"),
        ({"num_machines": 2, "machine_rank": 2}, r"--machine-rank 2: .* from 0 to 1"),
        ({"num_machines": 2, "machine_rank": -1}, r"--machine-rank -1"),
        ({"num_machines": 2, "dist_url": "auto"}, r"--dist-url auto: give tcp://HOST:PORT"),
        ({"num_machines": 2, "dist_url": None}, r"--dist-url None"),
        ({"dist_url": "tcp://10.0.0.1"}, r"--dist-url tcp://10\.0\.0\.1: give"),
        ({"dist_url": "tcp://:29500"}, r"--dist-url tcp://:29500"),
        ({"dist_url": "tcp://host:port"}, r"--dist-url tcp://host:port"),
        ({"dist_url": "tcp://host:70000"}, r"--dist-url tcp://host:70000"),
        ({"dist_url": "tcp://host:1/path"}, r"--dist-url tcp://host:1/path"),
        ({"dist_url": "file:///tmp/shared"}, r"--dist-url file:///tmp/shared"),
        ({"dist_url": "localhost:29500"}, r"--dist-url localhost:29500"),
        ({"timeout": timedelta(0)}, r"--dist-timeout must be more than 0"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, message):
    arguments = {"num_gpus_per_machine": 2, **arguments}
    with pytest.raises(ConfigError, match=message):
        launch(refuse, **arguments)


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--dist-backend nccl is for GPUs"):
        launch(refuse, 2, backend="nccl")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(ConfigError, match="--num-gpus asks for 4 GPUs, but this machine has 3"):
        launch(refuse, 4)


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"Port {port} of --dist-url cannot be used .*another"
        ):
            launch(refuse, 2, dist_url=f"tcp://127.0.0.1:{port}")


def test_flags(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--dist-url", default="tcp://127.0.0.1:1")
    add_launch_arguments(parser)
    args = parser.parse_args([])
    assert (args.dist_url, args.dist_backend, args.dist_timeout) == ("auto", None, 1800)
    flag = "--dist-timeout"
    for wrong in (["--dist-backend", "mpi"], [flag, "soon"], [flag, "0"], [flag, "nan"]):
        with pytest.raises(SystemExit) as stopped:
            parser.parse_args(wrong)
        assert stopped.value.code == 2
        assert wrong[0] in capsys.readouterr().err


# --- torchrun


def set_torchrun(monkeypatch, **values):
    numbers = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
    for name, value in {**numbers, **address, **values}.items():
        if value is not None:
            monkeypatch.setenv(name, str(value))


def test_one_process_by_torchrun(monkeypatch):
    set_torchrun(monkeypatch, WORLD_SIZE=1, LOCAL_WORLD_SIZE=1)
    assert launch(os.getpid, 1) == os.getpid()


@pytest.mark.parametrize(
    ("values", "num_gpus", "message"),
    [
        ({"LOCAL_WORLD_SIZE": None, "MASTER_PORT": None}, 1, "LOCAL_WORLD_SIZE, MASTER_PORT not"),
        ({"RANK": "first"}, 1, "RANK=first, .* whole numbers"),
        ({}, 4, "torchrun has started 2 of 2 processes here: leave out --num-gpus"),
    ],
)
def test_variables_of_torchrun_that_cannot_be_used(monkeypatch, values, num_gpus, message):
    set_torchrun(monkeypatch, **values)
    with pytest.raises(ConfigError, match=message):
        launch(refuse, num_gpus)


def test_more_processes_by_torchrun_than_gpus(monkeypatch):
    set_torchrun(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"started processes for 2 GPUs, but .* 1:"):
        launch(refuse, 1)


# --- devices


def test_devices_of_several_processes(monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(comm, "get_local_rank", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "zeros", lambda *size, device: torch.ones(1))  # as if on the GPU
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    assert pick_device("cuda") == "cuda"
    with pytest.raises(ConfigError, match=r"train\.device=cpu, .* --dist-backend gloo"):
        pick_device("cpu")
    with pytest.raises(ConfigError, match=r"train\.device=cuda:0 would be the device of all"):
        pick_device("cuda:0")
    monkeypatch.setattr(dist, "get_backend", lambda: "gloo")
    assert pick_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="more processes than the 1 GPUs"):
        pick_device("cuda")


# --- machines


def in_thread(function, *args):
    """Call a function in another thread; returns what waits for its result or raises its error."""
    results = []

    def call():
        try:
            results.append((function(*args), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()

    def result():
        thread.join(60)
        ((value, error),) = results
        if error is not None:
            raise error
        return value

    return result


@pytest.fixture
def address():
    with listen(0, everywhere=False, setting="the test") as server:
        yield server, server.getsockname()[:2]


def test_machines_meet_and_finish(address):
    server, where = address
    strangers = [socket.create_connection(where) for _ in range(3)]
    strangers[0].sendall(b"GET / HTTP/1.1\r\n\r\n")
    strangers[1].sendall(b'["no", "launcher"]\n')
    second = in_thread(Machines.join, where, 1, SETTINGS, 30)
    first = Machines.gather(server, 2, SETTINGS, 30)
    first.begin(store_port=7)
    other, begin = second()
    assert begin == {"store_port": 7}
    first.check()
    other.check()
    other.finish()  # which does not wait
    other.close()
    first.finish()
    first.close()
    for stranger in strangers:
        stranger.close()


def test_machines_that_do_not_fit_are_told(address):
    server, where = address
    first = in_thread(Machines.gather, server, 2, SETTINGS, 30)
    with pytest.raises(ConfigError, match="started with --num-machines 2 --num-gpus 1: give the"):
        Machines.join(where, 1, {"--num-machines": 2, "--num-gpus": 4}, 30)
    with pytest.raises(ConfigError, match="--machine-rank 2 is taken"):
        Machines.join(where, 2, SETTINGS, 30)
    second = in_thread(Machines.join, where, 1, SETTINGS, 30)
    first().begin(store_port=1)
    second()


def test_a_machine_that_does_not_come(address):
    server, where = address
    settings = {"--num-machines": 3, "--num-gpus": 1}
    second = in_thread(Machines.join, where, 1, settings, 30)
    with pytest.raises(ProcessError, match="Of 3 machines these did not come within 1 seconds: 2;"):
        Machines.gather(server, 3, settings, 1)
    with pytest.raises(ProcessError, match="these did not come within 1 seconds: 2;"):
        second()


def test_a_first_machine_that_does_not_come(caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = server.getsockname()
    with pytest.raises(ProcessError, match=r"not be reached at 127\.0\.0\.1:\d+ within 1 sec"):
        Machines.join(where, 1, SETTINGS, 1)


def test_a_first_machine_that_stops_before_it_begins(address):
    server, where = address
    second = in_thread(Machines.join, where, 1, SETTINGS, 30)
    Machines.gather(server, 2, SETTINGS, 30).close()
    with pytest.raises(ProcessError, match="Machine 0 has stopped before"):
        second()


def met(address):
    server, where = address
    second = in_thread(Machines.join, where, 1, SETTINGS, 30)
    first = Machines.gather(server, 2, SETTINGS, 30)
    first.begin(store_port=1)
    return first, second()[0]


def wait_for_error(machines):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        machines.check()
        time.sleep(0.01)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_machine_that_fails_tells_the_other(address, failing):
    machines = met(address)
    machines[failing].report(DataError("Image x is bad."))
    machines[failing].close()
    with pytest.raises(RemoteError, match=f"On machine {failing}: Image x is bad"):
        wait_for_error(machines[1 - failing])


def test_a_machine_that_is_gone_is_noticed(address):
    first, second = met(address)
    second.close()
    with pytest.raises(RemoteError, match="Machine 1 is gone"):
        first.finish()


def fail_in_second(_folder):
    comm.synchronize()
    if comm.get_rank() == 1:
        raise DataError("Image x is bad.")
    comm.synchronize()


def test_two_machines_end_together(monkeypatch, tmp_path):
    """Two launchers, a process each: what one raises, the other is told."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", checks.LOOPBACK)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"tcp://127.0.0.1:{port}"
    second = in_thread(launch, fail_in_second, 1, 2, 1, url, (str(tmp_path),))
    with pytest.raises(ProcessError, match="On machine 1: Image x is bad"):
        launch(fail_in_second, 1, 2, 0, url, (str(tmp_path),))
    with pytest.raises(DataError, match="Image x is bad"):
        second()


def test_launchers_that_wait_in_vain():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    patience = {"timeout": timedelta(seconds=1)}
    with pytest.raises(ProcessError, match="did not come within 1 seconds: 1;"):
        launch(refuse, 1, 2, 0, url, **patience)
    with pytest.raises(ProcessError, match="Machine 0 could not be reached"):
        launch(refuse, 1, 2, 1, url, **patience)


# --- how a process ended


class NeedsTwo(DataError):
    """An error that can be pickled, but not be taken out again."""

    def __init__(self, what, why):
        super().__init__(f"{what} is {why}.")


def child(tmp_path, outcome=None, exitcode=1):
    process = SimpleNamespace(exitcode=exitcode)
    if outcome:
        _write(tmp_path / "outcome", outcome)
    return _Child(process, 3, tmp_path / "outcome").outcome()


def test_results_and_errors_come_back_whole(tmp_path):
    assert child(tmp_path, exitcode=None) is None
    assert child(tmp_path, _Outcome({"AP": 1.0}), exitcode=None).result == {"AP": 1.0}
    error = child(tmp_path, _Outcome(error=KeyError("a"), trace="Traceback of it")).error
    assert type(error) is KeyError and error.args == ("a",)
    assert "Process 3: Traceback of it" in str(error.__cause__)
    lost = RuntimeError("Connection closed by peer")
    assert "Process 3 has lost" in str(child(tmp_path, _Outcome(error=lost)).error)


def test_what_cannot_be_taken_to_the_launcher_comes_as_text(tmp_path):
    error = child(tmp_path, _Outcome(error=NeedsTwo("x.jpg", "bad"))).error
    assert isinstance(error, UserError) and error.sentence == "x.jpg is bad."
    error = child(tmp_path, _Outcome(error=ValueError(lambda: 0))).error
    assert isinstance(error, RuntimeError) and "ValueError(<function" in str(error)
    error = child(tmp_path, _Outcome(lambda: 0), exitcode=0).error
    assert "The result cannot be taken to the launcher" in str(error)


@pytest.mark.parametrize(
    ("exitcode", "said"),
    [
        (-signal.SIGKILL, "was killed by SIGKILL: the machine may have run out of memory"),
        (-signal.SIGTERM, "was killed by SIGTERM: somebody has ended it"),
        (-signal.SIGSEGV, "was killed by SIGSEGV: that is a crash in compiled code"),
        (-62, "was killed by signal 62: somebody"),
        (7, "ended with status 7 before its work was done"),
        (0, "ended with status 0 before its work was done"),
    ],
)
def test_a_process_that_says_nothing(tmp_path, exitcode, said):
    error = child(tmp_path, exitcode=exitcode).error
    assert isinstance(error, ProcessError)
    assert error.sentence.startswith(f"Process 3 {said}")


def test_a_missing_value_is_named_once(tmp_path, capsys):
    said = ConfigError("optimizer.lr is not set: add optimizer.lr=...")
    trace = 'raise MissingMandatoryValue("Missing mandatory value: $FULL_KEY")'

    def fail():
        raise child(tmp_path, _Outcome(error=said, trace=trace)).error

    assert run_tool(fail) == 1
    assert capsys.readouterr().err == "optimizer.lr is not set: add optimizer.lr=...\n"


def test_the_gravest_error_is_told():
    lost = lost_connection_error(RuntimeError("Broken pipe"), 0)
    bug, killed, bad = KeyError("a"), ProcessError("killed"), DataError("bad")
    remote = RemoteError("On machine 1: bad")
    assert _gravest([lost, bug, killed, bad]) is bad
    assert _gravest([lost, bug, killed]) is killed
    assert _gravest([lost, bug]) is bug
    assert _gravest([lost, remote]) is remote
    assert _gravest([bad, DataError("other")]) is bad  # the lowest rank's


# --- what is said


@pytest.mark.parametrize(
    "text",
    [
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer",
        "[...unbound_buffer.cc:78] Timed out waiting 3000ms for recv operation to complete",
        "NCCL error: remote process exited or there was a network error, NCCL version 2.21",
    ],
)
def test_lost_connections_are_recognised(text):
    assert is_lost_connection(RuntimeError(text))
    sentence = lost_connection_error(RuntimeError(f"{text}\nframe #0"), 3).sentence
    assert sentence.startswith("Process 3 has lost the connection") and "frame" not in sentence


def test_other_errors_are_not_taken_for_lost_connections():
    for error in (
        RuntimeError("shape mismatch"),
        ConnectionResetError(104, "Connection reset by peer"),  # of a loader that reads a network
        DataError("Connection reset by peer"),
    ):
        assert not is_lost_connection(error)


def test_a_loading_process_that_was_killed(capsys):
    def fail():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    assert run_tool(fail) == 1
    sentence = capsys.readouterr().err
    assert "(pid 7) is killed by signal: Killed)" in sentence and "num_workers" in sentence
