"""What cannot be done is refused in one sentence: file, line, key; never a traceback."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiphys.sandbox.scenario import Scenario
from tiphys.service.records import Record

BAD = Path(__file__).parents[1] / "data" / "policies" / "bad"
NOWHERE = "http://127.0.0.1:9"
KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "gone", "cluster": {"server": NOWHERE}}],
    "users": [{"name": "me", "user": {"token": "none"}}],
    "contexts": [{"name": "gone", "context": {"cluster": "gone", "user": "me"}}],
    "current-context": "gone",
}
QUIET = Scenario.model_validate(
    {
        "name": "quiet",
        "title": "Nothing breaks",
        "story": "An empty cluster.",
        "objects": [],
        "fault": [{"flag": {"nothing": True}}],
        "expect": {"end": "no_action"},
    }
)


def one_sentence(answer: Any, *words: str) -> None:
    """Check that it was refused with exit status 2 and one line that holds these words."""
    assert answer.code == 2, answer
    last = answer.err.strip().splitlines()[-1]
    assert last.startswith("tiphys: ")
    for word in words:
        assert word in last, f"{word!r} is not in {last!r}"


@pytest.mark.parametrize(
    ("file", "line", "key"),
    [
        ("unknown_setting", 6, "rules.cooldown.minutes"),
        ("unknown_rule", 5, "rules.cooldwn"),
        ("duplicate_key", 7, "seconds"),
        ("tab_for_indent", 5, "not YAML"),
    ],
)
async def test_a_broken_policy_names_file_line_and_key(
    file: str, line: int, key: str, tiphys: Callable[..., Any]
) -> None:
    answer = await tiphys("policy", "check", str(BAD / f"{file}.yaml"))
    one_sentence(answer, f"{file}.yaml:{line}: ", key)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("demo", "no-such-story", "--once"), ("no-such-story", "bad-release")),
        (("serve", "--host", "0.0.0.0"), ("TIPHYS_WEBHOOK_TOKEN", "TIPHYS_API_TOKEN")),
        (("serve", "--policy", str(BAD / "unknown_rule.yaml")), ("unknown_rule.yaml:5", "cooldwn")),
        (("alerts", "send", "no-such-file"), ("no-such-file",)),
        (("approve", "inc-aaaaaaaa"), ("tiphys serve",)),
        (("audit", "verify", "no-such-file"), ("no-such-file",)),
        (("resume", "--kubeconfig", "no-such-file"), ("no-such-file",)),
        (("resume",), ("tiphys serve",)),
        (("pause", "namespace:shop", "30m"), ("tiphys serve",)),
        (("pause", "30m", "cluster"), ("the scope comes first: tiphys pause cluster 30m",)),
        (("stop", "--runs", "--kubeconfig", "mine"), ("--runs", "--kubeconfig")),
    ],
)
async def test_a_mistake_is_one_sentence(
    words: tuple[str, ...], said: tuple[str, ...], tiphys: Callable[..., Any], tmp_path: Path
) -> None:
    environment = {"TIPHYS_DATA_DIR": str(tmp_path), "TIPHYS_PORT": "0"}
    one_sentence(await tiphys(*words, environment=environment), *said)


@pytest.mark.parametrize(
    ("variable", "content", "said"),
    [
        ("TIPHYS_LAUNCHER_KUBECONFIG", "clusters: [", 'launcher.kubeconfig", line 1'),
        ("TIPHYS_LAUNCHER_KUBECONFIG", None, "No such file"),
        ("TIPHYS_PLAYBOOKS", "name: mine\nwhen: 3\n", "mine.yaml:"),
    ],
    ids=["kubeconfig that is not YAML", "kubeconfig that is missing", "broken playbook"],
)
async def test_serve_refuses_what_it_cannot_read(
    variable: str, content: str | None, said: str, tiphys: Callable[..., Any], tmp_path: Path
) -> None:
    good = tmp_path / "good.kubeconfig"
    good.write_text(yaml.safe_dump(KUBECONFIG))
    folder = tmp_path / "given"
    folder.mkdir()
    playbooks = variable == "TIPHYS_PLAYBOOKS"
    file = folder / ("mine.yaml" if playbooks else "launcher.kubeconfig")
    if content is not None:
        file.write_text(content)
    names = ("TIPHYS_KUBECONFIG", "TIPHYS_LAUNCHER_KUBECONFIG", "TIPHYS_GATEWAY_KUBECONFIG")
    environment = {
        **dict.fromkeys(names, str(good)),
        "TIPHYS_DATA_DIR": str(tmp_path / "data"),
        "TIPHYS_PORT": "0",
        variable: str(folder if playbooks else file),
    }
    one_sentence(await tiphys("serve", environment=environment), said)


async def test_a_running_service_refuses_twins_strangers_and_unknown_incidents(
    on_stage: Callable[..., Any], tiphys: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage(QUIET, tmp_path) as drama:
        stage = drama.stage
        port = stage.url.rpartition(":")[2]
        twin = {"TIPHYS_DATA_DIR": str(stage.directory), "TIPHYS_PORT": "0"}
        one_sentence(await tiphys("serve", environment=twin), str(stage.directory), "held by")
        taken = {"TIPHYS_DATA_DIR": str(tmp_path / "other"), "TIPHYS_PORT": port}
        one_sentence(await tiphys("serve", environment=taken), f"port {port}", "in use")
        one_sentence(await drama.command("approve", "inc-aaaaaaaa"), "inc-aaaaaaaa")
        stranger = {"TIPHYS_URL": stage.url, "TIPHYS_API_TOKEN": "wrong"}
        one_sentence(await tiphys("incidents", "list", environment=stranger), "token")
        one_sentence(await tiphys("stop", environment={"TIPHYS_URL": stage.url}), "token")
        assert (await stage.get("/api/stop"))["engaged"] is False
        assert await drama.command("incidents", "list")


async def test_a_tampered_export_names_the_first_bad_record(
    on_stage: Callable[..., Any], tiphys: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("outside-catalogue", tmp_path) as drama:
        await drama.play.strike()
        summary = await drama.play.finish()
        assert summary.complaints == []
    lines = summary.export.read_text().splitlines()
    assert len(lines) > 6
    edited = {**json.loads(lines[3]), "actor": "nobody"}
    rehashed = Record.model_validate(edited)
    rehashed = rehashed.model_copy(update={"hash": rehashed.computed_hash()})
    tampered = [
        (4, 3, "was changed", [*lines[:3], json.dumps(edited), *lines[4:]]),
        (5, 4, "does not follow", [*lines[:3], rehashed.model_dump_json(), *lines[4:]]),
        (5, 3, "is missing", [*lines[:3], *lines[4:]]),
        (5, 3, "moved", [*lines[:3], lines[4], lines[3], *lines[5:]]),
    ]
    for number, good, words, kept in tampered:
        export = tmp_path / "tampered.jsonl"
        export.write_text("\n".join(kept) + "\n")
        answer = await tiphys("audit", "verify", str(export))
        assert answer.code == 1, answer
        assert f"record {number} (line {good + 1}) " in answer.out
        assert f"{good} good records before it" in answer.out
        assert words in answer.out


async def test_without_prometheus_the_incident_goes_to_a_human_who_is_told_so(
    on_stage: Callable[..., Any], tmp_path: Path
) -> None:
    gone = {"TIPHYS_PROMETHEUS_URL": NOWHERE}
    async with on_stage("bad-release", tmp_path, environment=gone) as drama:
        await drama.play.strike()
        view = await drama.until_state("escalated")
        assert "Prometheus" in view["incident"]["reason"]
        await drama.until_recorded("paged")
        assert not drama.workflows


async def test_without_kubernetes_the_incident_goes_to_a_human_who_is_told_so(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("bad-release", tmp_path) as drama:
        await drama.stage.world.stop_kubernetes()
        await drama.play.strike()
        view = await drama.until_state("escalated", seconds=90)
        assert "Kubernetes" in view["incident"]["reason"]
        await drama.until_recorded("paged")

        async def told() -> bool:
            return "TiphysEscalation" in str(drama.stage.world.alertmanager.posted)

        await until(told)
        assert not drama.workflows
        assert not await drama.records("launch_intended")
