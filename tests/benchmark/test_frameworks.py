"""Two frameworks taking turns: the order, and what is made of the times."""

from iwin_d2.benchmark.frameworks import describe_ratios, take_turns


def test_each_goes_first_every_other_round():
    calls = []

    def candidate(name):
        def run():
            calls.append(name)
            return float(len(calls)), 0.0

        return run

    results = take_turns({name: candidate(name) for name in "ab"}, rounds=3, warmup=1)
    assert "".join(calls) == "abbaabba"
    assert [seconds for seconds, _ in results["a"]] == [4.0, 5.0, 8.0]
    assert [seconds for seconds, _ in results["b"]] == [3.0, 6.0, 7.0]


def test_ratios_are_of_the_same_round():
    base = [1.0, 2.0, 4.0, 1.0, 2.0]
    assert describe_ratios([2.0 * t for t in base], base) == "2.000 (2.000 to 2.000)"
    assert describe_ratios([0.5, 2.0, 8.0, 1.5, 4.0], base) == "1.500 (0.750 to 2.000)"
