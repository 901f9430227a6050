"""fvcore's registry, and its errors, are used as they are."""

from fvcore.common.registry import Registry

__all__ = ["Registry"]
