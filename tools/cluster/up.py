"""Starts the whole cluster in its order, or finds it running."""

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.cluster import argo, builds, control_plane, dns, images, machine, network, node
from tools.cluster.certs import Certificates
from tools.cluster.down import note_absent, take_down
from tools.cluster.paths import NODE_IP, Cache
from tools.cluster.processes import Daemon, is_alive, run, wait_for
from tools.cluster.report import Trouble, say, step


def is_running(cache: Cache) -> bool:
    """Tell whether every process lives and the node is Ready."""
    try:
        state = json.loads(cache.state.read_text())
    except (OSError, ValueError):
        return False
    if not all(map(is_alive, state["pids"].values())):
        return False
    api = control_plane.Api(Certificates(cache.run / "pki"))
    return api.ready() and node.is_ready(api)


class _Aside(threading.Thread):
    """Work beside the main thread whose failure surfaces where it is joined."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as failure:
            self._failure = failure

    def finish(self, seconds: float) -> None:
        """Wait for the end and raise what went wrong."""
        self.join(seconds)
        if self.is_alive():
            raise Trouble(f"work beside the start did not end within {seconds:.0f} s")
        if self._failure:
            raise self._failure


def _prepare(cache: Cache) -> tuple[dict[str, Path], dict[str, Path]]:
    """Have every binary and image: name -> path, reference -> archive."""
    base = _Aside(lambda: images.test_base(cache))
    bins = builds.ensure(cache, builds.PROGRAMS)
    archives = images.scratch_images(cache, bins)
    base.finish(900)
    archives[images.TEST_BASE] = images.test_base(cache)
    return bins, archives


def apply(cache: Cache, bins: Mapping[str, Path], text: str, *files: Path) -> None:
    """Server-side apply, as the administrator."""
    named = [part for path in files for part in ("-f", str(path))]
    run(
        [bins["kubectl"], f"--kubeconfig={cache.kubeconfig}"]
        + [f"--cache-dir={cache.run / 'kubectl-cache'}", "apply", "--server-side"]
        + ["--force-conflicts", "--field-manager=tiphys-test-cluster", *named]
        + (["-f", "-"] if text else []),
        stdin=text or None,
        seconds=120,
    )


def _documents(manifests: list[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(manifests)


def _start(cache: Cache, bins: dict[str, Path], archives: dict[str, Path]) -> dict[str, Daemon]:
    """Start all parts; return them by name."""
    certificates = Certificates(cache.run / "pki")
    with step("network, certificates"):
        network.bring_up(cache)
        certificates.make()
        certificates.kubeconfig("admin", cache.kubeconfig)
    api = control_plane.Api(certificates)
    daemons: dict[str, Daemon] = {}

    def node_parts() -> None:
        with step("containerd, images imported"):
            daemons["containerd"] = node.start_containerd(cache)
            images.import_all(cache, archives.values())

    with step("etcd and API server ready"):
        daemons["etcd"] = control_plane.start_etcd(cache, bins)
        server = control_plane.start_apiserver(cache, bins, certificates)
        aside = _Aside(node_parts)
        daemons[server.name] = server
        wait_for("/readyz of the API server", api.ready, server, 120)
    for daemon in control_plane.start_controllers(cache, bins, certificates):
        daemons[daemon.name] = daemon
    daemons["kube-proxy"] = node.start_kube_proxy(cache, bins, certificates)
    with step("cluster objects and Argo's CRDs applied"):
        apply(cache, bins, _documents(dns.manifests()), *argo.crd_files(cache))
    daemons["coredns"] = dns.start_coredns(cache, bins, certificates)
    aside.finish(300)
    daemons["kubelet"] = node.start_kubelet(cache, bins, certificates)
    with step("Argo Workflows applied"):
        apply(cache, bins, _documents(argo.manifests()))
    with step("node Ready"):
        wait_for("a Ready node", lambda: node.is_ready(api), daemons["kubelet"], 120)
    with step("CoreDNS ready"):
        wait_for("CoreDNS", dns.is_ready, daemons["coredns"])
    with step("Argo's controller ready"):
        wait_for("Argo's controller", lambda: _argo_ready(api), daemons["kubelet"], 120)
    return daemons


def _argo_ready(api: control_plane.Api) -> bool:
    path = f"/apis/apps/v1/namespaces/{argo.NAMESPACE}/deployments/{argo.CONTROLLER}"
    found = api.read(path)
    return bool(found and found.get("status", {}).get("readyReplicas"))


def up(cache: Cache) -> None:
    """Build what is missing and start; a running cluster is left alone, a broken one replaced."""
    if is_running(cache):
        say(f"running already: export TIPHYS_TEST_KUBECONFIG={cache.kubeconfig}")
        return
    machine.check()
    bins, archives = _prepare(cache)
    if take_down(cache):
        say("removed what an earlier start had left")
    cache.run.mkdir(parents=True)
    cache.run.chmod(0o711)
    note_absent(cache.run)
    daemons = _start(cache, bins, archives)
    state = {
        "kubeconfig": str(cache.kubeconfig),
        "node_ip": NODE_IP,
        "bin": {name: str(path) for name, path in bins.items()},
        "images": {"test-base": images.TEST_BASE},
        "argo_executor_image": images.ARGO_EXECUTOR,
        "pids": {name: daemon.pid for name, daemon in daemons.items()},
    }
    partial = cache.state.with_suffix(".partial")
    partial.write_text(json.dumps(state, indent=1) + "\n")
    partial.rename(cache.state)
    say(f"the cluster is up: {cache.kubeconfig}")
