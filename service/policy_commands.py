"""The commands about policies: read one, test one, explain what one said, compare two."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from tiphys.service.commands import AsJson, console, show_json
from tiphys.service.telling import plain

if TYPE_CHECKING:  # slow to import, and every command would wait
    from tiphys.policies.policy_cases import CaseResult

policy_app = typer.Typer(help="Check, test, explain and compare policies.", no_args_is_help=True)


@policy_app.command("check")
def check_policy(file: Path) -> None:
    """Read a policy and say what is wrong with it: file, line, key, what was expected."""
    from tiphys.service.policy_file import read_policy

    policy = read_policy(file)
    console.print(f"{file}: good; {policy.identity}")


@policy_app.command("test")
def run_tests(file: Path, as_json: AsJson = False) -> None:
    """Run the tests that a policy carries; 1 when one fails, 2 when it cannot be read."""
    from tiphys.service.policy_file import read_untested

    results = read_untested(file).results()
    if as_json:
        show_json([_result(result) for result in results])
    else:
        for result in results:
            console.print(Text.assemble(_mark(result), f" {result.name}"))
            for fault in result.faults:
                console.print(Text(f"       {plain(fault, 2000)}"))
        failed = sum(not result.passed for result in results)
        said = f"{len(results)} tests, {failed} failed" if results else "it carries no tests"
        console.print(f"{file}: {said}")
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _mark(result: "CaseResult") -> tuple[str, str]:
    return ("passed", "green") if result.passed else ("failed", "bold red")


def _result(result: "CaseResult") -> dict[str, Any]:
    from tiphys.policies.policy_cases import answer_of

    return {
        "name": result.name,
        "passed": result.passed,
        "answer": answer_of(result.judgement),
        "faults": list(result.faults),
        "judgement": result.judgement.model_dump(mode="json"),
    }
