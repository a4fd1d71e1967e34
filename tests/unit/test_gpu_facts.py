"""What the agents make of Xids: every code as the catalogue says, and nothing guessed."""

import csv
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tiphys.agents.gpu import Gpu
from tiphys.agents.gpu_facts import gpu_facts
from tiphys.agents.gpu_labels import about_gpu, device_of, node_of, user_of
from tiphys.agents.notebook import Notebook
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import AlertRule, Answer, Case, Findings, Sample, Series
from tiphys.agents.xid_history import from_events
from tiphys.policies.model import Alert, Json, Object

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
UUID = "GPU-5f1c2a9e-0b7d-4c31-9a55-1d2e3f405162"
OTHER = "GPU-77aa01c4-6f02-4f0e-8d7b-9c0b1a2d3e4f"
PCI = "00000000:3B:00.0"
SERIES = {"Hostname": "gpu-1", "gpu": "0", "UUID": UUID, "pci_bus_id": PCI}
ROOT = Path(__file__).resolve().parents[2]

BOOKS = Playbooks.load()
BUCKETS = {
    "IGNORE": "nothing", "WORKFLOW_XID_45": "nothing",
    "RESTART_APP": "restart-pod",
    "RESET_GPU": "drain", "WORKFLOW_NVLINK_ERR": "drain", "WORKFLOW_XID_48": "drain",
    "RESTART_BM": "replace", "RESTART_VM": "replace",
}  # fmt: skip
"""What the catalogue's immediate action comes to; every other one is for a human."""
DETAILS = {171: "drain", 172: "drain"}
"""Rows without an action of their own, which the catalogue calls details of 48."""


def catalogue() -> list[tuple[int, str]]:
    lines = (ROOT / "policies/xid.csv").read_text().splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return [(int(row["code"]), row["immediate"]) for row in rows]


class World:
    """The ports, answering from lists."""

    def __init__(self, gauge: Sequence[Series] = (), counts: Sequence[Series] = ()) -> None:
        self.series = {"DCGM_FI_DEV_XID_ERRORS": gauge, "DCGM_EXP_XID_ERRORS_COUNT": counts}
        self.events: list[Object] = []
        self.pods: list[Object] = [pod("train")]
        self.asked: list[str] = []

    async def range(
        self, query: str, start: datetime, end: datetime, step_seconds: float
    ) -> Sequence[Series]:
        assert (end - start, step_seconds) == (timedelta(hours=24), 60.0)
        self.asked.append(query)
        return self.series[query.partition("{")[0]]

    async def instant(self, query: str, at: datetime | None = None) -> Sequence[Sample]:
        del query, at
        return []

    async def rules(self) -> Sequence[AlertRule]:
        return []

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        raise NotImplementedError

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Sequence[Object]:
        del api_version, namespace, label_selector
        assert "gpu-1" in field_selector
        return self.events if kind == "Event" else self.pods

    async def logs(
        self, namespace: str, pod: str, container: str, *, previous: bool, tail_lines: int
    ) -> str:
        raise NotImplementedError


def pod(name: str, gpus: str = "1", **status: Json) -> dict[str, Json]:
    started = (NOW - timedelta(days=1)).isoformat()
    running: Json = {"name": "main", "state": {"running": {"startedAt": started}}}
    limits: Json = {"nvidia.com/gpu": gpus} if gpus else {}
    return {
        "metadata": {"name": name, "namespace": "research", "uid": name},
        "spec": {"nodeName": "gpu-1", "containers": [{"resources": {"limits": limits}}]},
        "status": {"phase": "Running", "containerStatuses": [running], **status},
    }


def past(*points: tuple[float, float], **labels: str) -> Series:
    """Give a series of (minutes ago, value)."""
    return Series(
        {**SERIES, **labels}, [((NOW - timedelta(minutes=m)).timestamp(), v) for m, v in points]
    )


def logged(code: int, *, ago: float = 1, pci: str = "0000:3b:00", **more: Json) -> Object:
    at = (NOW - timedelta(minutes=ago)).isoformat()
    message = f"NVRM: Xid (PCI:{pci}): {code}, pid='<unknown>', name=<unknown>, and more"
    return {"message": message, "firstTimestamp": at, "lastTimestamp": at, **more}


def alert(**labels: str) -> Alert:
    given = {"alertname": "GpuXidError", **(labels or SERIES)}
    return Alert.model_validate(
        {
            "id": "a", "cluster": "c", "fingerprint": "f", "status": "firing",
            "starts_at": NOW - timedelta(minutes=1), "labels": given, "received_at": NOW,
        }
    )  # fmt: skip


