"""Iwin transformers (interleaved window attention) for Detectron2 and plain PyTorch."""

from typing import TYPE_CHECKING

from .timm_registration import register_when_imported

if TYPE_CHECKING:
    from .engine.classifier_predictor import ClassifierPredictor
    from .engine.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["ClassifierPredictor", "Predictor", "__version__"]


def __getattr__(name: str):
    # Not before it is asked for: `import iwin_d2` loads neither PyTorch nor a framework.
    if name == "Predictor":
        from .engine.predictor import Predictor

        return Predictor
    if name == "ClassifierPredictor":
        from .engine.classifier_predictor import ClassifierPredictor

        return ClassifierPredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_when_imported()
