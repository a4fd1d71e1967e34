"""Every scenario of the sandbox, decided by the playbooks and a scripted model together."""

import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

sys.path.insert(0, str(Path(__file__).parent))

from scripted_model import scripted_model
from test_agents_scenarios import bench, now

from tiphys.agents.budget import Meter
from tiphys.agents.graph import Agents
from tiphys.agents.model_endpoint import Endpoint
from tiphys.agents.model_reasoner import ModelReasoner, Sources
from tiphys.agents.two_opinions import TwoOpinions
from tiphys.policies.model import Proposal
from tiphys.sandbox.scenario import find
from tiphys.service.asking_models import open_model
from tiphys.service.model_metrics import ModelMetrics
from tiphys.service.settings import Settings
from tiphys.workflow_templates.catalogue import every

NAMES = sorted(p.stem for p in (Path(__file__).parents[2] / "sandbox" / "scenarios").glob("*.yaml"))
AGREED = {
    "bad-release": "rollout-undo",
    "failed-report": "delete-failed-job",
    "wedged-pod": "restart-pod",
}
"""What the scripted model knows, too."""


@pytest.mark.parametrize("name", NAMES)
async def test_no_scenario_goes_wrong_with_a_model_beside_the_playbooks(
    name: str, tmp_path: Path
) -> None:
    expected = find(name).expect
    with scripted_model() as endpoint:
        async with bench(name, tmp_path) as b:
            sources = Sources(b.agents.cluster, b.prometheus)
            at = Endpoint(endpoint.url, "scripted")
            model = ModelReasoner.connect(at, every(), Meter(), sources)
            both = TwoOpinions(b.agents.playbooks, model)
            agents = Agents(
                b.prometheus, b.agents.cluster, b.source, both, b.agents.playbooks, None, now, 1
            )
            await b.world.strike()
            found = await agents.investigate(await b.case())
            await model.close()
    decision = found.decision
    if isinstance(decision, Proposal):
        assert decision.action not in expected.harmful
        assert decision.action in {expected.action, *expected.acceptable}
        assert decision.decided_by.note == "the model agrees"
    if name in AGREED:
        assert isinstance(decision, Proposal), decision
        assert decision.action == AGREED[name]
        assert decision.decided_by.model == "scripted"
        read = [e.id for e in found.evidence if e.question.startswith("describe ")]
        assert read, "it had its target described first"
        assert len(endpoint.requests) == 2
    assert len(endpoint.requests) <= Meter().budget.calls_per_incident


async def test_the_service_opens_its_reasoner_as_the_settings_say(tmp_path: Path) -> None:
    counted, record = CollectorRegistry(), tmp_path / "exchanges.jsonl"
    with scripted_model() as endpoint, capture_logs() as logs:
        given = Settings(model_base_url=endpoint.url, model="scripted", model_record=record)
        async with bench("bad-release", tmp_path) as b:
            books, cluster = b.agents.playbooks, b.agents.cluster
            tally = ModelMetrics(counted)
            async with open_model(given, books, cluster, b.prometheus, tally) as both:
                agents = Agents(b.prometheus, cluster, b.source, both, books, None, now, 1)
                await b.world.strike()
                case = await b.case()
                decision = (await agents.investigate(case)).decision
                assert isinstance(decision, Proposal), decision
                assert decision.decided_by.note == "the model agrees"
                again = (await agents.investigate(case)).decision
                assert isinstance(again, Proposal), again
    assert len(endpoint.requests) == len(record.read_text().splitlines()) == 2, (
        "a repeat costs none"
    )
    assert any("money is not limited" in one["event"] for one in logs)
    assert counted.get_sample_value("tiphys_model_calls_total") == 2
    assert counted.get_sample_value("tiphys_model_tokens_total", {"direction": "prompt"}) == 2_000
    assert counted.get_sample_value("tiphys_model_incidents_total", {"how": "repeated"}) == 1
