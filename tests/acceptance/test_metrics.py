"""What `/metrics` of a real `tiphys serve` says of a target that it had to freeze."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families


async def scraped(drama: Any) -> dict[tuple[str, ...], float]:
    async with httpx2.AsyncClient(base_url=drama.stage.url, trust_env=False) as http:
        text = (await http.get("/metrics")).text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("tiphys_")
    }


async def test_a_frozen_target_and_its_escalation_can_be_seen_until_people_have_dealt_with_them(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("rollback-cannot-hold", tmp_path) as drama:
        await drama.play.strike()
        view = await drama.until_state("escalated")

        async def seen(frozen: int) -> Any:
            found = await scraped(drama)
            same = found.get(("tiphys_holds", "freeze")) == frozen
            return found if same and ("tiphys_intake_oldest_age_seconds",) in found else None

        found = await until(lambda: seen(1))
        assert found["tiphys_holds", "breaker"] == 0
        grade = view["incident"]["severity"]
        assert found["tiphys_escalation_oldest_age_seconds", grade] > 0
        assert found[("tiphys_run_oldest_age_seconds",)] == 0, "its run has ended"
        assert found[("tiphys_intake_pending_alerts",)] == 0
        assert found[("tiphys_intake_unacknowledged_alerts",)] == 0

        [hold] = await drama.stage.get("/api/holds")
        incident = view["incident"]["id"]
        assert (await drama.command("acknowledge", incident)).code == 0
        assert (await drama.command("release", hold["scope"], "--reason", "mended")).code == 0
        found = await until(lambda: seen(0))
        assert found["tiphys_escalation_oldest_age_seconds", grade] == 0