async def facts(world: World, *alerts: Alert) -> dict[str, Json]:
    sight = await Gpu(world, world, lambda: NOW).look(alerts or [alert()], Notebook(lambda: NOW))
    return sight.facts


async def decided(gpu: dict[str, Json], controlled_by: str = "ReplicaSet") -> tuple[str, str]:
    """Give what the playbook answers, and why."""
    node: Json = {"name": "gpu-1", "ready": True}
    known: dict[str, Json] = {
        "gpu": gpu, "node": node, "pod": {"controlled_by": controlled_by},
        "resolution": {"ambiguous": False},
    }  # fmt: skip
    case = Case("i", 1, "c", True, "node gpu-1", [alert()])
    choice = await BOOKS.decide(Findings(case, known, {}, []))
    assert "could not be followed" not in choice.reason
    if choice.answer is Answer.ACT:
        return choice.action, choice.reason
    return choice.answer.value, choice.reason


def gauge(code: float, *, ago: float = 10) -> World:
    return World([past((60, 0), (ago + 1, 0), (ago, code), (0, code))])


# --- the catalogue ------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "bucket"), catalogue())
async def test_every_code_is_answered_as_the_catalogue_says(code: int, bucket: str) -> None:
    wanted = BUCKETS.get(bucket, DETAILS.get(code, "escalate"))
    by_metrics = await facts(gauge(code))
    world = World()
    world.events = [logged(code)]
    by_log = await facts(world)
    for found in (by_metrics, by_log):
        answer, reason = await decided(found)
        assert f"Xid {code} (" in reason
        assert answer == ANSWERS[wanted]
        assert found["unclear"] == ""
    assert by_metrics["remedy"] == by_log["remedy"] == REMEDIES[wanted]
    assert by_metrics["device"] == by_log["device"] == "0000:3b:00"


REMEDIES = {
    "nothing": "nothing", "restart-pod": "restart_application", "drain": "drain_and_reset",
    "replace": "replace_node", "escalate": "escalate",
}  # fmt: skip
ANSWERS = {
    "nothing": "nothing", "restart-pod": "restart-pod", "drain": "cordon-drain-node",
    "replace": "replace-gpu-node", "escalate": "escalate",
}  # fmt: skip


@pytest.mark.parametrize("code", [173, 999, 31.5])
async def test_what_the_catalogue_does_not_have_escalates(code: float) -> None:
    answer, reason = await decided(await facts(gauge(code)))
    assert answer == "escalate"
    assert "not in the catalogue" in reason


async def test_a_human_is_told_what_nvidia_says() -> None:
    _, reason = await decided(await facts(gauge(79)))
    assert "Xid 79 ROBUST_CHANNEL_GPU_HAS_FALLEN_OFF_THE_BUS: RESTART_BM" in reason


# --- what counts as an Xid ----------------------------------------------------------------------


async def test_the_gauge_tells_changes_and_keeps_the_last_code() -> None:
    found = await facts(World([past((600, 0), (500, 43), (400, 43), (300, 0), (0, 0))]))
    assert (found["remedy"], found["seen"], found["minutes"]) == ("nothing", [43], 500.0)
    one_fault = World([past((60, 0), (50, 31), (40, 31), (30, 31), (0, 31))])
    assert (await facts(one_fault))["remedy"] == "restart_application"
    # Another pod uses it since: the same sample bears other labels, and no new Xid.
    moved = World([past((60, 0), (50, 31), pod="a"), past((30, 31), (0, 31), pod="train")])
    assert (await facts(moved))["minutes"] == 50.0


@pytest.mark.parametrize(
    ("ago", "remedy"),
    [((50, 25, 1), "drain_and_reset"), ((50, 1), "restart_application"),
     ((12, 6, 1), "restart_application")],
)  # fmt: skip
async def test_the_count_tells_repeats(ago: tuple[float, ...], remedy: str) -> None:
    points: list[tuple[float, float]] = [(60, 0)]
    for minutes in ago:
        points += [(minutes, 1), (minutes - 0.5, 0)]
    found = await facts(World([past((60, 31), (0, 31))], [past(*points, xid="31")]))
    assert found["remedy"] == remedy


async def test_the_kernels_log_and_prometheus_are_about_one_device() -> None:
    world = gauge(31, ago=20)
    world.events = [logged(48, ago=5)]
    found = await facts(world)
    assert (found["remedy"], found["codes"], found["seen"]) == ("drain_and_reset", [48], [31, 48])


