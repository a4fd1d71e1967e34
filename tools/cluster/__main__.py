"""Command line: `python -m tools.cluster up|down|status|build|image|export`."""

import argparse
import fcntl
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools.cluster import builds, images, status
from tools.cluster.dockerfiles import image
from tools.cluster.down import take_down
from tools.cluster.export import export
from tools.cluster.paths import Cache
from tools.cluster.report import Trouble, complain, say
from tools.cluster.target import KUBECONFIG, other
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


def _up(cache: Cache, given: argparse.Namespace) -> None:
    if named := other(cache):
        say(f"nothing to start: {KUBECONFIG} names {named}")
        return
    up(cache, with_project=not given.without_project)


def _down(cache: Cache, _given: argparse.Namespace) -> None:
    say("stopped and removed" if take_down(cache) else "nothing was running")


def _build(cache: Cache, given: argparse.Namespace) -> None:
    for name, path in builds.ensure(cache, given.names or builds.PROGRAMS).items():
        print(f"{name}\t{path}")


def _image(cache: Cache, given: argparse.Namespace) -> None:
    archive = image(cache, given.name, given.context, given.dockerfile, given.base)
    if images.is_answering(cache):
        images.import_one(cache, archive)
    print(archive)


def _export(cache: Cache, given: argparse.Namespace) -> None:
    export(cache, given.folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True)
    commands.add_parser("status", help="show each part; 0 when all run, 3 when none does")
    command = commands.add_parser("up", help="build what is missing and start the cluster")
    command.add_argument(
        "--without-project", action="store_true", help="leave the project's own images out"
    )
    command.set_defaults(work=_up)
    command = commands.add_parser("down", help="stop it and leave nothing but the cache")
    command.set_defaults(work=_down)
    command = commands.add_parser("build", help="build programs and print where they are")
    command.add_argument("names", nargs="*", metavar="NAME", choices=[*builds.PROGRAMS, []])
    command.set_defaults(work=_build)
    command = commands.add_parser("image", help="build an image and give it to the cluster")
    command.add_argument("name", help="as docker.io/tiphys/service:dev")
    command.add_argument("context", type=Path)
    command.add_argument("dockerfile", type=Path)
    command.add_argument("--base", type=Path, help="archive of the image that ARG BASE names")
    command.set_defaults(work=_image)
    command = commands.add_parser("export", help="write what another cluster needs for the tests")
    command.add_argument("folder", type=Path)
    command.set_defaults(work=_export)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 1 with a sentence when it cannot."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    cache = Cache.default()
    if words == ["status"]:
        return status.show(cache)
    given = _parser().parse_args(words)
    try:
        with alone(cache):
            given.work(cache, given)
    except Trouble as trouble:
        complain(f"cluster: {trouble}")
        return 1
    except KeyboardInterrupt:
        complain("cluster: interrupted; `python -m tools.cluster down` removes what was started")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
