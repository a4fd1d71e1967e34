"""Opens the model as a reasoner beside the playbooks: live, recorded, or played from a file."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace as changed
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from tiphys.agents.budget import Meter, Tally
from tiphys.agents.exchanges import ExchangesInvalidError, Recording, Replay
from tiphys.agents.model_endpoint import Endpoint, Wire
from tiphys.agents.model_reasoner import ModelReasoner, Sources
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import ClusterReader, Metrics, Reasoner
from tiphys.agents.shared_causes import SharedCauses
from tiphys.agents.two_opinions import TwoOpinions
from tiphys.service.errors import BadInputError, UsageError
from tiphys.service.model_metrics import ModelMetrics
from tiphys.service.model_settings import ModelSettings
from tiphys.workflow_templates import catalogue

log = structlog.get_logger()
NOWHERE = "http://replay.invalid/v1"
"""Replayed exchanges are never sent; this host does not exist (RFC 6761, section 6.4)."""
UNLIMITED: Mapping[str, Any] = {
    f"{what}_per_{span}": 1 << 60
    for what in ("calls", "tokens", "seconds", "money")
    for span in ("hour", "day")
}


@contextlib.asynccontextmanager
async def open_model(
    settings: ModelSettings,
    playbooks: Playbooks,
    cluster: ClusterReader,
    metrics: Metrics | None,
    tally: Tally | None = None,
) -> AsyncGenerator[Reasoner]:
    """Open the service's reasoner; says at once what is not limited.

    `tally`: who counts; default: the process' metrics, which are made once.
    """
    if not settings.model_prices.known:
        log.warning("the model's prices are not set, so money is not limited")
    meter = Meter(settings.model_budget, prices=settings.model_prices)
    meter.tally = tally or ModelMetrics()
    wire: Wire | Recording = Wire()
    if settings.model_record:
        try:
            wire = Recording(wire, settings.model_record)
        except OSError as error:
            raise UsageError(
                f"TIPHYS_MODEL_RECORD: {settings.model_record} cannot be written: {error.strerror}"
            ) from error
        log.warning("every exchange with the model is recorded", file=str(settings.model_record))
    model = ModelReasoner.connect(
        _endpoint(settings), catalogue.every(), meter, Sources(cluster, metrics), wire
    )
    shared = SharedCauses(model, timedelta(minutes=settings.model_cause_minutes))
    try:
        yield TwoOpinions(playbooks, shared, alone=settings.model_alone)
    finally:
        await shared.close()


@contextlib.asynccontextmanager
async def open_evaluated(
    settings: ModelSettings,
    playbooks: Playbooks,
    replay: Path | None = None,
    sources: Sources | None = None,
) -> AsyncGenerator[Reasoner]:
    """Open the reasoner that `tiphys eval --reasoner model` measures: each case by itself.

    With `replay`, a file of recorded exchanges, nothing is sent anywhere; a prompt that it does not
    have raises `NotRecordedError` out of `decide`. Raises `BadInputError` for a file that cannot be
    played and `UsageError` where there is neither a file nor an endpoint.
    """
    endpoint, wire = _evaluated(settings, replay)
    if settings.model_record and replay is None:
        wire = Recording(wire, settings.model_record)
    # What is played costs nothing, however many cases there are.
    budget = changed(settings.model_budget, **UNLIMITED) if replay else settings.model_budget
    meter = Meter(budget, prices=settings.model_prices)
    model = ModelReasoner.connect(endpoint, catalogue.every(), meter, sources, wire)
    try:
        yield TwoOpinions(playbooks, model, alone=settings.model_alone)
    finally:
        await model.close()


def _evaluated(
    settings: ModelSettings, replay: Path | None
) -> tuple[Endpoint, Wire | Recording | Replay]:
    if replay is not None:
        try:
            played = Replay(replay)
        except ExchangesInvalidError as error:
            raise BadInputError(str(error)) from error
        return Endpoint(NOWHERE, settings.model or played.model or "replayed"), played
    if settings.model_base_url is None or not settings.model:
        raise UsageError(
            "--reasoner model needs TIPHYS_MODEL_BASE_URL and TIPHYS_MODEL, or --replay FILE"
        )
    return _endpoint(settings), Wire()


def _endpoint(settings: ModelSettings) -> Endpoint:
    return Endpoint(
        base_url=settings.model_base_url or "",
        model=settings.model,
        api_key=settings.model_api_key,
        timeout=settings.model_timeout,
        retries=settings.model_retries,
    )
