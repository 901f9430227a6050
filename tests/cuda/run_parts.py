#!/usr/bin/env python3
"""make test-cuda: build the operators for CUDA, test them on a GPU, measure; within eight minutes.

Each part has a limit of its own: one that hangs does not lose the others. OUT names the folder for
what is found (build/test-cuda by default): summary.md with the outcome of each part and the tables,
log.txt with all output. Needs PyTorch, pytest and hypothesis, a CUDA toolkit and GCC, and nothing
from a package registry.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "cuda"
SECONDS = 8 * 60 - 10  # for everything
LOG_SIZE = 400_000  # characters of a part's output that are kept
PASSED, FAILED, SKIPPED = "passed", "FAILED", "skipped"
# Lines of tools/benchmark.py: not the warnings of libraries that come between.
_OF_A_TABLE = re.compile(r"$|#|\||Machine: |Rates: |In the same |Means of |Ours: ")


@dataclass(frozen=True)
class Outcome:
    """What became of a part, and why in a few words."""

    state: str
    reason: str


@dataclass(frozen=True, eq=False)
class Part:
    """A program, how long it may take, and how to read what it says."""

    name: str
    command: Sequence[str]
    limit: float
    judge: Callable[[int, str], Outcome]
    environ: dict[str, str] = field(default_factory=dict)
    skip: str | None = None  # why it is not run at all


def judge_tests(status: int, log: str) -> Outcome:
    """Read what pytest says at its end: 5 passed, 2 skipped in 0.12s."""
    found = re.findall(r"^=* ?(\d+ (?:passed|failed|skipped|error|deselected).*) in ", log, re.M)
    counts = found[-1] if found else f"exit status {status}"
    return Outcome(PASSED if status == 0 and "passed" in counts else FAILED, counts)


def judge_sanitizer(status: int, log: str) -> Outcome:
    """Read what compute-sanitizer says at its end: ERROR SUMMARY: 0 errors."""
    summary = re.search(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", log)
    cases = re.search(r"\d+ calls, .*", log)
    if "Device not supported" in log:
        return Outcome(SKIPPED, "compute-sanitizer does not support this device")
    said = "; ".join(found.group().strip() for found in (summary, cases) if found)
    fine = status == 0 and summary is not None and cases is not None and summary[1][:2] == "0 "
    return Outcome(PASSED if fine else FAILED, said or f"exit status {status}")


def judge_program(status: int, log: str) -> Outcome:
    """Take the exit status; of a failure, the last line."""
    if status == 0:
        return Outcome(PASSED, "")
    lines = [line for line in log.splitlines() if line.strip()] or ["no output"]
    return Outcome(FAILED, lines[-1].strip()[:160])


def pytest_part(name: str, limit: float, *arguments: str) -> Part:
    """A part that runs tests."""
    options = ["-p", "no:cacheprovider", "--maxfail=25", "-rs", "-o", "faulthandler_timeout=60"]
    return Part(name, [sys.executable, "-m", "pytest", *options, *arguments], limit, judge_tests)


def sanitizer_parts(limit: float) -> list[Part]:
    """A part for each tool of compute-sanitizer, where that is installed."""
    folders = [os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    program = shutil.which("compute-sanitizer", path=os.pathsep.join(folders))
    return [_sanitizer_part(program, tool, limit) for tool in _TOOLS]


_TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")


def _sanitizer_part(program: str | None, tool: str, limit: float) -> Part:
    command = [sys.executable, str(HERE / "sanitizer_cases.py")]
    if program is None:
        return Part(tool, [], 0, judge_sanitizer, skip="compute-sanitizer is not installed")
    options = ["--tool", tool, "--error-exitcode", "9", *_kernel_filter(program)]
    # Each tensor in an allocation of its own.
    environ = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    return Part(tool, [program, *options, *command], limit, judge_sanitizer, environ)


def _kernel_filter(program: str) -> list[str]:
    """What keeps the sanitizer to kernels of this project: PyTorch's own would take too long."""
    help_text = subprocess.run([program, "--help"], capture_output=True, text=True).stdout
    option = next((o for o in ("--kernel-regex", "--kernel-name") if o in help_text), None)
    return [] if option is None else [option, "kns=iwin_d2"]


def benchmark_part(name: str, limit: float) -> Part:
    """A part that prints tables."""
    command = [sys.executable, "tools/benchmark.py", name, "--device", "cuda"]
    return Part(f"benchmark {name}", command, limit, judge_program)


def stages() -> list[list[Part]]:
    """All parts; those of a stage run at the same time, which what is measured never does."""
    build = [sys.executable, "setup.py", "build_ext", "--inplace"]
    # nvcc takes one architecture after the other unless it is told.
    environ = {"IWIN_D2_BUILD": "cuda", "NVCC_APPEND_FLAGS": "--threads 3"}
    slow = ["tests/cuda/test_compile.py", "tests/cuda/test_detectors.py"]
    return [
        [Part("build", build, 200, judge_program, environ)],
        [
            # The names of what runs on a device have the device in them.
            pytest_part("tests/ops", 150, "tests/ops", "-k", "cuda"),
            pytest_part("tests/cuda", 150, "tests/cuda", *(f"--ignore={path}" for path in slow)),
            pytest_part("tests/cuda, compiled", 150, *slow),
            *sanitizer_parts(120),
        ],
        [benchmark_part("ops", 110)],
        [benchmark_part("backbone", 150)],
        [benchmark_part("video", 60)],
        [benchmark_part("profile", 60)],
    ]


