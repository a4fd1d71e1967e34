"""What the user sees: one line per step with its time, and one sentence when something is wrong."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

STARTED = time.monotonic()


class Trouble(Exception):
    """The test cluster cannot go on; the message says why and what to do."""


def say(text: str) -> None:
    """Print one line with the seconds since the command began."""
    print(f"{time.monotonic() - STARTED:7.1f} s  {text}", flush=True)


@contextmanager
def step(text: str) -> Generator[None]:
    """Name what is being done and say afterwards how long it took."""
    begun = time.monotonic()
    yield
    say(f"{text} ({time.monotonic() - begun:.1f} s)")


def complain(text: str) -> None:
    """Print to standard error."""
    print(text, file=sys.stderr, flush=True)
