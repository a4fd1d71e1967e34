"""The stop switch: nothing new starts, what runs goes on, and only a human lets work go on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tiphys.sandbox.scenario import Reference

SEARCH = Reference(kind="Deployment", namespace="shop", name="search")
WORKFLOWS = "/apis/argoproj.io/v1alpha1/namespaces/tiphys-actions/workflows"
STOPS = "/api/v1/namespaces/tiphys-stop/configmaps"
QUICK = {"rules": {"cooldown": {"seconds": 0}}}


async def call(drama: Any, role: str, method: str, path: str, body: Any = None) -> httpx2.Response:
    """Speak to the world's API server with the credentials of a role."""
    config = yaml.safe_load(drama.stage.world.kubeconfigs[role].read_text())
    headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
    url = drama.stage.world.kubernetes_url
    async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
        return await http.request(method, path, json=body)


async def by_hand(drama: Any) -> httpx2.Response:
    """Create a Workflow with the launcher's own token, well formed in every way."""
    [given] = (dict(w) for w in drama.workflows[:1])
    body = {
        "apiVersion": given["apiVersion"],
        "kind": "Workflow",
        "metadata": {"name": f"tiphys-{'a' * 40}", "namespace": "tiphys-actions"},
        "spec": {key: given["spec"][key] for key in ("workflowTemplateRef", "arguments")},
    }
    return await call(drama, "launcher", "POST", f"{WORKFLOWS}?dryRun=All", body)


def paged(drama: Any) -> str:
    """Give all that humans were sent."""
    return str(drama.stage.world.alertmanager.posted)


async def test_stop_lets_a_running_workflow_end_and_nothing_new_begin(
    on_stage: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("overload", tmp_path, policy=QUICK) as drama:
        await drama.play.strike()
        await drama.until_recorded("workflow_created")
        assert (await by_hand(drama)).status_code == 201
        stopped = await drama.command("stop", "--by", "ada", "--reason", "an exercise")
        assert stopped.code == 0, stopped.err
        [engaged] = await drama.records("stop_engaged")
        assert engaged["actor"] == "ada"
        assert not await drama.records("run_ended"), "it was stopped while the Workflow ran"

        refused = await by_hand(drama)
        assert refused.status_code == 403
        assert "stopped by ConfigMap" in refused.json()["message"]
        assert "an exercise" in refused.json()["message"]
        forbidden = await call(
            drama, "gateway", "DELETE", f"{STOPS}/{engaged['body']['config_map']}"
        )
        assert forbidden.status_code == 403, "the service cannot release what it engaged"

        summary = await drama.play.finish()
        assert summary.complaints == [], "the running Workflow went on to its end"

        # The engineer scales back: it happens again, and now nothing may be started.
        drama.stage.world.edit(SEARCH, {"spec": {"replicas": 2}})
        view = await drama.until_state("escalated")
        assert view["attempts"][-1]["decision"]["action"] == "scale-workload"
        assert "an exercise" in view["incident"]["reason"]
        await drama.until_recorded("paged")
        assert len(drama.workflows) == 1
        assert not view["attempts"][-1]["run"]

        # A human's credentials release it; that incident stays in human hands, the next does not.
        admin = str(drama.stage.world.kubeconfigs["admin"])
        mine = await drama.command("resume", "--kubeconfig", admin)
        assert mine.code == 0, mine.err
        assert engaged["body"]["config_map"] in mine.out
        assert (await by_hand(drama)).status_code == 201


async def test_a_hand_made_config_map_stops_without_the_service(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("overload", tmp_path, policy=QUICK) as drama:
        drama.stage.kill_service()
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "hold-everything", "labels": {"tiphys.io/stop": "true"}},
            "data": {"reason": "change freeze until Monday"},
        }
        made = await call(drama, "admin", "POST", STOPS, body)
        assert made.status_code == 201
        await drama.stage.restart_service()
        await drama.play.strike()
        view = await drama.until_state("escalated")
        assert "change freeze until Monday" in view["incident"]["reason"]
        await drama.until_recorded("paged")

        async def told() -> bool:
            return "change freeze until Monday" in paged(drama)

        await until(told)
        assert not drama.workflows
        assert not await drama.records("launch_intended")

        admin = str(drama.stage.world.kubeconfigs["admin"])
        released = await drama.command("resume", "--kubeconfig", admin)
        assert "hold-everything" in released.out, released.err

        # A human mends it by hand; when it breaks again, work goes on.
        drama.stage.world.edit(SEARCH, {"spec": {"replicas": 4}})
        await drama.until_state("closed")
        drama.stage.world.edit(SEARCH, {"spec": {"replicas": 2}})
        await drama.until_recorded("workflow_created")
        ended = await drama.until_recorded("run_ended")
        assert ended["body"]["outcome"] == "verified"


