"""Dependencies point one way, and there is one door to Detectron2."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("iwin_d2", "configs", "projects", "tools")
# Shows what the backbone is like in somebody else's project, which knows Detectron2 alone.
EXAMPLE = ROOT / "projects" / "backbone_in_detectron2"
FILES = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if EXAMPLE not in path.parents
)

# What each part of the package may import of the package, itself and the leaves aside.
LEAVES = {"errors", "files", "environment", "config_overrides", "lettering"}
ALLOWED = {
    "ops": set(),
    "modeling": {"ops", "d2"},
    "checkpoint": {"d2"},
    "data": {"d2", "modeling"},
    "engine": {"d2", "data", "checkpoint", "modeling", "ops"},
    "visualize": {"d2", "data", "checkpoint", "modeling", "ops", "engine"},
    "analysis": {"d2", "engine", "ops"},
    "model_zoo": {"d2", "checkpoint", "engine"},
    "native": set(),
    "d2": {"native"},
}


def imported_modules(path):
    """All modules that a file imports, by absolute name."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *([node.module] if node.module else [])))
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part(module):
    """The part of the package that a module belongs to: iwin_d2.ops.reference -> ops."""
    names = module.split(".")
    return names[1] if names[0] == "iwin_d2" and len(names) > 1 else None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path):
    modules = set(imported_modules(path))
    inside = path.relative_to(ROOT).parts
    here = inside[1] if inside[0] == "iwin_d2" and len(inside) > 2 else None
    if here != "d2":
        assert not [m for m in modules if m.split(".")[0] == "detectron2"]
    if here not in ("d2", "native"):
        assert not [m for m in modules if part(m) == "native"]
    if here in ALLOWED:
        folders = {p.name for p in (ROOT / "iwin_d2").iterdir() if p.is_dir()}
        used = {part(m) for m in modules} & folders
        assert used <= ALLOWED[here] | {here}
        assert {part(m) for m in modules} - folders <= LEAVES | {None, "__version__"}


def test_the_operators_import_torch_alone():
    for path in (ROOT / "iwin_d2/ops").glob("*.py"):
        roots = {module.split(".")[0] for module in imported_modules(path)}
        assert roots - sys.stdlib_module_names <= {"iwin_d2", "torch"}, path
