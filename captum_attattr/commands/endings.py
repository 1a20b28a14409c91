"""How a program begins to work and ends: wrong arguments, errors, warnings and Ctrl-C are one line each."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

LONGEST_MESSAGE = 600
"""Characters after which a message is cut."""


class OneLineParser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, with the nearest flag, and ends with status 2."""

    def error(self, message: str) -> None:  # type: ignore[override]  # the program ends here
        """End the program."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")

    def parse_known_args(  # type: ignore[override]  # argparse has overloads
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments, all of which must be known."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            from captum_attattr.checks import nearest  # imports torch

            meant = nearest(unknown[0].split("=")[0], self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
        return found, unknown


class ShortHelp(argparse.ArgumentDefaultsHelpFormatter):
    """Help that has a default where something is given by default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False, []) else super()._get_help_string(action)


def guarded(name: str, work: Callable[[], object], flags: Mapping[str, str] | None = None) -> int:
    """Do a program's work; an error, a warning and Ctrl-C become one line on stderr, a closed pipe ends quietly.

    Args:
        name: the program's, for the lines.
        work: the work.
        flags: what arguments of the library, which its messages name, are called on the program's command line.

    Returns:
        The exit status: 0, 2 after an error, 130 after Ctrl-C, 141 after a closed pipe.
    """

    def say(message: object) -> None:
        print(f"{name}: {message}", file=sys.stderr)

    try:
        with warnings.catch_warnings(), _interruptible(name):
            warnings.showwarning = lambda message, *_: say(f"warning: {one_line(flagged(message, flags or {}))}")
            work()
            if sys.stdout is not None:  # None where it is closed
                sys.stdout.flush()
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:  # as by `| head`; nothing more can be written, not even when Python closes the stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        known = isinstance(error, ImportError | OSError | RuntimeError | TypeError | ValueError) and str(error).strip()
        say(f"error: {one_line(flagged(error if known else repr(error), flags or {}))}")
        return 2
    return 0


@contextmanager
def _interruptible(name: str) -> Iterator[None]:
    """Let Ctrl-C end the process at once where something is being imported.

    Libraries take a KeyboardInterrupt there for a failed import of their own, swallow it, or abort.
    """

    def stop(_: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code.co_filename.startswith("<frozen importlib"):
                with suppress(Exception):
                    sys.stdout.flush()
                os.write(2, f"{name}: interrupted\n".encode())  # print may have been interrupted itself
                os._exit(130)
            frame = frame.f_back
        raise KeyboardInterrupt

    try:
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # it may be ignored, as by nohup
        before = signal.signal(signal.SIGINT, stop) if usual else None
    except ValueError:  # signals are the main thread's
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def flagged(message: object, flags: Mapping[str, str]) -> str:
    """Return a message of the library with the flags of a command line in place of its arguments.

    An argument is seen at the beginning, before "=", and behind "for" and "and"; what is quoted stays.

    Example:
        >>> flagged("n_steps=0 is too small, for 'n_steps=1'", {"n_steps": "--nodes"})
        "--nodes 0 is too small, for 'n_steps=1'"
        >>> flagged("shorten it, or pass truncate=True", {"truncate": "--truncate"})
        'shorten it, or pass --truncate'
    """
    if not flags:
        return str(message)
    names = "|".join(map(re.escape, flags))
    quoted = r"(?<!\w)'[^']*'(?!\w)" + r'|"[^"]*"'
    named = rf"(?:^|(?<=for )|(?<=and ))(?P<bare>{names})\b(?![-.])(?P<is>=?)"
    given = rf"(?<![\w.-])(?P<given>{names})=(?P<switch>True\b)?"

    def flag(found: re.Match[str]) -> str:
        if found["bare"]:
            return flags[found["bare"]] + " " * bool(found["is"])
        return flags[found["given"]] + " " * (not found["switch"]) if found["given"] else found[0]

    return re.sub(f"{quoted}|{given}|{named}", flag, str(message))


def one_line(message: Any) -> str:
    """Return a message in one line, cut where it is too long."""
    line = " ".join(str(message).split())
    return line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]} ..."
