"""Analyses as tables."""

from collections.abc import Mapping

from tabulate import tabulate

from .counting import Analysis

__all__ = ["comparison_table", "module_table"]

_INDENT = 2
_COLUMNS = ("parameters", "G multiply-adds", "M activations")


def module_table(analysis: Analysis, depth: int) -> str:
    """The modules of a model down to a depth, with what lies between them, and what was counted."""
    rows = [
        (f"{' ' * _INDENT * m.depth}{m.name.rpartition('.')[2] or '(all)'}", m.kind, *_cells(m))
        for m in analysis.down_to(depth)
    ]
    # Not tabulate's own strip, which would take the indentation.
    table = tabulate(
        rows,
        headers=("module", "class", *_COLUMNS),
        colalign=("left", "left", "right", "right", "right"),
        disable_numparse=True,
        preserve_whitespace=True,
    )
    return f"{table}\n\n{_notes(analysis)}"


def comparison_table(analyses: Mapping[str, Analysis]) -> str:
    """Models by name, one row each, in Markdown."""
    rows = [
        (
            f"`{name}`",
            *_cells(analysis.total),
            _giga(analysis.attention),
            _giga(analysis.elementwise),
        )
        for name, analysis in analyses.items()
    ]
    header = ("model", *_COLUMNS, "of attention (G)", "elementwise beside (G)")
    return tabulate(rows, headers=header, tablefmt="pipe", disable_numparse=True)


def _cells(module) -> tuple[str, str, str]:
    return (
        f"{module.parameters:,}",
        _giga(module.multiply_adds),
        f"{module.activations / 1e6:.1f}",
    )


def _giga(count: int) -> str:
    return f"{count / 1e9:.2f}"


def _notes(analysis: Analysis) -> str:
    height, width = analysis.image_size
    boxes = [
        f"{count:,} {what}"
        for count, what in ((analysis.proposals, "proposals"), (analysis.detections, "detections"))
        if count is not None
    ]
    taken = f", {' and '.join(boxes)} (the config's limits)" if boxes else ""
    one = "One image" if analysis.frames is None else f"One clip of {analysis.frames} frames"
    return (
        f"{one} of {height} x {width} pixels (height x width){taken}.\n"
        "A multiply-add is what papers call a FLOP. Counted are convolutions, matrix products and "
        f"attentions\n(of their own products: {_giga(analysis.attention)} G); activations are the "
        "elements of their results. Not counted are biases of\nconvolutions, norms and ReLU, "
        f"which MMDetection's counter adds: {_giga(analysis.elementwise)} G here."
    )
