"""The commands about policies: read one, test one, explain what one said, compare two."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.text import Text

from tiphys.service.commands import (
    AsJson,
    DataDir,
    Url,
    client,
    console,
    show_json,
    why_unreadable,
    write_lines,
)
from tiphys.service.errors import BadInputError, UsageError
from tiphys.service.policy_rendering import differences, explanation, missing_approvals
from tiphys.service.telling import plain

if TYPE_CHECKING:  # slow to import, and every command would wait
    from tiphys.policies.policy_cases import CaseResult

policy_app = typer.Typer(help="Check, test, explain and compare policies.", no_args_is_help=True)


@policy_app.command("check")
def check_policy(file: Path) -> None:
    """Read a policy and say what is wrong with it: file, line, key, what was expected."""
    from tiphys.service.calendars import refuse_unreadable
    from tiphys.service.policy_file import read_policy

    policy = read_policy(file)
    refuse_unreadable(policy)
    console.print(f"{file}: good; {policy.identity}")


@policy_app.command("test")
def run_tests(file: Path, as_json: AsJson = False) -> None:
    """Run the tests that a policy carries; 1 when one fails, 2 when it cannot be read."""
    from tiphys.service.calendars import CalendarsAt
    from tiphys.service.policy_file import left_out, read_untested

    read = read_untested(file)
    around = CalendarsAt(read.policy, file.parent)
    results = read.results(around.readable)
    for sentence in left_out(read, around):
        typer.echo(plain(sentence, 2000), err=True)
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


@policy_app.command("explain")
def explain(
    incident: str, url: Url = None, data_dir: DataDir = None, as_json: AsJson = False
) -> None:
    """Show every rule with its verdict and reason, as the incident was judged last."""
    view = client(url, data_dir).get(f"/api/incidents/{incident}")
    judged = [attempt for attempt in view["attempts"] if attempt["judgement"]]
    if not judged:
        state, reason = view["incident"]["state"], plain(view["incident"]["reason"])
        raise UsageError(f"{view['incident']['id']} has not been judged: it is {state}: {reason}")
    if as_json:
        missing = missing_approvals(view, judged[-1])
        show_json({"attempt": judged[-1]["attempt"], "missing_approvals": missing}
                  | judged[-1]["judgement"])  # fmt: skip
    else:
        console.print(explanation(view, judged[-1]))


@policy_app.command("decisions")
def export_decisions(
    file: Annotated[Optional[Path], typer.Argument(help="Default: standard output.")] = None,
    url: Url = None,
    data_dir: DataDir = None,
) -> None:
    """Write every decision on record as JSON Lines, for `tiphys policy diff --from`."""
    lines = client(url, data_dir).lines("/api/decisions/export")
    if file is None:
        for line in lines:
            sys.stdout.write(line + "\n")
        return
    count = write_lines(file, lines)
    console.print(f"{count} decisions in {file}")


@policy_app.command("diff")
def compare_policies(
    old: Path,
    new: Path,
    recorded: Annotated[
        Optional[Path], typer.Option("--from", help="What `tiphys policy decisions` wrote.")
    ] = None,
    url: Url = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Judge every decision on record by two policies, and list those that would differ."""
    from tiphys.service.policy_file import read_for_any_time
    from tiphys.service.replay import compare

    policies = read_for_any_time(old), read_for_any_time(new)
    if recorded is None:
        lines: Iterable[str] = client(url, data_dir).lines("/api/decisions/export")
        found = compare(lines, *policies)
    else:
        try:
            with recorded.open() as lines:
                found = compare(lines, *policies)
        except (OSError, UnicodeDecodeError) as error:
            raise BadInputError(f"{recorded}: {why_unreadable(error)}") from error
    if as_json:
        show_json(found.plain())
    else:
        console.print(differences(found))