async def test_what_another_gpu_has_does_not_count() -> None:
    lost = past((60, 0), (5, 79), (0, 79), UUID=OTHER, pci_bus_id="00000000:9B:00.0", gpu="1")
    world = World([*gauge(31).series["DCGM_FI_DEV_XID_ERRORS"], lost])
    assert (await facts(world))["remedy"] == "restart_application"
    assert (await facts(world, alert(Hostname="gpu-1", gpu="1")))["remedy"] == "replace_node"
    both = await facts(world, alert(Hostname="gpu-1"))
    assert (both["remedy"], both["ill"]) == ("replace_node", 2)


async def test_who_exports_series_in_the_name_of_a_node_does_not_drain_it() -> None:
    """A pod whose metrics are scraped can write any label but those of the scrape itself."""
    genuine = past((60, 0), (0, 0), instance="10.0.0.9:9400")
    forged = past((60, 0), (5, 79), (0, 79), instance="10.4.2.2:8080")
    found = await facts(World([genuine, forged]))
    answer, reason = await decided(found)
    assert answer == "escalate"
    assert "several exporters" in reason
    assert "10.0.0.9, 10.4.2.2" in reason
    # The kernel's own word is believed beside them, and one exporter after the other is a restart.
    world = World([genuine, forged])
    world.events = [logged(79)]
    assert (await decided(await facts(world)))[0] == "replace-gpu-node"
    before = past((60, 0), (30, 0), instance="10.0.0.9:9400")
    after = past((20, 0), (5, 79), (0, 79), instance="10.0.0.10:9400")
    assert (await decided(await facts(World([before, after]))))[0] == "replace-gpu-node"


async def test_a_kernels_address_that_fits_no_uuid_is_unclear() -> None:
    nameless = past((60, 0), (5, 31), (0, 31), pci_bus_id="")
    world = World([nameless, past((60, 0), (0, 0), pci_bus_id="", UUID=OTHER, gpu="1")])
    world.events = [logged(79)]
    found = await facts(world)
    assert "may be the same one" in str(found["unclear"])
    assert (await decided(found))[0] == "escalate"
    # With one GPU on the node there is no doubt.
    world.series["DCGM_FI_DEV_XID_ERRORS"] = [nameless]
    assert (await facts(world))["remedy"] == "replace_node"


async def test_a_reboot_answers_what_was_before_it() -> None:
    world = gauge(79, ago=30)
    world.events = [{"reason": "Rebooted", "message": "boot id", "lastTimestamp": (NOW -
                     timedelta(minutes=20)).isoformat()}, logged(31)]  # fmt: skip
    assert (await facts(world))["remedy"] == "restart_application"
    world.events = [logged(31)]
    assert (await facts(world))["remedy"] == "replace_node"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("changed from 0x0 (None) to 0x1 (GPU Reset Required)", "drain_and_reset"),
        ("changed from 0x0 (None) to 0x2 (Node Reboot Required)", "replace_node"),
        ("changed from 0x2 (Node Reboot Required) to 0x0 (None)", "nothing"),
        ("changed from 0x0 (None) to 0x9 (Dance)", "escalate"),
    ],
)
async def test_xid_154_asks_for_what_its_text_says(text: str, remedy: str) -> None:
    world = World()
    line = f"NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action {text}"
    world.events = [{**logged(154), "message": line}]
    assert (await facts(world))["remedy"] == remedy


async def test_events_that_kubernetes_has_joined_hide_repeats() -> None:
    world = World()
    early = (NOW - timedelta(hours=5)).isoformat()
    world.events = [logged(31, count=9, firstTimestamp=early)]
    found = await facts(world)
    assert "logged 9 times in 299 min" in str(found["unclear"])
    world.events = [logged(31, count=9)]
    assert (await facts(world))["unclear"] == ""
    joined = logged(31)
    words = f"(combined from similar events): {joined['message']}"
    world.events = [{**joined, "message": words, "count": 4}]
    assert "combined" in str((await facts(world))["unclear"])
    assert (await decided(await facts(world)))[0] == "escalate"


async def test_an_alert_that_names_a_code_counts_where_nothing_else_does() -> None:
    """It is heard, and a human is told; whoever writes labels replaces no node."""
    found = await facts(World(), alert(node="gpu-1", xid="79"))
    assert found["remedy"] == "replace_node"
    answer, reason = await decided(found)
    assert answer == "escalate"
    assert "only the alert's own labels tell of it" in reason
    assert "Xid 79" in reason
    world = World()
    world.events = [logged(79)]
    assert (await decided(await facts(world, alert(node="gpu-1", xid="79"))))[0] == (
        "replace-gpu-node"
    )
    assert (await facts(World(), alert(node="gpu-1", xid="bus")))["remedy"] == "escalate"


