"""The command line. A user's mistake is one sentence and exit status 2, never a traceback."""

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from pydantic import ValidationError

from tiphys.service import (
    ask_commands,
    commands,
    people_commands,
    playbook_commands,
    policy_commands,
    setup_commands,
    stop_commands,
)
from tiphys.service.conform.command import conform
from tiphys.service.errors import TiphysError, UsageError
from tiphys.service.evaluation.command import evaluate

app = typer.Typer(
    name="tiphys",
    help="Heals clusters with predefined workflows, and proves what it did.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(commands.incidents_app, name="incidents")
app.add_typer(commands.audit_app, name="audit")
app.add_typer(policy_commands.policy_app, name="policy")
app.add_typer(playbook_commands.playbook_app, name="playbook")
app.add_typer(commands.alerts_app, name="alerts")
app.add_typer(people_commands.people_app, name="people")
app.add_typer(people_commands.reviews_app, name="reviews")
app.command()(ask_commands.status)
app.command()(ask_commands.ask)
app.command()(commands.approve)
app.command()(people_commands.break_glass)
app.command()(commands.deny)
app.command()(commands.acknowledge)
app.command()(commands.abort)
app.command()(commands.holds)
app.command()(commands.release)
app.command()(commands.run)
app.command()(commands.undo)
app.command()(stop_commands.stop)
app.command()(stop_commands.pause)
app.command()(stop_commands.resume)
app.command()(commands.catalogue)
app.command()(conform)
app.command("eval")(evaluate)
app.command()(setup_commands.migrate)
app.command()(setup_commands.keygen)


@app.command()
def serve(
    host: Annotated[Optional[str], typer.Option(help="Address to listen on.")] = None,
    port: Annotated[Optional[int], typer.Option(help="TCP port; 0 takes a free one.")] = None,
    data_dir: Annotated[Optional[Path], typer.Option(help="Where everything is kept.")] = None,
    policy: Annotated[Optional[Path], typer.Option(help="The policy file.")] = None,
    role: Annotated[
        Optional[str], typer.Option(help="gateway, agents, launcher, several by comma, or all.")
    ] = None,
) -> None:
    """Run the service: every role in this process, or only some."""
    from tiphys.service.serve import run
    from tiphys.service.settings import Settings

    given = {"host": host, "port": port, "data_dir": data_dir, "policy": policy, "roles": role}
    run(Settings(**{name: value for name, value in given.items() if value is not None}))  # type: ignore[arg-type]


@app.command()
def demo(
    scenario: Annotated[Optional[str], typer.Argument(help="See `tiphys scenarios`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    once: Annotated[
        bool, typer.Option("--once", help="End when the incident has ended, without waiting.")
    ] = False,
    data_dir: Annotated[Optional[Path], typer.Option(help="Where the record is kept.")] = None,
) -> None:
    """Watch an incident being healed in a simulated cluster."""
    from tiphys.service.demo import run

    raise typer.Exit(run(scenario or "bad-release", as_json=as_json, once=once, data_dir=data_dir))


@app.command()
def scenarios(as_json: commands.AsJson = False) -> None:
    """List the scenarios that `tiphys demo` knows."""
    from tiphys.service.demo import list_scenarios

    list_scenarios(as_json=as_json)


def main() -> None:
    """Run the command line and turn every foreseen trouble into a sentence."""
    try:
        app()
    except UsageError as error:
        fail(str(error), 2)
    except TiphysError as error:
        fail(str(error), 1)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]).upper()
        name = f"TIPHYS_{where}" if error.title == "Settings" else where
        fail(f"{name}: {first['msg']} (given: {first.get('input')!r})", 2)
    except KeyboardInterrupt:
        sys.exit(130)


def fail(sentence: str, status: int) -> None:
    """Say what is wrong on standard error and end."""
    sys.stderr.write(f"tiphys: {sentence}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
