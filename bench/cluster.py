"""What healing costs on a real cluster, against a person who is already typing.

Needs a test cluster (`make cluster-up`, or TIPHYS_TEST_KUBECONFIG) and installs the chart on it for
some ten minutes. With `--write` the figures go into docs/real-cluster.md as well.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "cluster" / "e2e"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "chart"))
sys.path.append(str(Path(__file__).resolve().parents[1]))

from bed import SYSTEM, Bed, made
from kills import kill_holder
from kubectl import Kubectl, wait
from people import record
from shop import Shop

from tools.cluster.report import Trouble
from tools.cluster.target import find

ROUNDS = 3
ACTIONS = "tiphys-actions"
PATIENCE = 300
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "real-cluster.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
LAUNCHER = f"system:serviceaccount:{SYSTEM}:tiphys-launcher"
Line = tuple[str, str]


class Pods:
    """The first moment that each Workflow's precheck was seen running or ended."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.seen: dict[str, datetime] = {}
        self._process = subprocess.Popen(
            [
                kubectl.binary, f"--kubeconfig={kubectl.kubeconfig}", "get", "pods", "-n", ACTIONS,
                "--watch", "--output-watch-events", "-o", "json",
            ],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the watch."""
        self._process.terminate()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout
        decoder, text = json.JSONDecoder(), ""
        for line in self._process.stdout:
            text += line
            with contextlib.suppress(ValueError):
                event, end = decoder.raw_decode(text.lstrip())
                text = text.lstrip()[end:]
                self._note(event["object"], datetime.now(UTC))

    def _note(self, pod: dict[str, Any], at: datetime) -> None:
        workflow = pod["metadata"].get("labels", {}).get("workflows.argoproj.io/workflow", "")
        for status in pod.get("status", {}).get("containerStatuses", []):
            begun = {"running", "terminated"} & set(status.get("state", {}))
            if status["name"] == "precheck" and begun and workflow:
                self.seen.setdefault(workflow, at)


@dataclass(frozen=True)
class Healed:
    """One incident's moments."""

    fired: datetime
    """Alertmanager was told: the rule's own wait is over."""
    opened: datetime
    intended: datetime
    running: datetime
    """The first step's container."""
    acted: datetime
    healthy: datetime
    workflow: str

    def without_argo(self) -> float:
        """Give the seconds from alert to healthy, but for the wait for the first step."""
        return self.seconds("fired", "healthy") - self.seconds("intended", "running")

    def seconds(self, begin: str, end: str) -> float:
        """Give the time between two moments."""
        return (getattr(self, end) - getattr(self, begin)).total_seconds()


def healthy(shop: Shop, deadline: float = PATIENCE) -> datetime:
    """Wait until the cart is as it was: two ready pods of one template, and no other pod."""

    def look() -> bool:
        found = shop.kubectl.get("deployment", "cart", shop.namespace)
        status = found["status"]
        counts = [status.get(name) for name in ("replicas", "updatedReplicas", "readyReplicas")]
        env = found["spec"]["template"]["spec"]["containers"][0]["env"]
        return (
            counts == [2, 2, 2]
            and env[0]["value"] == "1.7.3"
            and status["observedGeneration"] == found["metadata"]["generation"]
            and len(shop.kubectl.every("pods", shop.namespace)) == 2
        )

    wait(f"a healthy {shop.namespace}/cart", look, deadline)
    return datetime.now(UTC)


def broken(shop: Shop, kind: str) -> str:
    """Break the cart and wait until that shows; give the wedged pod's name."""
    if kind == "rollout-undo":
        shop.release_badly()
        wait("the bad release to show", lambda: _restarts(shop) > 0, PATIENCE)
        return ""
    pod = shop.wedge()
    wait("the wedged pod to show", lambda: _ready(shop) < 2, PATIENCE)
    return pod


def _ready(shop: Shop) -> int:
    found = shop.kubectl.get("deployment", "cart", shop.namespace)
    return int(found["status"].get("readyReplicas", 0))


def _restarts(shop: Shop) -> int:
    pods = shop.kubectl.every("pods", shop.namespace)
    return sum(s["restartCount"] for p in pods for s in p["status"].get("containerStatuses", []))


def by_hand(shop: Shop, kind: str) -> float:
    """Break it, run the right command at once, and give the seconds until it is healthy."""
    pod = broken(shop, kind)
    began = datetime.now(UTC)
    if kind == "rollout-undo":
        shop.kubectl("rollout", "undo", "deployment/cart", "-n", shop.namespace)
    else:
        shop.kubectl("delete", "pod", pod, "-n", shop.namespace)
    return (healthy(shop) - began).total_seconds()


def by_tiphys(bed: Bed, shop: Shop, kind: str, pods: Pods) -> Healed:
    """Break it and give the moments of its healing."""
    broken(shop, kind)
    subject = f"deployment {shop.namespace}/cart"
    bed.tiphys.wait_for(subject, ("launching", "running", "monitoring", "closed"), PATIENCE)
    well = healthy(shop)
    seen = bed.tiphys.wait_for(subject, ("monitoring", "closed", "escalated"), PATIENCE)
    view = bed.tiphys.view(seen["id"])
    assert view["incident"]["outcome"] == "verified", view["incident"]["reason"]
    steps = [r["body"]["step"] for r in view["timeline"] if r["event"] == "run_step"]
    acted = [s["finished_at"] for s in steps if s["step"] == "act" and s["finished_at"]]
    workflow = record(view, "workflow_created")["body"]["workflow"]
    return Healed(
        fired=min(datetime.fromisoformat(a["starts_at"]) for a in view["alerts"]),
        opened=datetime.fromisoformat(record(view, "incident_opened")["at"]),
        intended=datetime.fromisoformat(record(view, "launch_intended")["at"]),
        running=pods.seen[workflow],
        acted=datetime.fromisoformat(acted[0]),
        healthy=well,
        workflow=workflow,
    )


def created_by_hand(bed: Bed, workflow: str, pods: Pods, number: int) -> float:
    """Create a copy of a Workflow with kubectl and see its first step's container run.

    Nobody but the launcher may create one, so kubectl acts as it. The copy's name is not its
    plan's, so its precheck refuses as soon as it runs.
    """
    real = bed.kubectl.get("workflows.argoproj.io", workflow, ACTIONS)
    name = f"tiphys-{'a' * 39}{'abcdefgh'[number]}"
    meta = real["metadata"]
    copied = {
        "apiVersion": real["apiVersion"],
        "kind": real["kind"],
        "metadata": {
            "name": name,
            "namespace": ACTIONS,
            "labels": {
                k: v
                for k, v in meta["labels"].items()
                if not k.startswith("workflows.argoproj.io/") or "instanceid" in k
            },
        },
        "spec": real["spec"],
    }
    text = json.dumps(copied)
    began = datetime.now(UTC)
    bed.kubectl("create", "-f", "-", f"--as={LAUNCHER}", stdin=text)
    wait("the copy's first step", lambda: name in pods.seen, PATIENCE)

    def ended() -> bool:
        status = bed.kubectl.get("workflows.argoproj.io", name, ACTIONS).get("status", {})
        return status.get("phase") in {"Succeeded", "Failed", "Error"}

    # It holds the mutex of its target, which the next copy would wait for.
    wait("the copy's end", ended, PATIENCE)
    return (pods.seen[name] - began).total_seconds()


def at_rest(bed: Bed) -> list[Line]:
    """Give each role's memory and processor time, by the kubelet, over the last minute."""
    found: list[Line] = []
    for role in ("gateway", "agents", "launcher", "nats"):
        chosen = f'{{namespace="{SYSTEM}",pod=~"tiphys-{role}-.*"}}'
        memory = bed.query(f"max(container_memory_working_set_bytes{chosen})")
        cpu = bed.query(f"max(rate(container_cpu_usage_seconds_total{chosen}[1m]))")
        mebibytes = float(memory[0]["value"][1]) / 2**20
        millicores = 1000 * float(cpu[0]["value"][1])
        found.append((f"one {role} at rest", f"{mebibytes:.0f} MiB, {millicores:.0f} m CPU"))
    return found


def compared(ours: Sequence[float], theirs: Sequence[float], aim: str = "") -> str:
    """Write two medians and their ratio."""
    mine, baseline = statistics.median(ours), statistics.median(theirs)
    wanted = f"; aim: {aim}" if aim else ""
    return f"{mine / baseline:.2f} x ({mine:.1f} s against {baseline:.1f} s{wanted})"


def measure(bed: Bed, shops: dict[str, Shop]) -> list[Line]:
    """Measure everything, one thing at a time."""
    time.sleep(60)  # at rest means that nothing happened for the minute that is looked at
    lines = at_rest(bed)
    pods = Pods(bed.kubectl)
    try:
        every: list[Healed] = []
        for kind in ("restart-pod", "rollout-undo"):
            spare = shops[f"{kind}-hand"]
            hand = [by_hand(spare, kind) for _ in range(ROUNDS)]
            healed = [by_tiphys(bed, shops[f"{kind}-{n}"], kind, pods) for n in range(ROUNDS)]
            every += healed
            ours = [one.seconds("fired", "healthy") for one in healed]
            lines.append((f"{kind}, alert to healthy", compared(ours, hand, "1.5 x")))
            without = [one.without_argo() for one in healed]
            lines.append((f"{kind}, without Argo and the pod's start", compared(without, hand)))
            lines += shares(healed)
        copies = [created_by_hand(bed, every[0].workflow, pods, n) for n in range(2 * ROUNDS)]
        starts = [one.seconds("intended", "running") for one in every]
        lines.append(("decision to the first step's container", compared(starts, copies, "1.2 x")))
    finally:
        pods.close()
    lines.append(("a launcher killed while it watched", taken_over(bed, shops["kill"])))
    return lines


def shares(healed: Sequence[Healed]) -> list[Line]:
    """Say where the seconds went."""
    parts = (
        ("Alertmanager and intake", "fired", "opened"),
        ("investigation, gate, intent", "opened", "intended"),
        ("Argo and the pod's start", "intended", "running"),
        ("precheck and act", "running", "acted"),
        ("the workload itself", "acted", "healthy"),
    )
    return [
        (f"  of that: {name}", f"{statistics.median(h.seconds(*between) for h in healed):.1f} s")
        for name, *between in parts
    ]


def taken_over(bed: Bed, shop: Shop) -> str:
    """Kill the launcher that watches a run; see another take it over, and the run verified."""
    subject = f"deployment {shop.namespace}/cart"
    shop.wedge()
    death = kill_holder(bed, subject, "running", PATIENCE)
    seen = bed.tiphys.wait_for(subject, ("monitoring", "closed", "escalated"), PATIENCE)
    return f"taken over after {death.taken_over:.1f} s (aim: 30 s), outcome {seen['outcome']}"


@contextlib.contextmanager
def installed() -> Iterator[tuple[Bed, dict[str, Shop]]]:
    """Install for a handful of shops, and remove everything afterwards."""
    target = find()
    kubectl = Kubectl(target.bin["kubectl"], target.kubeconfig)
    names = [
        f"{kind}-{which}"
        for kind in ("restart-pod", "rollout-undo")
        for which in ("hand", *map(str, range(ROUNDS)))
    ]
    shops = {
        name: Shop(kubectl, f"e2e-bench-{name}", target.images["test-base"])
        for name in (*names, "kill")
    }
    # Nobody but the person with kubectl works in these.
    own = [shop.namespace for name, shop in shops.items() if not name.endswith("-hand")]

    def settled() -> None:
        for shop in shops.values():
            shop.ready("cart")

    try:
        for shop in shops.values():
            shop.make_namespace()
            shop.deploy("cart")
        with tempfile.TemporaryDirectory(prefix="tiphys-bench-") as folder:
            for name, shop in shops.items():
                if name.endswith("-hand"):
                    kubectl("label", "namespace", shop.namespace, "tiphys.io/heal-")
            with made(target, Path(folder), own, settled) as bed:
                yield bed, shops
    finally:
        spaces = [shop.namespace for shop in shops.values()]
        kubectl("delete", "namespace", "--ignore-not-found", "--wait=false", *spaces)


def write(lines: Sequence[Line]) -> None:
    """Put the figures between the document's marks."""
    rows = ["| what | measured |", "|---|---|"]
    rows += [f"| {name.replace('  of that:', '&nbsp;&nbsp;')} | {value} |" for name, value in lines]
    text = DOCUMENT.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    DOCUMENT.write_text("\n".join([f"{before}{BEGIN}", *rows, f"{END}{after}"]))


def main() -> None:
    """Print every figure; with `--write`, keep them."""
    try:
        find()
    except Trouble as trouble:
        print(f"not measured; {trouble}")
        return
    with installed() as (bed, shops):
        lines = measure(bed, shops)
    for name, value in lines:
        print(f"{name}: {value}")
    if "--write" in sys.argv[1:]:
        write(lines)


if __name__ == "__main__":
    main()
