"""Command line: `python -m tools.cluster up|down|status|build|image`."""

import argparse
import fcntl
import sys
from collections.abc import Generator
from contextlib import contextmanager

from tools.cluster import builds
from tools.cluster.down import take_down
from tools.cluster.paths import Cache
from tools.cluster.report import Trouble, complain, say
from tools.cluster.up import up


@contextmanager
def alone(cache: Cache) -> Generator[None]:
    """Hold the cache's lock: two runs at once would undo each other's work."""
    cache.root.mkdir(parents=True, exist_ok=True)
    with (cache.root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run of this tool is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Run one command; 1 with a sentence when it cannot."""
    parser = argparse.ArgumentParser(prog="python -m tools.cluster", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "build"))
    parser.add_argument("names", nargs="*")
    chosen = parser.parse_args()
    cache = Cache.default()
    try:
        with alone(cache):
            if chosen.command == "up":
                up(cache)
            elif chosen.command == "down":
                say("stopped and removed" if take_down(cache) else "nothing was running")
            else:
                for name, path in builds.ensure(cache, chosen.names or builds.PROGRAMS).items():
                    print(f"{name}\t{path}")
    except Trouble as trouble:
        complain(f"cluster: {trouble}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