class Run:
    """Runs the parts, and keeps what they say."""

    def __init__(self, out: Path, seconds: float, title: str):
        self.out = out
        self.title = title
        self.start = time.monotonic()
        self.seconds = seconds
        self.outcomes: dict[str, tuple[Outcome, float]] = {}
        self.logs: dict[str, str] = {}

    def left(self) -> float:
        """Seconds until all must be done."""
        return self.seconds - (time.monotonic() - self.start)

    def run_stage(self, parts: list[Part]) -> None:
        """Run parts at the same time; end those that take too long."""
        running: dict[Part, Process] = {}
        try:
            for part in parts:
                if part.skip:
                    self.note(part, Outcome(SKIPPED, part.skip), 0.0)
                elif self.left() <= 0:
                    self.note(part, Outcome(FAILED, "not run: no time was left"), 0.0)
                else:
                    print(f"[{self.seconds - self.left():4.0f} s] {part.name} ...", flush=True)
                    running[part] = Process(part, self.out)
            while running:
                time.sleep(0.2)
                self._look_at(running)
        finally:
            for process in running.values():
                process.stop()

    def _look_at(self, running: dict[Part, "Process"]) -> None:
        for part, process in list(running.items()):
            outcome = process.outcome(min(part.limit, process.seconds() + self.left()))
            if outcome is not None:
                del running[part]
                self.logs[part.name] = process.log
                self.note(part, outcome, process.seconds())

    def note(self, part: Part, outcome: Outcome, seconds: float) -> None:
        """Keep an outcome, say it, and write all there is so far."""
        self.outcomes[part.name] = outcome, seconds
        reason = f": {outcome.reason}" if outcome.reason else ""
        print(
            f"[{self.seconds - self.left():4.0f} s] {part.name} {outcome.state} "
            f"in {seconds:.0f} s{reason}",
            flush=True,
        )
        self.out.joinpath("summary.md").write_text(self.summary())
        logs = [f"{'=' * 30} {name}\n{log[-LOG_SIZE:]}\n" for name, log in self.logs.items()]
        self.out.joinpath("log.txt").write_text("\n".join(logs))

    def outcome_table(self) -> str:
        """What became of each part."""
        rows = [
            f"| {name} | {outcome.state} | {seconds:.0f} | {outcome.reason.replace('|', '/')} |"
            for name, (outcome, seconds) in self.outcomes.items()
        ]
        return "\n".join(["| part | outcome | s | |", "| --- | --- | --- | --- |", *rows])

    def summary(self) -> str:
        """The outcomes, and the tables without the warnings among them; in Markdown."""
        parts = [self.title, self.outcome_table()]
        for name, log in self.logs.items():
            if name.startswith("benchmark"):
                parts.append("\n".join(filter(_OF_A_TABLE.match, log.splitlines())).strip())
        return "\n\n".join(parts) + "\n"

    def failed(self) -> list[str]:
        """The names of parts that did not pass."""
        return [name for name, (outcome, _) in self.outcomes.items() if outcome.state == FAILED]


class Process:
    """A part that runs, with everything that it starts."""

    def __init__(self, part: Part, out: Path):
        self.part = part
        self.path = out / f"{re.sub('[^a-z]+', '-', part.name)}.part"
        environ = {**os.environ, "PYTHONUNBUFFERED": "1", **part.environ}
        environ.pop("IWIN_D2_EXTENSION", None)
        environ.pop("IWIN_D2_ATTENTION", None)
        folders = [str(HERE / "placeholders"), str(ROOT), environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
        environ.setdefault("OMP_NUM_THREADS", "4")
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be ended with all it has started
            )
        self.start = time.monotonic()
        self.end: float | None = None
        self.log = ""  # once it has ended

    def seconds(self) -> float:
        """How long it has run."""
        return (self.end or time.monotonic()) - self.start

    def outcome(self, limit: float) -> Outcome | None:
        """What became of it; None while it runs. Ends it after `limit` seconds."""
        status = self.process.poll()
        if status is None and self.seconds() < limit:
            return None
        self.stop()
        self.end = time.monotonic()
        if status is None:
            lines = [line for line in self.log.splitlines() if line.strip()] or ["nothing"]
            reason = f"ended after {limit:.0f} s; its last words: {lines[-1].strip()[:120]}"
            return Outcome(FAILED, reason)
        return self.part.judge(status, self.log)

    def stop(self) -> None:
        """End whatever of it still runs; take what it has said."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                break
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                continue
        self.process.wait()
        if self.path.exists():
            self.log = self.path.read_text(errors="replace")
            self.path.unlink()


def main() -> int:
    """Run everything; return the exit status."""
    try:
        import torch
    except ImportError as error:
        return refuse(f"PyTorch cannot be imported by {sys.executable} ({error})")
    if not torch.cuda.is_available():
        return refuse("there is no CUDA device here (torch.cuda.is_available() is False)")
    out = Path(os.environ.get("OUT") or ROOT / "build" / "test-cuda").resolve()
    out.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name(0)
    run = Run(out, SECONDS, f"make test-cuda on {name}, torch {torch.__version__}")
    print(f"{run.title}; results go to {out}", flush=True)
    # An interrupt from the keyboard does not reach what has a session of its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for parts in stages():
        run.run_stage(parts)
        if "build" in run.failed():
            break
    print(f"\n{report(run)}", flush=True)
    return 1 if run.failed() else 0


def refuse(reason: str) -> int:
    """Say why nothing can be tested."""
    print(
        f"make test-cuda needs a GPU of NVIDIA's and a PyTorch that finds it, and {reason}.",
        file=sys.stderr,
    )
    return 1


def report(run: Run) -> str:
    """The last lines of what failed, then the outcomes."""
    ends = [
        f"--- the end of {name}\n" + "\n".join(run.logs.get(name, "").splitlines()[-25:])
        for name in run.failed()
    ]
    return "\n\n".join([*(text[-2000:] for text in ends), run.outcome_table()])


if __name__ == "__main__":
    sys.exit(main())
