"""The command `tiphys conform`."""

import sys
import tempfile
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console


def conform(
    action: Annotated[Optional[str], typer.Argument(help="One action; without it, all.")] = None,
    report: Annotated[
        Optional[Path], typer.Option(help="A folder for conform.json and conform.html.")
    ] = None,
) -> None:
    """Prove on a simulated cluster that actions do what they declare, once, and put it back."""
    from tiphys.service.conform import kit  # slow to import, and every command would wait
    from tiphys.service.conform.simulated import SandboxWorld
    from tiphys.service.conform.worlds import closing

    trials = kit.chosen(action)
    console = Console(highlight=False, markup=False)

    def heard(found: kit.Finding) -> None:
        mark = "proven" if found.proven else f"NOT PROVEN: {found.why}"
        console.print(f"{found.action}: {found.property}: {mark} ({found.seconds:.1f} s)")

    with (
        tempfile.TemporaryDirectory(prefix="tiphys-conform-") as folder,
        closing(SandboxWorld(Path(folder))) as world,
    ):
        made = kit.prove(world, trials, "simulated", heard)
    failed = [one for one in made.findings if not one.proven]
    console.print(f"{len(made.findings) - len(failed)} of {len(made.findings)} proven")
    if report:
        for path in kit.write(made, report):
            sys.stdout.write(f"{path}\n")
    raise typer.Exit(0 if made.proven else 1)
