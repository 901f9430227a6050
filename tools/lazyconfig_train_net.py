#!/usr/bin/env python3
"""Train or evaluate a detector from a lazy config.

    tools/lazyconfig_train_net.py --config-file FILE [--resume] [--eval-only] [key=value ...]

Bad input ends in one sentence and exit status 1; IWIN_D2_TRACEBACK=1 shows where it came from.
"""

import sys
from datetime import timedelta

from iwin_d2.d2.engine import default_argument_parser
from iwin_d2.engine.cli import run_tool
from iwin_d2.engine.detection import run_detection
from iwin_d2.engine.launch import add_launch_arguments, launch


def main(argv: list[str] | None = None) -> dict:
    """Run the tool; return the last evaluation's results.

    Raises:
        UserError: for everything that the person can put right.
    """
    parser = default_argument_parser(epilog=__doc__)
    add_launch_arguments(parser)
    args = parser.parse_args(argv)
    return launch(
        run_detection,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
        timeout=timedelta(seconds=args.dist_timeout),
        backend=args.dist_backend,
    )


if __name__ == "__main__":
    sys.exit(run_tool(main))
