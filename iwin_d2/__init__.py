"""Iwin transformers (interleaved window attention) for Detectron2 and plain PyTorch."""

__version__ = "0.1.0"
