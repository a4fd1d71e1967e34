"""Opens what the agents read from and reason with, as the settings say."""

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from kubernetes.aio import client as kubernetes_client
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from tiphys.agents.graph import Agents
from tiphys.agents.playbook_file import PlaybookInvalidError
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import AlertSource, ClusterReader, Metrics, Reasoner
from tiphys.agents.read_allowance import Allowance
from tiphys.service.errors import BadInputError
from tiphys.service.kubernetes_reader import KubernetesReader
from tiphys.service.ledger import utc_now
from tiphys.service.prometheus import Prometheus
from tiphys.service.settings import Settings


def read_playbooks(folder: Path | None) -> Playbooks:
    """Read the playbooks; raises `BadInputError` naming file, line and key."""
    try:
        return Playbooks.load(folder)
    except PlaybookInvalidError as error:
        raise BadInputError(str(error)) from error


@contextlib.asynccontextmanager
async def open_agents(
    settings: Settings, alerts: AlertSource | None, kubernetes: kubernetes_client.ApiClient
) -> AsyncGenerator[Agents]:
    """Open the agents with their own checkpoints; closes those at the end."""
    playbooks, cluster = read_playbooks(settings.playbooks), KubernetesReader(kubernetes)
    # A file of its own: shared with other writers, each node would cost three times as much.
    path = settings.data_dir / "checkpoints.db"
    if settings.external_database:
        # Another replica has taken over what we left: see docs/adr/0006-roles.md.
        for leftover in settings.data_dir.glob("checkpoints.db*"):
            leftover.unlink()
    async with (
        AsyncSqliteSaver.from_conn_string(str(path)) as checkpointer,
        _open_metrics(settings) as metrics,
        _open_reasoner(settings, playbooks, cluster, metrics) as reasoner,
    ):
        yield Agents(
            metrics=metrics,
            cluster=cluster,
            alerts=alerts,
            reasoner=reasoner,
            playbooks=playbooks,
            checkpointer=checkpointer,
            clock=utc_now,
            allowance=Allowance(
                calls=settings.investigation_calls, log_bytes=settings.investigation_log_bytes
            ),
        )


@contextlib.asynccontextmanager
async def _open_metrics(settings: Settings) -> AsyncGenerator[Metrics | None]:
    if settings.prometheus_url is None:
        yield None
        return
    prometheus = Prometheus(settings.prometheus_url, timeout=settings.prometheus_timeout)
    try:
        yield prometheus
    finally:
        prometheus.close()


@contextlib.asynccontextmanager
async def _open_reasoner(
    settings: Settings, playbooks: Playbooks, cluster: ClusterReader, metrics: Metrics | None
) -> AsyncGenerator[Reasoner]:
    if settings.model_base_url is None:
        yield playbooks
        return
    from tiphys.service.asking_models import open_model  # slow to import

    async with open_model(settings, playbooks, cluster, metrics) as reasoner:
        yield reasoner
