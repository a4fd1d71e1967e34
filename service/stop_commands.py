"""The commands that hold Tiphys back and let it go on: `stop`, `pause` and `resume`."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypeVar

import typer

from tiphys.service.client import Client, whoami
from tiphys.service.commands import By, DataDir, Reason, Url, client, console, named, told_pause
from tiphys.service.errors import UsageError
from tiphys.service.settings import Settings
from tiphys.service.telling import plain

if TYPE_CHECKING:
    from tiphys.service.stop_switch import StopSwitch

T = TypeVar("T")
_CLUSTER = "cluster"
Scope = Annotated[str, typer.Argument(help="`cluster`, or `namespace:NAME`.")]


def stop(
    url: Url = None,
    data_dir: DataDir = None,
    by: By = "",
    reason: Reason = "stopped by hand",
    runs: Annotated[
        bool, typer.Option("--runs", help="Have what runs stop and roll back, too.")
    ] = False,
    kubeconfig: Annotated[
        Optional[Path], typer.Option(help="Your own credentials, when no service answers.")
    ] = None,
) -> None:
    """Stop everything new, now; running workflows and their rollbacks go on."""
    if kubeconfig is None:
        body = {**named(by), "reason": reason, "runs": runs}
        _tell_runs(client(url, data_dir).post("/api/stop", body), runs=runs)
    elif runs:
        raise UsageError("--runs asks the service, which --kubeconfig does without: say one")
    else:
        now = datetime.now(UTC)
        _switched(
            kubeconfig, lambda switch: switch.engage(by=by or whoami(), reason=reason, now=now)
        )
    console.print("stopped: nothing new starts until a human runs `tiphys resume --stop`")


def _tell_runs(state: dict[str, Any], *, runs: bool) -> None:
    for incident in state["incidents"]:
        console.print(f"{incident}: its run is told to stop and rolls back")
    if runs and not state["incidents"]:
        console.print("nothing runs that was not told to stop before")


def pause(
    scope: Scope = _CLUSTER,
    time: Annotated[str, typer.Argument(help="How long: a number with s, m, h or d.")] = "1h",
    url: Url = None,
    data_dir: DataDir = None,
    by: By = "",
    reason: Reason = "",
) -> None:
    """Let nothing new start in a scope for a while; it ends by itself, or by `tiphys resume`."""
    from tiphys.service.pauses import is_time  # brings the database along

    if is_time(scope):  # `tiphys pause 30m`
        if time != "1h":
            raise UsageError(f"the scope comes first: tiphys pause {time} {scope}")
        scope, time = _CLUSTER, scope
    body = {"scope": scope, "time": time, **named(by), "reason": reason}
    made = client(url, data_dir).post("/api/pauses", body)
    console.print(told_pause(made))


def resume(
    scope: Scope = _CLUSTER,
    url: Url = None,
    data_dir: DataDir = None,
    by: By = "",
    switch: Annotated[
        bool, typer.Option("--stop", help="Release the stop, with your own credentials.")
    ] = False,
    kubeconfig: Annotated[
        Optional[Path],
        typer.Option(help="Those credentials; default: KUBECONFIG. Says --stop, too."),
    ] = None,
) -> None:
    """Let work go on: ends the pauses of a scope or, with --stop, deletes the stop ConfigMaps.

    Tiphys has no credentials that could release the stop: only yours can.
    """
    if switch or kubeconfig is not None:
        names = _switched(kubeconfig, lambda lever: lever.release())
        console.print(f"released: {', '.join(names)}" if names else "nothing was stopped")
        return
    service = client(url, data_dir)
    ended = service.delete("/api/pauses", scope=scope, **named(by))
    console.print(f"resumed: {scope}" if ended else f"nothing was paused under {scope}")
    _tell_rest(service)


def _tell_rest(service: Client) -> None:
    """Say what still keeps work from going on."""
    for pause in service.get("/api/pauses"):
        console.print(told_pause(pause))
    state = service.get("/api/stop")
    if state["engaged"] is None:
        console.print(f"whether the stop is engaged nobody can say: {plain(state['reason'])}")
    elif state["engaged"]:
        console.print(
            f"the stop is still engaged: {plain(state['reason'])}. "
            "To release it with your own credentials: tiphys resume --stop"
        )


def _switched(kubeconfig: Path | None, work: "Callable[[StopSwitch], Awaitable[T]]") -> T:
    """Use the stop switch with a person's own credentials."""
    from tiphys.service.kubernetes_api import connect
    from tiphys.service.stop_switch import LABEL, StopSwitch

    settings = Settings()
    namespace = settings.stop_namespace
    path = kubeconfig or settings.kubectl_config or Path.home() / ".kube" / "config"
    if not path.exists():
        raise UsageError(
            f"{path} does not exist; say --kubeconfig, or look yourself: "
            f"kubectl get configmap -n {namespace} -l {LABEL}"
        )

    async def run() -> T:
        async with connect(path) as api:
            return await work(StopSwitch(api, namespace))

    return asyncio.run(run())
