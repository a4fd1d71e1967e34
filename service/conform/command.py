"""The command `tiphys conform`."""

import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.console import Console

from tiphys.service.errors import BadInputError

if TYPE_CHECKING:
    from tiphys.service.conform.worlds import World

TEST = "TIPHYS_TEST_KUBECONFIG"
"""Names a kubeconfig, for `--test-cluster` alone."""


def conform(
    action: Annotated[Optional[str], typer.Argument(help="One action; without it, all.")] = None,
    report: Annotated[
        Optional[Path], typer.Option(help="A folder for conform.json, conform.html and README.md.")
    ] = None,
    kubeconfig: Annotated[
        Optional[Path],
        typer.Option(help="An administrator's, of a real cluster with Argo; else a simulated one."),
    ] = None,
    test_cluster: Annotated[
        bool, typer.Option("--test-cluster", help=f"On the cluster that {TEST} names.")
    ] = False,
    image: Annotated[str, typer.Option(help="The step image, as that cluster pulls it.")] = "",
    host: Annotated[
        str, typer.Option(help="This machine's address for its pods; without it none is killed.")
    ] = "",
) -> None:
    """Prove that actions do what they declare, once, and put it back."""
    from tiphys.service.conform import kit  # slow to import, and every command would wait

    named = _named(kubeconfig, test_cluster)
    if named and not image:
        raise BadInputError("a real cluster needs --image, the step image as it pulls it")
    trials = kit.chosen(action)
    console = Console(highlight=False, markup=False)

    def heard(found: kit.Finding) -> None:
        mark = "proven" if found.proven else f"NOT PROVEN: {found.why}"
        console.print(f"{found.action}: {found.property}: {mark} ({found.seconds:.1f} s)")

    with _world(named, image, host) as world:
        made = kit.prove(world, trials, kit.name_of(world), heard)
    failed = [one for one in made.findings if not one.proven]
    console.print(kit.table(made))
    console.print(f"{len(made.findings) - len(failed)} of {len(made.findings)} proven")
    if report:
        for path in kit.write(made, report):
            sys.stdout.write(f"{path}\n")
    raise typer.Exit(0 if made.proven else 1)


def _named(kubeconfig: Path | None, test_cluster: bool) -> Path | None:
    """Give the kubeconfig that was named; a plain KUBECONFIG is never looked at."""
    if not test_cluster:
        return kubeconfig
    named = os.environ.get(TEST)
    if not named:
        raise BadInputError(f"{TEST} names no kubeconfig")
    return Path(named)


@contextmanager
def _world(kubeconfig: Path | None, image: str, host: str) -> "Generator[World]":
    from tiphys.service.conform.live import LiveWorld
    from tiphys.service.conform.simulated import SandboxWorld
    from tiphys.service.conform.worlds import closing

    with tempfile.TemporaryDirectory(prefix="tiphys-conform-") as name:
        folder = Path(name)
        if kubeconfig is None:
            made: World = SandboxWorld(folder)
        else:
            made = LiveWorld(folder, kubeconfig, image, host)
        with closing(made) as world:
            yield world
