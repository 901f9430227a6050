"""The compiled operators, `torch.ops.iwin_d2`: one file, found and loaded once.

setup.py builds the file from csrc/. Without it, or with one that does not fit, everything runs on
the plain-PyTorch reference, and `reason()` says why.
"""

import hashlib
import os
import re

import torch

__all__ = ["describe_extension", "file_path", "load", "loaded", "reason"]

_HOW = "`make build` builds it, as does installing with pip --no-build-isolation"
# csrc/build_info.cpp writes it into the file.
_MARK = re.compile(rb"iwin_d2 extension for PyTorch ([^\s,]+),")
# Of the operators' names and arguments (see `_digest_operators`): what this version calls.
_OPERATORS = "6e459b3cd396"

_tried = False
_reason = "the extension has not been looked for yet"


def file_path() -> str:
    """Return the file that is loaded: IWIN_D2_EXTENSION where it is set, else the package's own."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    given = os.environ.get("IWIN_D2_EXTENSION")
    return os.path.abspath(given) if given else os.path.join(package, "_C.abi3.so")


def load() -> None:
    """Load the operators when they are there and fit; never raises. A second call does nothing."""
    global _tried, _reason
    if not _tried:
        _tried = True
        _reason = _load(file_path())


def loaded() -> bool:
    """Return whether the compiled operators are registered in `torch.ops.iwin_d2`."""
    return _reason == ""


def reason() -> str:
    """Return why they are not, as a sentence without its full stop; "" where they are."""
    return _reason


def describe_extension() -> str:
    """Say in one line whether the compiled operators are there, of what kind, or why not."""
    if not loaded():
        return f"operators: plain PyTorch; {reason()}"
    info = torch.ops.iwin_d2.build_info().removeprefix("iwin_d2 extension ")
    return f"operators: compiled {info}; using {torch.ops.iwin_d2.cpu_capability()}"


def _load(path: str) -> str:
    # A second file would register every operator a second time, which ends the process.
    if hasattr(torch.ops.iwin_d2, "build_info"):
        return _why_not_these_operators(path)
    if not os.path.isfile(path):
        if os.environ.get("IWIN_D2_EXTENSION"):
            return f"IWIN_D2_EXTENSION names {path}, and there is no such file"
        return f"the compiled operators are not built (no {path}): {_HOW}"
    # Code that was built for another PyTorch may well load, and then crash: look first.
    try:
        with open(path, "rb") as file:
            mark = _MARK.search(file.read())
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): {_HOW}"
    if mark is None:
        return f"{path} does not hold the compiled operators: {_HOW}"
    built_for = mark[1].decode()
    if _minor(built_for) != _minor(torch.__version__):
        return f"{path} was built for PyTorch {built_for} and this is {torch.__version__}: {_HOW}"
    try:
        torch.ops.load_library(path)
    except OSError as error:
        return f"{path} cannot be loaded ({error.__cause__ or error}): {_HOW}"
    return _why_not_these_operators(path)


def _why_not_these_operators(path: str) -> str:
    if _digest_operators() == _OPERATORS:
        return ""
    return f"{path} holds the operators of another version of this package: {_HOW}"


def _digest_operators() -> str:
    """Return a digest of the names and arguments that are registered, and how much each returns."""
    names = [x for x in torch._C._dispatch_get_all_op_names() if x.startswith("iwin_d2::")]
    schemas = [torch._C._get_schema(name, "") for name in sorted(names)]
    texts = [
        f"{x.name}({', '.join(a.name for a in x.arguments)}) -> {len(x.returns)}" for x in schemas
    ]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _minor(version: str) -> list[str]:
    """The part of a version that decides: 2.11.0+cu130 -> [2, 11]."""
    return version.split(".")[:2]
