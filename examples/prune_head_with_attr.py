"""Prunes attention heads by their attribution scores: ranks them on dev rows, then switches off more and more.

The published code's definition is the default: the sum over the first 200 dev rows of each head's largest
attribution to the gold class, by a left sum of 20. With --published the paper's: the mean, by a right sum of 20.
"""

import argparse
import sys
from typing import Any

from common.command_line import attribution_options
from common.head_pruning import run


def method(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `head_importance`."""
    rule = "riemann_right" if args.published else "riemann_left"
    return {"method": "attattr", "n_steps": args.batch_size * args.num_batch, "rule": rule, **attribution_options(args)}


if __name__ == "__main__":
    run(sys.argv[1:], "attr", __doc__, method)
