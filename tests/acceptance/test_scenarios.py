"""Every scenario ends as its file says, lawfully."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiphys.sandbox.scenario import names
from tiphys.service.records import verify


@pytest.mark.parametrize("name", names())
async def test_a_scenario_ends_as_its_file_expects(
    name: str, on_stage: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage(name, tmp_path) as drama:
        await drama.play.strike()
        summary = await drama.play.finish()
        assert summary.complaints == []
        assert verify(summary.export.read_text().splitlines()).problem is None
        await drama.check_lawful(summary)
        launched = sum(view["incident"]["attempt"] for view in summary.views)
        written = Counter((one.kind, one.obj["metadata"]["name"]) for one in drama.acts)
        assert max(written.values(), default=0) <= 2 * launched, (
            "each object is written once, and at most once in a rollback, each attempt"
        )
        if not summary.ended.launched:
            assert not drama.touches


async def test_a_node_that_dies_pages_once_and_many_causes_page_for_each(
    on_stage: Callable[..., Any], tmp_path: Path
) -> None:
    paged: dict[str, int] = {}
    for name in ("node-dies", "many-causes"):
        async with on_stage(name, tmp_path) as drama:
            await drama.play.strike()
            summary = await drama.play.finish()
            views = [view["incident"] for view in summary.views]
            paged[name] = sum(1 for incident in views if incident["paged_at"])
            assert len(views) >= 4
    assert paged["node-dies"] == 1
    assert paged["many-causes"] >= 4
