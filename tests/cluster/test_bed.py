"""The test cluster itself: what pods see of it, and that taking it down leaves nothing.

The second half starts one more cluster in namespaces of its own (network, mounts, processes), so
that the running one is not touched; when those end, the kernel ends all that was in them.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.cluster.paths import BRIDGE, CHECKOUT, NODE, SERVICE_DNS, Cache
from tools.cluster.report import Trouble
from tools.cluster.target import Target, wait_until

ASK = """
import socket, ssl, time, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount"
def tried(ask, seconds=30):
    until = time.time() + seconds
    while True:
        try:
            return ask()
        except OSError as error:
            if time.time() > until:
                return f"{type(error).__name__}: {error}"
            time.sleep(0.2)
trusted = ssl.create_default_context(cafile=account + "/ca.crt")
token = {"Authorization": "Bearer " + open(account + "/token").read()}
api = urllib.request.Request("https://kubernetes.default.svc/version", headers=token)
print(tried(lambda: socket.gethostbyname("kubernetes.default.svc.cluster.local")))
print(tried(lambda: urllib.request.urlopen(api, context=trusted, timeout=5).status))
print(tried(lambda: urllib.request.urlopen("http://web/", timeout=5).status))
began = time.time()
print(tried(lambda: socket.gethostbyname("example.invalid"), 0).split(":")[0])
print(time.time() - began < 3)
"""
TASKS = "io.containerd.runtime.v2.task/k8s.io"
ISOLATED = ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child")


def pod(name: str, command: list[str], image: str) -> dict[str, object]:
    container = {"name": "main", "image": image, "imagePullPolicy": "Never", "command": command}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "restartPolicy": "Never"},
    }


def test_pods_reach_services_the_api_server_and_dns(cluster: Target, namespace: str) -> None:
    image = cluster.images["test-base"]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    made = (
        service,
        pod("web", ["python3", "-m", "http.server", "8000"], image),
        pod("client", ["python3", "-c", ASK], image),
    )
    text = "\n---\n".join(map(json.dumps, made))
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=text)
    done = "jsonpath={.status.phase}=Succeeded"
    cluster.kubectl(
        *("-n", namespace, "wait", "--for", done, "pod/client", "--timeout=120s"), seconds=150
    )
    address, api, web, unknown, quick = cluster.kubectl("-n", namespace, "logs", "client").split()
    assert (api, web, unknown, quick) == ("200", "200", "gaierror", "True")
    if cluster.own:
        assert address == "10.96.0.1"
        resolver = cluster.kubectl("-n", namespace, "exec", "web", "--", "cat", "/etc/resolv.conf")
        assert f"nameserver {SERVICE_DNS}" in resolver


def test_a_token_is_nobody_else(cluster: Target, namespace: str, tmp_path: Path) -> None:
    config = cluster.kubeconfig_for(cluster.token(namespace, "default"), tmp_path / "config")
    asked = subprocess.run(
        [cluster.bin["kubectl"], f"--kubeconfig={config}", "auth", "whoami", "-o", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    user = json.loads(asked.stdout)["status"]["userInfo"]["username"]
    assert user == f"system:serviceaccount:{namespace}:default"


def test_the_kubelet_may_not_read_what_its_node_does_not_run(
    cluster: Target, namespace: str
) -> None:
    """Node authorisation: https://kubernetes.io/docs/reference/access-authn-authz/node/."""
    cluster.kubectl("-n", namespace, "create", "secret", "generic", "one", "--from-literal=a=b")
    who = [f"--as=system:node:{NODE}", "--as-group=system:nodes"]
    asked = subprocess.run(
        [
            *(cluster.bin["kubectl"], f"--kubeconfig={cluster.kubeconfig}", *who),
            *("-n", namespace, "auth", "can-i", "get", "secret/one"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.stdout.startswith("no"), asked.stdout


def test_a_workflow_that_brings_its_own_template_never_runs(cluster: Target) -> None:
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {
            "generateName": "bed-own-",
            "namespace": "tiphys-actions",
            "labels": {"workflows.argoproj.io/controller-instanceid": "tiphys"},
        },
        "spec": {"entrypoint": "a", "templates": [{"name": "a", "suspend": {}}]},
    }
    words = ("create", "-o", "jsonpath={.metadata.name}", "-f", "-")
    try:
        made = cluster.kubectl(*words, stdin=json.dumps(workflow))
    except Trouble as refused:
        # With the chart installed the API server says so before Argo sees it.
        if "ValidatingAdmissionPolicy" in str(refused):
            return
        raise
    name = f"workflow/{made}"
    try:
        ended = "jsonpath={.status.phase}=Error"
        cluster.kubectl("-n", "tiphys-actions", "wait", "--for", ended, name, "--timeout=60s")
        phrase = "jsonpath={.status.message}"
        said = cluster.kubectl("-n", "tiphys-actions", "get", name, "-o", phrase)
        assert "must use workflowTemplateRef" in said
    finally:
        cluster.kubectl("-n", "tiphys-actions", "delete", name)


def test_up_on_a_running_cluster_is_quick_and_changes_nothing(cluster: Target) -> None:
    if not cluster.own:
        pytest.skip("another cluster is tested")
    before = Cache.default().state.read_bytes()
    began = time.monotonic()
    again = subprocess.run(
        [sys.executable, "-m", "tools.cluster", "up", "--without-project"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert time.monotonic() - began < 3 * 3, "three times what is promised, for a busy machine"
    assert "running" in again.stdout
    assert Cache.default().state.read_bytes() == before


# --- taking it down ------------------------------------------------------------------------------

SNAPSHOT = """
ip -br link | cut -d@ -f1 | awk '{print "link", $1}'
ip -4 route | sed 's/^/route /'
iptables-save | grep -v -e '^[#:*]' -e '^COMMIT'; ip6tables-save | grep -v -e '^[#:*]' -e '^COMMIT'
awk '{print "mount", $5}' /proc/self/mountinfo | grep "$TIPHYS_CLUSTER_CACHE" || true
find /run /var/lib /var/log -mindepth 1
cat /proc/sys/net/ipv4/ip_forward
ps -e -o comm= | grep -v -x -e ps -e grep -e sort -e bash | sort
"""
OWN_FOLDERS = """
for folder in /run /var/lib /var/log; do mount -t tmpfs own $folder; done
ip link set lo up
"""


def _elsewhere() -> dict[str, str]:
    """Give our environment but for the name of a cluster that is not this one."""
    return {k: v for k, v in os.environ.items() if k != "TIPHYS_TEST_KUBECONFIG"}


def isolated(folder: Path, script: str) -> subprocess.Popen[str]:
    """Run a script with network, mounts and processes of its own, and the real cache's binaries."""
    folder.mkdir(exist_ok=True)
    for name in ("bin", "images", "src"):
        (folder / name).symlink_to(Cache.default().root / name)
    return subprocess.Popen(
        [*ISOLATED, "bash", "-euc", OWN_FOLDERS + script],
        cwd=CHECKOUT,
        env={**_elsewhere(), "TIPHYS_CLUSTER_CACHE": str(folder), "PYTHON": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("killed_after", ["containerd.sock", "kubelet.yaml", "cluster.json"])
@pytest.mark.timeout(400)
def test_down_leaves_nothing_of_a_start_killed_anywhere(tmp_path: Path, killed_after: str) -> None:
    """`up` is killed by SIGKILL once the named file is there; the last one is its very end."""
    if os.geteuid() or not shutil.which("unshare") or not (Cache.default().bin).is_dir():
        pytest.skip("needs root, and the binaries of `make cluster-up`")
    # Not below tmp_path: the name of a socket has at most 107 characters.
    folder = Path("/var/tmp") / f"tiphys-bed-{os.getpid()}-{killed_after}"
    (tmp_path / "snapshot.sh").write_text(SNAPSHOT)
    script = f"""
        bash {tmp_path}/snapshot.sh > {tmp_path}/before
        $PYTHON -m tools.cluster up --without-project &
        for i in $(seq 3000); do
            [ ! -e {folder}/run/{killed_after} ] || break
            kill -0 $! || exit 7
            sleep 0.1
        done
        kill -9 $! || true
        wait $! || true
        bash {tmp_path}/snapshot.sh > {tmp_path}/between
        ls {folder}/run/containerd/state/{TASKS} > {tmp_path}/containers || true
        $PYTHON -m tools.cluster down
        bash {tmp_path}/snapshot.sh > {tmp_path}/after
        $PYTHON -m tools.cluster down
    """
    started = isolated(folder, script)
    try:
        said = started.communicate(timeout=360)[0]
        assert started.returncode == 0, said
        assert said.rstrip().endswith("nothing was running")
        before, between, after = (
            (tmp_path / name).read_text().splitlines() for name in ("before", "between", "after")
        )
        assert f"link {BRIDGE}" in between
        assert "etcd" in between
        assert after == before
        groups = {path.name for path in Path("/sys/fs/cgroup").glob("**/k8s.io/*")}
        assert groups.isdisjoint((tmp_path / "containers").read_text().split())
        assert not (folder / "run").exists()
        if killed_after == "cluster.json":
            assert any(line.startswith("-A KUBE-") for line in between)
            assert len((tmp_path / "containers").read_text().split()) >= 2
            assert (folder / "last-logs" / "kubelet.log").stat().st_size
    finally:
        started.kill()
        wait_until("the isolated cluster's end", lambda: started.poll() is not None)
        shutil.rmtree(folder, ignore_errors=True)
