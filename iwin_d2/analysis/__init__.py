"""What a detector or segmenter holds and does: parameters, multiply-adds, activations."""

from .counting import Analysis, ModuleCount, analyze, analyze_classifier
from .tables import comparison_table, module_table

__all__ = [
    "Analysis",
    "ModuleCount",
    "analyze",
    "analyze_classifier",
    "comparison_table",
    "module_table",
]
