"""The 44 posts that a real Alertmanager sent: nothing is lost, everything is decided."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiphys.sandbox.scenario import Scenario

POSTS = Path(__file__).parents[1] / "data" / "alertmanager" / "webhook_posts.jsonl"
UNDECIDED = {"open", "investigating", "proposed", "inspected"}
QUIET = {
    "name": "quiet",
    "title": "Nothing breaks",
    "story": "A cluster that none of the posted alerts speaks of.",
    "objects": [],
    "fault": [{"flag": {"nothing": True}}],
    "expect": {"end": "escalated"},
}


def posted(status: str) -> set[tuple[str, str]]:
    """Give the fingerprint and the cluster label of every alert that had this status."""
    bodies = [json.loads(line) for line in POSTS.read_text().splitlines()]
    return {
        (alert["fingerprint"], alert["labels"].get("cluster", "kubernetes"))
        for body in bodies
        for alert in body["alerts"]
        if alert["status"] == status
    }


async def test_the_real_posts_are_all_answered_with_a_reason(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    # The posts' own cluster is ours, and no Alertmanager is there to say that they are over.
    ours = {"TIPHYS_CLUSTER": "kubernetes", "TIPHYS_ALERTMANAGER_URLS": ""}
    async with on_stage(Scenario.model_validate(QUIET), tmp_path, environment=ours) as drama:
        sent = await drama.command("alerts", "send", str(POSTS))
        assert (sent.code, sent.out) == (0, "44 posts accepted\n"), sent.err
        firing, resolved = posted("firing"), posted("resolved")
        assert len(firing) == 50
        assert len(resolved) == 1

        async def decided() -> list[dict[str, Any]] | None:
            views = await drama.play.views()
            known = {(a["fingerprint"], a["cluster"]) for v in views for a in v["alerts"]}
            settled = all(v["incident"]["state"] not in UNDECIDED for v in views)
            return views if settled and firing <= known else None

        views = await until(decided, 90)
        for view in views:
            incident = view["incident"]
            assert incident["reason"], incident["id"]
            decisions = [attempt["decision"] for attempt in view["attempts"]]
            over = {(a["fingerprint"], a["cluster"]) for a in view["alerts"]} <= resolved
            assert decisions or over, f"{incident['id']} was never decided"
            assert all(decision["reason"] for decision in decisions)
            assert (incident["state"] == "closed") == over, incident
        assert not drama.touches
        assert not drama.workflows

        export = tmp_path / "export.jsonl"
        assert (await drama.command("audit", "export", str(export))).code == 0
        checked = await drama.command("audit", "verify", str(export))
        assert checked.code == 0
        assert "unbroken" in checked.out
        assert f"{len(await drama.records())} records" in checked.out
