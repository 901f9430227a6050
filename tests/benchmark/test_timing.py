"""Taking turns, the machine's rates, and the tool's command line."""

import importlib
import inspect
import runpy
import sys
from pathlib import Path

import pytest
import torch

from iwin_d2.benchmark import rates
from iwin_d2.benchmark.cases import CASES, ON_GPU
from iwin_d2.benchmark.machine import describe_machine
from iwin_d2.benchmark.table import against, table
from iwin_d2.benchmark.timing import runs_and_reasons, take_turns, time_in_turn, why_not

TOOL = Path(__file__).resolve().parents[2] / "tools/benchmark.py"


def test_each_goes_first_every_other_round():
    calls = []

    def candidate(name):
        def run():
            calls.append(name)
            return len(calls)

        return run

    results = take_turns({name: candidate(name) for name in "ab"}, rounds=3, warmup=1)
    assert "".join(calls) == "abbaabba"
    assert results == {"a": [4, 5, 8], "b": [3, 6, 7]}


def test_times_are_medians_and_ratios_those_of_each_round():
    clocks = {print: iter((9, 1, 4, 2)), repr: iter((9, 3, 4, 8))}  # the first is the warm-up
    times = time_in_turn({"a": print, "b": repr}, 3, 1, lambda run: next(clocks[run]))
    assert times == {"a": (2, 1), "b": (4, 3)}


def test_why_a_candidate_does_not_run():
    def fail():
        raise RuntimeError("no compiler | none\nand a traceback of it")

    def flex():
        raise RuntimeError("Here: FlexAttention does not support this. And more.")

    assert why_not(print) is None
    assert why_not(flex) == "FlexAttention does not support this"
    runs, reasons = runs_and_reasons({"good": print, "bad": fail})
    assert runs == {"good": print} and reasons == {"bad": "no compiler / none"}


def test_rates_are_amounts_over_times(monkeypatch):
    seconds = {"copy": 0.5, "torch.mm": 0.25, "oneDNN's 1x1 convolution": 0.125, "mine": 1.0}

    def timed(candidates, rounds, clock):
        return {name: (seconds[name], 1.0) for name in candidates}

    monkeypatch.setattr(rates, "time_in_turn", timed)
    times, found = rates.time_with_rates({"mine": print}, 1, copied=1000, product=(2, 3, 4))
    assert times == {"mine": (1.0, 1.0)}
    assert found.copy == 4 * 2 * 1000 / 0.5
    assert found.products["torch.mm"] == 4 * 48 / 0.25
    assert found.gemm == max(found.products.values())
    assert "torch.mm" in found.describe()


def test_the_libraries_compute_one_product():
    results = [run() for run in rates._products(6, 16, 8).values()]
    for result in results:
        pixels = result if result.dim() == 2 else result.permute(0, 2, 3, 1).reshape(6, 8)
        torch.testing.assert_close(pixels, results[0])


def test_a_table():
    lines = table("a title", ("", "value"), [("row", against("1.5", "at least 1"))], "a note")
    assert "\n".join(lines) == (
        "### a title\n\n|  | value |\n| --- | --- |\n| row | 1.5 (at least 1) |\n\na note\n"
    )
    assert against("1.5", None) == "1.5"


def test_the_machine_is_described():
    line = describe_machine()
    assert f"{torch.get_num_threads()} threads, torch {torch.__version__}" in line
    assert torch.backends.cpu.get_cpu_capability() in line
    assert "attention: " in line


@pytest.fixture
def run_tool(monkeypatch):
    found = rates.Rates(1e9, {"torch.mm": 1e9})
    monkeypatch.setattr(rates, "measure_rates", lambda target: found)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # to have it restored: --threads sets it
    for name in CASES:

        def benchmark(name=name, rounds=0, target=None):
            yield f"{name}, {rounds}, {target and target.device}"
            yield ""

        monkeypatch.setitem(CASES, name, benchmark)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
        try:
            runpy.run_path(str(TOOL), run_name="__main__")
        except SystemExit as end:
            return end.code
        return 0

    return run


@pytest.mark.parametrize("what", [*CASES, "all"])
def test_the_tool(what, run_tool, capsys):
    threads = str(torch.get_num_threads())
    assert run_tool(what, "--rounds", "3", "--threads", threads) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Machine: {describe_machine()}"
    assert lines[1].startswith("Rates: copies 1.0 GB/s, torch.mm 1 GFLOP/s")
    expected = []
    for name in CASES if what == "all" else [what]:
        expected += [f"{name}, 3, {'cpu' if name in ON_GPU else None}", ""]
    assert lines[3:] == expected


@pytest.mark.parametrize("what", [*ON_GPU, "all"])
def test_the_tool_on_a_gpu(what, run_tool, capsys, gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert run_tool(what, "--device", "cuda", "--dtype", "float16") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Machine: Made-up GPU, 3 multiprocessors, 8 GiB, compute capab")
    assert "float16; attention: " in lines[0]
    assert lines[3::2] == [f"{name}, 0, cuda" for name in (ON_GPU if what == "all" else [what])]


@pytest.mark.parametrize("arguments", [["nothing"], ["ops", "--rounds", "0"], ["ops", "--threads"]])
def test_bad_command_lines(arguments, run_tool, capsys):
    assert run_tool(*arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("benchmark.py: error: argument")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ops", "--device", "cuda"], "There is no CUDA device here"),
        (["loading", "--device", "cuda"], "loading is not measured on a GPU: take one of ops, "),
        (["ops", "--dtype", "bfloat16"], "--dtype bfloat16 goes with --device cuda"),
    ],
)
def test_what_cannot_be_measured(arguments, sentence, run_tool, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_tool(*arguments).startswith(sentence)


def test_every_case_is_there():
    for name in CASES:
        module = importlib.import_module(f"iwin_d2.benchmark.{name}")
        parameters = inspect.signature(getattr(module, f"benchmark_{name}")).parameters
        assert "rounds" in parameters and ("target" in parameters) == (name in ON_GPU)
