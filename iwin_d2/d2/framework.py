"""Which framework runs: Detectron2 where it is installed, else `iwin_d2.native`.

Chosen once, at import. The environment variable IWIN_D2_FRAMEWORK=detectron2|native overrides.
"""

import importlib.util
import os

from ..errors import ConfigError, shown_at_import

__all__ = ["FRAMEWORK", "REASON", "USE_DETECTRON2", "describe_framework", "detectron2_is_installed"]

_VARIABLE = "IWIN_D2_FRAMEWORK"


def detectron2_is_installed() -> bool:
    """Whether `import detectron2` would find the package, not just a folder of that name."""
    spec = importlib.util.find_spec("detectron2")
    return spec is not None and spec.origin is not None  # None: such as a clone of its source


def _choose() -> tuple[str, str]:
    """Return the framework's name and why it was chosen."""
    wanted = os.environ.get(_VARIABLE, "").strip().lower()
    installed = detectron2_is_installed()
    if wanted not in ("", "detectron2", "native"):
        raise shown_at_import(
            ConfigError(
                f"{_VARIABLE}={wanted!r} is not known: set it to 'detectron2' or 'native', "
                "or unset it."
            )
        )
    if wanted == "detectron2" and not installed:
        raise shown_at_import(
            ConfigError(
                f"{_VARIABLE}=detectron2, but the package detectron2 is not installed: "
                "install it or unset the variable."
            )
        )
    if wanted:
        return wanted, f"{_VARIABLE} is set"
    if installed:
        return "detectron2", "it is installed"
    return "native", "detectron2 is not installed"


FRAMEWORK, REASON = _choose()
USE_DETECTRON2 = FRAMEWORK == "detectron2"


def describe_framework() -> str:
    """One line for logs: which framework runs, its version and why."""
    if USE_DETECTRON2:
        import detectron2

        return f"framework: detectron2 {detectron2.__version__} ({REASON})"
    from .. import __version__

    return f"framework: iwin_d2.native {__version__} ({REASON})"
