"""A target that was frozen is put right by a person, by nothing but what the incident says."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiphys.sandbox.patches import PatchType, apply


async def test_the_incident_of_a_frozen_target_says_how_to_repair_it(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("rollback-cannot-hold", tmp_path) as drama:
        await drama.play.strike()
        await drama.until_recorded("target_frozen", 120.0)

        async def paged() -> Any:
            [listed] = await drama.stage.get("/api/incidents")
            view = await drama.view(listed["id"])
            return view if view["repair"] else None

        view = await until(paged, 120.0)
        store = drama.stage.world.store
        now = store.get("Deployment", "shop", "payments")
        [field] = view["repair"]["fields"]
        assert field["before"] == 2
        assert field["now"] == now["spec"]["replicas"] != 2
        assert any("ask them" in note for note in view["repair"]["notes"])

        shown = await drama.command("incidents", "show", view["incident"]["id"])
        for command in view["repair"]["commands"]:
            assert command in shown.out
        *patches, release = view["repair"]["commands"]
        [command] = patches
        words = shlex.split(command)
        assert words[-1] == "payments"
        [body] = [word for word in words if word.startswith("--patch=")]
        operations = json.loads(body.removeprefix("--patch="))
        assert apply(now, operations, PatchType.JSON)["spec"]["replicas"] == 2
        alerts = drama.stage.world.alertmanager.alerts.values()
        told = [alert.annotations.get("description", "") for alert in alerts]
        assert any("tiphys incidents show" in words for words in told)

        released = await drama.command(*shlex.split(release)[1:], "--by", "ada")
        assert released.code == 0, released.err
        assert await drama.stage.get("/api/holds") == []
