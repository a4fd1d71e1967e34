"""The commands about playbooks: lint them, print their schema, run them on recorded evidence."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.text import Text

from tiphys.service.commands import AsJson, console, show_json
from tiphys.service.errors import BadInputError
from tiphys.service.telling import plain

if TYPE_CHECKING:  # slow to import, and every command would wait
    from tiphys.agents.playbook_cases import Result

playbook_app = typer.Typer(
    help="Lint playbooks, and run them on recorded evidence.", no_args_is_help=True
)
Folder = Annotated[
    Optional[Path],
    typer.Option("--playbooks", help="A folder of playbooks; default: TIPHYS_PLAYBOOKS."),
]


@playbook_app.command("lint")
def lint_playbooks(
    paths: Annotated[
        Optional[list[Path]], typer.Argument(help="Files or folders; default: the built-in ones.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with playbooks: file, line, key, what was expected; 1 when anything is."""
    from tiphys.agents.playbook_lint import Level, lint
    from tiphys.agents.playbooks import BUILT_IN

    found = lint(paths or [BUILT_IN])
    if as_json:
        show_json([vars(finding) for finding in found])
    else:
        for finding in found:
            console.print(Text(plain(str(finding), 2000)), soft_wrap=True)
        errors = sum(finding.level is Level.ERROR for finding in found)
        console.print(f"{errors} errors, {len(found) - errors} warnings")
    if any(strict or finding.level is Level.ERROR for finding in found):
        raise typer.Exit(1)


@playbook_app.command("schema")
def print_schema(
    cases: Annotated[bool, typer.Option("--cases", help="Of files of cases instead.")] = False,
) -> None:
    """Print the JSON Schema of a playbook."""
    from tiphys.agents.playbook_cases import CasesFile
    from tiphys.agents.playbook_file import Playbook

    kind: Any = CasesFile if cases else Playbook
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    show_json(dialect | kind.model_json_schema())


@playbook_app.command("test")
def run_cases(files: list[Path], playbooks: Folder = None, as_json: AsJson = False) -> None:
    """Run playbooks on recorded evidence; 1 when a case fails, 2 when a file cannot be read."""
    from tiphys.agents.playbook_cases import CasesInvalidError, CasesReader, run
    from tiphys.service.reasoning import read_playbooks
    from tiphys.service.settings import Settings

    books = read_playbooks(playbooks or Settings().playbooks)
    failed, told = 0, list[Any]()
    for file in files:
        try:
            results = [run(case, books) for case in CasesReader(file).read()]
        except CasesInvalidError as error:
            raise BadInputError(str(error)) from error
        failed += sum(not result.passed for result in results)
        if as_json:
            told += [{"file": str(file), "passed": one.passed, **vars(one)} for one in results]
            continue
        for result in results:
            _show(result)
        count = sum(not one.passed for one in results)
        console.print(f"{file}: {len(results)} cases, {count} failed", soft_wrap=True)
    if as_json:
        show_json(told)
    if failed:
        raise typer.Exit(1)


def _show(result: "Result") -> None:
    mark = ("passed", "green") if result.passed else ("failed", "bold red")
    by = f"answer {result.number}" if result.number else "no answer"
    chosen = result.answer.value
    if result.action:
        given = ", ".join(f"{name}: {value}" for name, value in result.parameters.items())
        chosen += f" {result.action} on the {result.target}" + (f" ({given})" if given else "")
    console.print(
        Text.assemble(mark, f" {result.name}: {chosen}, {by} of {result.playbook}"), soft_wrap=True
    )
    console.print(Text(f"       {plain(result.reason, 2000)}"), soft_wrap=True)
    for fault in result.faults:
        console.print(Text(f"       expected otherwise: {plain(fault, 2000)}"), soft_wrap=True)
