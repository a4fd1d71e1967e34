"""Starts the whole cluster in its order, or finds it running."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.cluster import (
    argo,
    builds,
    cluster_api,
    control_plane,
    dns,
    images,
    machine,
    network,
    node,
    project,
)
from tools.cluster.certs import Certificates
from tools.cluster.down import note_absent, take_down
from tools.cluster.paths import NODE_IP, Cache
from tools.cluster.processes import Daemon, is_alive, run, wait_for
from tools.cluster.report import Trouble, say, step
from tools.cluster.target import KUBECONFIG

_ATTEMPTS = 3


def read_state(cache: Cache) -> dict[str, Any] | None:
    """Return what the last finished `up` wrote down."""
    try:
        return json.loads(cache.state.read_text())
    except (OSError, ValueError):
        return None


def is_running(cache: Cache, seconds: float = 90) -> bool:
    """Tell whether every process lives and the node is Ready.

    A cluster whose processes all live is given time to answer: a busy machine is not a broken one,
    and replacing it would take away what its users have in it.
    """
    state = read_state(cache)
    if state is None or not all(map(is_alive, state["pids"].values())):
        return False
    api = control_plane.Api(Certificates(cache.run / "pki"))
    deadline = time.monotonic() + seconds
    while not (api.ready() and node.is_ready(api)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


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


def prepare(cache: Cache) -> tuple[dict[str, Path], dict[str, Path]]:
    """Have every binary (name -> path) and the cluster's images (reference -> archive)."""
    base = _Aside(lambda: images.test_base(cache))
    bins = builds.ensure(cache, builds.PROGRAMS)
    archives = images.scratch_images(cache, bins)
    base.finish(900)
    archives[images.TEST_BASE] = images.test_base(cache)
    return bins, archives


def apply(
    cache: Cache, bins: Mapping[str, Path], manifests: list[dict[str, Any]], *files: Path
) -> None:
    """Server-side apply, as the administrator; again when a busy API server took too long."""
    named = [part for path in files for part in ("-f", str(path))]
    command: list[str | Path] = [
        *(bins["kubectl"], f"--kubeconfig={cache.kubeconfig}"),
        *(f"--cache-dir={cache.run / 'kubectl-cache'}", "apply", "--server-side"),
        *("--force-conflicts", "--field-manager=tiphys-test-cluster", *named, "-f", "-"),
    ]
    text = yaml.safe_dump_all(manifests)
    for _ in range(_ATTEMPTS - 1):
        try:
            run(command, stdin=text, seconds=180)
        except Trouble as trouble:
            if "Timeout" not in str(trouble):
                raise
        else:
            return
    run(command, stdin=text, seconds=180)


class _Start:
    """One start of everything, in its order."""

    def __init__(self, cache: Cache, bins: dict[str, Path], certificates: Certificates) -> None:
        self.cache = cache
        self.bins = bins
        self.certificates = certificates
        self.api = control_plane.Api(certificates)
        self.daemons: dict[str, Daemon] = {}

    def _started(self, *daemons: Daemon) -> Daemon:
        self.daemons |= {daemon.name: daemon for daemon in daemons}
        return daemons[0]

    def run(self, archives: Mapping[str, Path], extra: Mapping[str, Path]) -> None:
        """Start all parts; `extra` images may arrive last."""
        with step("etcd and API server ready"):
            self._started(control_plane.start_etcd(self.cache, self.bins))
            parts = (self.cache, self.bins, self.certificates)
            server = self._started(control_plane.start_apiserver(*parts))
            runtime = _Aside(lambda: self._runtime(archives))
            wait_for("/readyz of the API server", self.api.ready, server, 120)
        self._started(*control_plane.start_controllers(*parts))
        self._started(node.start_kube_proxy(*parts))
        with step("cluster objects, Argo's CRDs and Cluster API's applied"):
            made = [*dns.manifests(), *cluster_api.manifests()]
            apply(self.cache, self.bins, made, *argo.crd_files(self.cache))
        self._started(dns.start_coredns(*parts))
        runtime.finish(300)
        late = _Aside(lambda: self._import(extra))
        kubelet = self._started(node.start_kubelet(*parts))
        with step("Argo Workflows applied"):
            served = "the API of Argo's objects"
            wait_for(served, lambda: argo.is_served(self.api), server, 60)
            apply(self.cache, self.bins, argo.manifests())
        with step("node, CoreDNS and Argo's controller ready"):
            wait_for("a Ready node", lambda: node.is_ready(self.api), kubelet, 120)
            wait_for("CoreDNS", dns.is_ready, self.daemons["coredns"])
            wait_for("Argo's controller", lambda: argo.is_ready(self.api), kubelet, 120)
        late.finish(600)

    def _runtime(self, archives: Mapping[str, Path]) -> None:
        with step("containerd ready, its images imported"):
            self._started(node.start_containerd(self.cache))
            images.import_all(self.cache, archives.values())

    def _import(self, extra: Mapping[str, Path]) -> None:
        if extra:
            with step("the project's images imported"):
                images.import_all(self.cache, extra.values())


def _write(cache: Cache, state: dict[str, Any]) -> None:
    partial = cache.state.with_suffix(".partial")
    partial.write_text(json.dumps(state, indent=1) + "\n")
    partial.rename(cache.state)


def _refresh(cache: Cache) -> None:
    """Give the running cluster the project's images when their sources have changed."""
    state = read_state(cache)
    if state is None:
        raise Trouble("the cluster is not running")
    archives = project.ensure(cache)
    given: dict[str, str] = state.setdefault("archives", {})
    changed = {r: p for r, p in archives.items() if given.get(r) != p.name}
    if not changed:
        return
    for archive in changed.values():
        images.import_one(cache, archive)
    state["images"] |= {_short_name(reference): reference for reference in changed}
    given |= {reference: path.name for reference, path in changed.items()}
    _write(cache, state)


def _short_name(reference: str) -> str:
    return reference.rpartition("/")[2].partition(":")[0]


def up(cache: Cache, *, with_project: bool = True) -> None:
    """Build what is missing and start; a running cluster is left alone, a broken one replaced."""
    if is_running(cache):
        if with_project:
            _refresh(cache)
        say(f"running: export {KUBECONFIG}={cache.kubeconfig}")
        return
    machine.check()
    bins, archives = prepare(cache)
    extra = project.ensure(cache) if with_project else {}
    if take_down(cache):
        say("removed what an earlier start had left")
    machine.check_ports()
    cache.run.mkdir(parents=True)
    cache.run.chmod(0o711)
    note_absent(cache.run)
    with step("network, certificates"):
        network.bring_up(cache)
        certificates = Certificates(cache.run / "pki")
        certificates.make()
        certificates.kubeconfig("admin", cache.kubeconfig)
    start = _Start(cache, bins, certificates)
    start.run(archives, extra)
    references = [images.TEST_BASE, *extra]
    state = {
        "kubeconfig": str(cache.kubeconfig),
        "node_ip": NODE_IP,
        "bin": {name: str(path) for name, path in bins.items()},
        "images": {_short_name(reference): reference for reference in references},
        "argo_executor_image": images.ARGO_EXECUTOR,
        "pids": {name: daemon.pid for name, daemon in start.daemons.items()},
        "archives": {reference: path.name for reference, path in (archives | extra).items()},
    }
    _write(cache, state)
    say(f"up: export {KUBECONFIG}={cache.kubeconfig}")
