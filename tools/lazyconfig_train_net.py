#!/usr/bin/env python3
"""Train or evaluate a detector or a semantic segmenter from a lazy config.

    tools/lazyconfig_train_net.py --config-file FILE [--resume] [--eval-only] [key=value ...]

Bad input ends in one sentence and exit status 1; IWIN_D2_TRACEBACK=1 shows where it came from.
"""

import sys

from iwin_d2.engine.cli import run_tool
from iwin_d2.engine.detection import run_detection
from iwin_d2.engine.launch import launch_tool


def main(argv: list[str] | None = None) -> dict:
    """Run the tool; return the last evaluation's results.

    Raises:
        UserError: for everything that the person can put right.
    """
    return launch_tool(run_detection, argv, epilog=__doc__)


if __name__ == "__main__":
    sys.exit(run_tool(main))