async def test_one_run_is_aborted_by_a_person_and_rolls_back(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    patient = {"verification": {"hold_seconds": 60}}  # it is still verifying when the word comes
    async with on_stage("overload", tmp_path, policy=patient) as drama:
        await drama.play.strike()

        async def acted() -> bool:
            return bool(drama.acts)

        await until(acted)
        incident = (await drama.until_state("running"))["incident"]["id"]
        done = await drama.command("abort", incident, "--by", "ada", "--reason", "not during sales")
        assert done.code == 0, done.err
        view = await drama.until_state("escalated")
        assert view["incident"]["outcome"] == "rolled_back"
        assert "stopped by ada: not during sales" in view["incident"]["reason"]
        search = drama.stage.world.store.get(SEARCH.kind, SEARCH.namespace, SEARCH.name)
        assert search["spec"]["replicas"] == 2
        [workflow] = drama.workflows
        assert workflow["spec"]["shutdown"] == "Stop"
        again = await drama.command("abort", incident, "--by", "ada")
        assert again.code == 2
        assert "There is no run to stop" in again.err


async def test_stop_with_runs_has_what_runs_roll_back_and_nothing_new_begin(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    patient = {"verification": {"hold_seconds": 60}}
    async with on_stage("overload", tmp_path, policy=patient) as drama:
        await drama.play.strike()

        async def acted() -> bool:
            return bool(drama.acts)

        await until(acted)
        incident = (await drama.until_state("running"))["incident"]["id"]
        done = await drama.command("stop", "--runs", "--by", "ada", "--reason", "wrong call")
        assert done.code == 0, done.err
        assert f"{incident}: its run is told to stop and rolls back" in done.out
        again = await drama.command("stop", "--runs", "--by", "bob")
        assert "nothing runs that was not told to stop before" in again.out
        view = await drama.until_state("escalated")
        assert view["incident"]["outcome"] == "rolled_back"
        assert "stopped by ada: wrong call" in view["incident"]["reason"]
        search = drama.stage.world.store.get(SEARCH.kind, SEARCH.namespace, SEARCH.name)
        assert search["spec"]["replicas"] == 2
        assert [r["actor"] for r in await drama.records("run_stop_asked")] == ["ada"]
        assert (await by_hand(drama)).status_code == 403


async def test_a_pause_is_listed_ends_by_a_word_and_is_no_stop(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("overload", tmp_path, policy=QUICK) as drama:
        why = ("--by", "ada", "--reason", "upgrading shop")
        paused = await drama.command("pause", "namespace:shop", "1m", *why)
        assert paused.code == 0, paused.err
        listed = await drama.command("holds")
        assert "namespace:shop is paused by ada until" in listed.out
        assert "upgrading shop" in listed.out
        await drama.play.strike()
        view = await drama.until_state("proposed", "inspected")
        assert not drama.workflows
        assert not await drama.records("paged")

        resumed = await drama.command("resume", "namespace:shop", "--by", "cyd")
        assert "resumed: namespace:shop" in resumed.out
        assert "still" not in resumed.out
        await drama.until_recorded("workflow_created")
        told = [(r["event"], r["actor"]) for r in await drama.records("paused", "resumed")]
        assert told == [("paused", "ada"), ("resumed", "cyd")]
        assert (await drama.view(view["incident"]["id"]))["incident"]["state"] != "escalated"

        assert (await drama.command("pause", "namespace:shop", "--by", "ada")).code == 0
        await drama.command("stop", "--by", "bob", "--reason", "an exercise")
        elsewhere = await drama.command("resume")
        assert "nothing was paused under cluster" in elsewhere.out
        assert "namespace:shop is paused by ada" in elsewhere.out
        assert "the stop is still engaged: an exercise" in elsewhere.out
        assert "tiphys resume --stop" in elsewhere.out
        admin = str(drama.stage.world.kubeconfigs["admin"])
        assert (await drama.command("resume", "--stop", "--kubeconfig", admin)).code == 0

        wrong = await drama.command("pause", "shop")
        assert wrong.code == 2
        assert "`cluster` or `namespace:NAME`" in wrong.err
