"""Prunes attention heads by Taylor expansion: ranks them on dev rows, then switches off more and more.

The published code's definition is the default: the gradient of the sum of all logits. With --published that of
Michel et al. (2019), which the paper cites: the gradient of the loss.
"""

import argparse
import sys
from typing import Any

from common.head_pruning import run


def method(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `head_importance`."""
    return {"method": "taylor" if args.published else "taylor_logits"}


if __name__ == "__main__":
    run(sys.argv[1:], "taylor", __doc__, method)
