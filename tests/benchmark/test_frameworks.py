"""Two frameworks taking turns: what is made of the times."""

from iwin_d2.benchmark.frameworks import describe_ratios


def test_ratios_are_of_the_same_round():
    base = [1.0, 2.0, 4.0, 1.0, 2.0]
    assert describe_ratios([2.0 * t for t in base], base) == "2.000 (2.000 to 2.000)"
    assert describe_ratios([0.5, 2.0, 8.0, 1.5, 4.0], base) == "1.500 (0.750 to 2.000)"
