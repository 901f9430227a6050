"""The environment report of `python -m iwin_d2`: what a bug report needs."""

import importlib.metadata
import os
import platform
import shutil
import sys

__all__ = ["collect_environment"]

_PACKAGES = (
    "torch",
    "torchvision",
    "detectron2",
    "fvcore",
    "iopath",
    "omegaconf",
    "pycocotools",
    "numpy",
    "pillow",
    "tensorboard",
    "av",
    "timm",
    "onnx",
    "setuptools",
    "ninja",
)
_VARIABLES = (
    "IWIN_D2_FRAMEWORK",
    "IWIN_D2_ATTENTION",
    "IWIN_D2_EXTENSION",
    "IWIN_D2_BUILD",
    "DETECTRON2_DATASETS",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "ATEN_CPU_CAPABILITY",
)


def collect_environment() -> str:
    """Return the report as a table, one line a fact."""
    rows = [
        ("iwin_d2", f"{_version('iwin_d2')} at {os.path.dirname(os.path.abspath(__file__))}"),
        ("Python", f"{platform.python_version()} at {sys.executable}"),
        ("platform", platform.platform()),
        *[(name, _version(name)) for name in _PACKAGES],
        ("framework", _framework()),
        *_operators(),
        *_devices(),
        ("compilers", _compilers()),
        *[(name, os.environ.get(name, "not set")) for name in _VARIABLES],
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _framework() -> str:
    # A broken installation is what a report is often wanted for: it must not end the report.
    try:
        from .d2.framework import describe_framework

        return describe_framework().removeprefix("framework: ")
    except Exception as error:
        return f"cannot be used: {error}"


def _operators() -> list[tuple[str, str]]:
    try:
        from .ops import describe_backends, extension
    except Exception as error:
        return [("operators", f"cannot be imported: {error}")]
    rows = [("operators", extension.describe_extension().removeprefix("operators: "))]
    if extension.loaded():
        rows.append(("extension", extension.file_path()))
    return rows + [(f"operator {name}", text) for name, text in describe_backends().items()]


def _devices() -> list[tuple[str, str]]:
    try:
        import torch
    except Exception as error:
        return [("devices", f"torch cannot be imported: {error}")]
    cpu = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, "
    cpu += torch.backends.cpu.get_cpu_capability()
    rows = [("CPU", cpu)]
    if not torch.cuda.is_available():
        return [*rows, ("CUDA", f"not available (torch is built for CUDA {torch.version.cuda})")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        rows.append(
            (
                f"CUDA device {index}",
                f"{properties.name}, sm_{properties.major}{properties.minor}, "
                f"{properties.total_memory / 2**30:.0f} GiB",
            )
        )
    return rows


def _compilers() -> str:
    found = {name: shutil.which(name) for name in ("c++", "nvcc", "ninja")}
    return ", ".join(f"{name} {path or 'not found'}" for name, path in found.items())
