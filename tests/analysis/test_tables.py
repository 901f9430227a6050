"""Analyses as text."""

from iwin_d2.analysis import Analysis, ModuleCount, comparison_table, module_table

FOUND = Analysis(
    modules=(
        ModuleCount("", "Detector", 49_732_752, 267_536_330_752, 448_997_404),
        ModuleCount("backbone", "FPN", 32_188_832, 149_630_426_112, 377_030_144),
        ModuleCount("backbone.bottom_up", "Iwin", 29_458_848, 96_546_266_112, 333_510_144),
        ModuleCount("backbone.bottom_up.act", "GELU", 0, 0, 0),
    ),
    attention=3_105_242_112,
    elementwise=394_000_000,
    image_size=(800, 1280),
    proposals=1000,
    detections=100,
)


def test_modules_one_below_the_other():
    lines = module_table(FOUND, depth=3).splitlines()
    assert lines[0].split() == [
        "module",
        "class",
        "parameters",
        "G",
        "multiply-adds",
        "M",
        "activations",
    ]
    assert [line.split() for line in lines[2:5]] == [
        ["(all)", "Detector", "49,732,752", "267.54", "449.0"],
        ["backbone", "FPN", "32,188,832", "149.63", "377.0"],
        ["bottom_up", "Iwin", "29,458,848", "96.55", "333.5"],
    ]
    assert [len(line) - len(line.lstrip()) for line in lines[2:5]] == [0, 2, 4]
    assert len({len(line) for line in lines[:5]}) == 1  # columns stand below each other
    notes = " ".join(lines[5:])
    assert "800 x 1280 pixels (height x width), 1,000 proposals and 100 detections" in notes
    assert "products: 3.11 G" in notes and "adds: 0.39 G here." in notes


def test_a_depth_cuts_and_no_limits_are_no_sentence():
    plain = Analysis(FOUND.modules, 0, 0, (64, 64), None, None)
    lines = module_table(plain, depth=1).splitlines()
    assert "bottom_up" not in " ".join(lines)
    assert "One image of 64 x 64 pixels (height x width)." in lines


def test_models_side_by_side_in_markdown():
    lines = comparison_table({"a/b": FOUND, "c": FOUND}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:4] == ["model", "parameters", "G multiply-adds", "M activations"]
    assert [row[0] for row in cells[2:]] == ["`a/b`", "`c`"]
    assert cells[2][1:] == ["49,732,752", "267.54", "449.0", "3.11", "0.39"]
