"""Which framework and operators the suite runs on is the first thing to know about its result."""

import pytest

from iwin_d2.d2 import describe_framework
from iwin_d2.ops import extension


def pytest_report_header():
    return [describe_framework(), extension.describe_extension()]


@pytest.hookimpl(trylast=True)  # below the list of durations
def pytest_terminal_summary(terminalreporter):
    # Again at the end: with -q, as pyproject.toml sets it, there is no header.
    if terminalreporter.verbosity < 0:
        for line in pytest_report_header():
            terminalreporter.write_line(line)
