"""Registers Iwin's classifiers with timm as soon as a program has imported both, in either order.

Neither imports the other: what `import iwin_d2` does not need, timm, it does not load.
"""

import importlib
import importlib.abc
import importlib.machinery
import logging
import sys

__all__ = ["register_when_imported"]

logger = logging.getLogger(__name__)

_TIMM, _MODELS = "timm", "iwin_d2.timm_models"


def register_when_imported() -> None:
    """Register now if timm is here already, else right after its import."""
    if _TIMM in sys.modules:
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register() -> None:
    try:
        importlib.import_module(_MODELS)
    except Exception as error:  # nobody who imports timm has to have Iwin for it
        logger.warning("Iwin's models are not registered with timm: %s", error)


class _Finder(importlib.abc.MetaPathFinder):
    """Has timm loaded as it would be, and then the models registered."""

    def find_spec(self, name: str, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if name != _TIMM:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, finder: _Finder):
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str):
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec):
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:
        # From here on the module has its own loader, as if nobody had been there.
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        _register()