# --- what is missing ----------------------------------------------------------------------------


async def test_no_xid_at_all_goes_to_a_human() -> None:
    for world in (World(), World([past((60, 0), (0, 0))])):
        found = await facts(world)
        assert "nothing tells of an Xid" in str(found["unclear"])
        assert (await decided(found))[0] == "escalate"


async def test_alerts_of_two_nodes_or_of_none_go_to_a_human() -> None:
    two = await facts(gauge(31), alert(Hostname="gpu-1"), alert(Hostname="gpu-2"))
    assert "do not name one node: gpu-1, gpu-2" in str(two["unclear"])
    none = await facts(gauge(31), alert(UUID=UUID))
    assert "do not name one node: none" in str(none["unclear"])


async def test_an_alert_that_is_not_about_a_gpu_asks_nothing() -> None:
    other = alert(namespace="shop", pod="cart-1").model_copy(
        update={"labels": {"alertname": "KubePodNotReady", "namespace": "shop", "pod": "cart-1"}}
    )
    world = gauge(31)
    assert await facts(world, other) == {}
    assert world.asked == []


# --- who used it --------------------------------------------------------------------------------


async def test_the_pod_that_used_it_is_named_by_the_series_never_the_exporter() -> None:
    exporter = pod("nvidia-dcgm-exporter-x2x4q", gpus="")
    own = {"pod": "nvidia-dcgm-exporter-x2x4q", "namespace": "gpu-operator"}
    exported = {"exported_pod": "train", "exported_namespace": "research"}
    world = World([past((60, 0), (1, 31), (0, 31), **own, **exported)])
    world.pods = [exporter, pod("train"), pod("other")]
    assert (await facts(world))["user"] == "research/train"
    unknown = World([past((60, 0), (1, 31), (0, 31), **own)])
    unknown.pods = world.pods
    found = await facts(unknown)
    assert (found["user"], found["users"]) == ("", 2)
    assert (await decided(found))[0] == "escalate"
    sight = await Gpu(world, world, lambda: NOW).look([alert(**own, **SERIES)], _book())
    assert sight.alerts[0].labels == {
        "alertname": "GpuXidError", "node": "gpu-1", "namespace": "research", "pod": "train",
    }  # fmt: skip


async def test_an_application_that_began_anew_is_left_alone() -> None:
    world = gauge(31, ago=10)
    world.pods = [pod("train")]
    assert (await decided(await facts(world)))[0] == "restart-pod"
    later = (NOW - timedelta(minutes=5)).isoformat()
    restarted: Json = {"name": "main", "state": {"running": {"startedAt": later}}}
    world.pods = [pod("train", containerStatuses=[restarted])]
    assert (await decided(await facts(world)))[0] == "nothing"
    world.pods = []
    answer, reason = await decided(await facts(world))
    assert (answer, "is gone" in reason) == ("nothing", True)


async def test_what_is_older_than_the_history_is_not_restarted() -> None:
    found = await facts(World([past((1440, 31), (0, 31))]))
    assert (found["remedy"], found["dated"]) == ("restart_application", False)
    assert (await decided(found))[0] == "escalate"


async def test_a_pod_without_a_controller_is_not_restarted() -> None:
    assert (await decided(await facts(gauge(31)), controlled_by=""))[0] == "escalate"


# --- labels -------------------------------------------------------------------------------------


def test_labels_are_read_as_the_exporters_write_them() -> None:
    assert about_gpu({"alertname": "NodeXIDError"})
    assert about_gpu({"alertname": "Hot", "UUID": UUID})
    assert not about_gpu({"alertname": "KubeNodeNotReady", "node": "gpu-1", "uuid": "1-2"})
    assert node_of({"node": "a", "Hostname": "b"}) == "a"
    assert device_of({"node": "a"}) is None
    assert user_of({"pod": "dcgm-exporter-1", "namespace": "x"}) is None
    assert from_events([{"message": "NVRM: Xid without a number"}], "gpu-1").found == []


def _book() -> Notebook:
    return Notebook(lambda: NOW)


def test_gpu_facts_has_one_shape() -> None:
    from tiphys.agents.fact_list import FACTS
    from tiphys.agents.gpu_facts import unclear

    listed = {fact.removeprefix("gpu.") for fact in FACTS if fact.startswith("gpu.")}
    assert set(unclear("n", "why")) == listed
    assert callable(gpu_facts)
