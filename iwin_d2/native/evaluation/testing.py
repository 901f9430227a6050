"""Results in the forms that logs want."""

import logging
from collections.abc import Mapping

__all__ = ["flatten_results_dict", "print_csv_format"]

logger = logging.getLogger(__name__)


def print_csv_format(results: Mapping) -> None:
    """Log main results so that they can be copied into a spreadsheet; per-class ones are not.

    Args:
        results: {"bbox": {"AP": .., "AP50": .., "AP-class": ..}, "segm": {..}}.
    """
    assert isinstance(results, Mapping) or not results, results
    for task, values in results.items():
        if isinstance(values, Mapping):
            main = {name: value for name, value in values.items() if "-" not in name}
            logger.info("copypaste: Task: %s", task)
            logger.info("copypaste: %s", ",".join(main))
            logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in main.values()))
        else:
            logger.info("copypaste: %s=%s", task, values)


def flatten_results_dict(results: Mapping) -> dict:
    """Turn {"bbox": {"AP": 1}} into {"bbox/AP": 1}, at any depth."""
    flat = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            for name, inner in flatten_results_dict(value).items():
                flat[f"{key}/{name}"] = inner
        else:
            flat[key] = value
    return flat
