"""What the test cluster starts, finds and removes on the machine: its own and nothing else."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tools.cluster import __main__ as command
from tools.cluster import argo, machine, monitoring, network, processes
from tools.cluster.paths import Cache
from tools.cluster.processes import Home, is_alive
from tools.cluster.report import Trouble
from tools.cluster.target import find

ALIVE = "import time; time.sleep(600)"
SAVED = """*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ABC - [0:0]
:CNI-ef3b3c96177c9d1e771f6c0b - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 10.88.0.2/32 -j CNI-ef3b3c96177c9d1e771f6c0b
-A FORWARD -s 10.88.0.0/16 -m comment --comment tiphys-test-cluster -j ACCEPT
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-ABC
COMMIT"""


@pytest.fixture
def home(tmp_path: Path):
    """A folder that marks processes; whatever bears its mark ends with the test."""
    made = Home(tmp_path / "run", tmp_path / "logs")
    made.mark.mkdir()
    yield made
    processes.stop_all(made.mark)


def python(home: Home, name: str, code: str) -> processes.Daemon:
    return processes.start(home, name, [sys.executable, "-c", code])


def until(what: str, look, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.02)


def test_everything_of_a_cluster_ends_children_too_and_nothing_else_does(home: Home) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", ALIVE])
    try:
        # The child's own environment bears no mark, as a container's does not.
        child = f"subprocess.run([sys.executable, '-c', {ALIVE!r}], env={{}})"
        python(home, "parent", f"import subprocess, sys; {child}")
        python(home, "alone", ALIVE)
        until("three processes", lambda: len(processes.marked(home.mark)) == 3)
        found = processes.marked(home.mark)
        assert processes.stop_all(home.mark) == 3
        assert not any(map(is_alive, found))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_folder_with_a_longer_name_is_another_cluster(home: Home) -> None:
    daemon = python(home, "mine", ALIVE)
    # The kernel shows no environment of a process that is just being started.
    until("its mark", lambda: processes.marked(home.mark))
    assert processes.marked(home.mark) == {daemon.pid}
    assert processes.marked(home.mark.parent / "ru") == set()


def test_a_dead_component_is_reported_with_its_last_words(home: Home) -> None:
    daemon = python(home, "etcd", "raise SystemExit('no such disk')")
    with pytest.raises(Trouble, match=r"etcd ended while waiting for health(.|\n)*no such disk"):
        processes.wait_for("health", lambda: False, daemon, 30)


def test_waiting_has_an_end_that_says_what_was_waited_for(home: Home) -> None:
    daemon = python(home, "kubelet", "print('still pulling', flush=True); " + ALIVE)
    until("its words", lambda: "still" in daemon.log.read_text())
    with pytest.raises(Trouble, match=r"a Ready node did not come true(.|\n)*still pulling"):
        processes.wait_for("a Ready node", lambda: False, daemon, 0.2)


def test_a_daemon_that_ignores_its_signal_is_killed(home: Home) -> None:
    stubborn = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True);"
    daemon = python(home, "stubborn", stubborn + ALIVE)
    until("its word", lambda: daemon.log.read_text() == "1\n")
    daemon.stop(signal.SIGINT, 0.3)
    assert not daemon.alive()


def test_only_our_rules_are_removed() -> None:
    assert network.removal_of(SAVED.splitlines()) == [
        '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        "-D FORWARD -s 10.88.0.0/16 -m comment --comment tiphys-test-cluster -j ACCEPT",
        "-F KUBE-SERVICES",
        "-F KUBE-SVC-ABC",
        "-X KUBE-SERVICES",
        "-X KUBE-SVC-ABC",
    ]


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(Trouble, match=f"port {port}"):
            machine.check_ports({port: "127.0.0.1"})
    machine.check_ports({monitoring.free_port("127.0.0.1"): "127.0.0.1"})


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    tmp_path: Path,
) -> None:
    needed = {
        "no-such-program": "package-b",
        str(tmp_path / "no/*/file"): "package-a",
        "sh": "dash",
    }
    assert machine.missing(needed) == ["package-a", "package-b"]
    with pytest.raises(Trouble, match=r"apt-get install -y .*package-a package-b"):
        machine.install(["package-a", "package-b"], {"CI": ""})


def test_two_runs_of_the_tool_wait_for_each_other(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from tools.cluster.__main__ import alone; from tools.cluster.paths import Cache\n"
        f"with alone(Cache(Path({str(tmp_path)!r}))): print('in', flush=True)\n"
    )
    with command.alone(cache):
        other = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert "waiting" in other.stdout.readline()
        assert other.poll() is None
    assert other.communicate(timeout=30)[0] == "in\n"


def write_state(cache: Cache, pid: int) -> None:
    cache.run.mkdir(parents=True)
    state = {
        "kubeconfig": str(cache.kubeconfig),
        "node_ip": "10.88.0.1",
        "bin": {"kubectl": "/k"},
        "images": {"test-base": "docker.io/tiphys/test-base:dev"},
        "pids": {"etcd": pid},
    }
    cache.state.write_text(json.dumps(state))


def test_a_plain_kubeconfig_is_never_a_test_cluster(tmp_path: Path) -> None:
    mine = tmp_path / "config"
    mine.write_text("{}")
    with pytest.raises(Trouble, match="make cluster-up"):
        find({"KUBECONFIG": str(mine)}, Cache(tmp_path / "cache"))


def test_a_running_cluster_is_found_and_a_dead_one_is_not(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    write_state(cache, os.getpid())
    found = find({}, cache)
    assert (found.kubeconfig, found.own) == (cache.kubeconfig, True)
    assert found.images["service"] == "docker.io/tiphys/service:dev"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    cache.state.write_text(cache.state.read_text().replace(str(os.getpid()), str(ended.pid)))
    with pytest.raises(Trouble, match="no test cluster is running"):
        find({}, cache)


def test_a_named_kubeconfig_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    write_state(cache, os.getpid())
    with pytest.raises(Trouble, match=r"TIPHYS_TEST_KUBECONFIG names .*/nowhere"):
        find({"TIPHYS_TEST_KUBECONFIG": str(tmp_path / "nowhere")}, cache)


def test_argos_controller_has_rights_in_two_namespaces_and_reads_no_secret() -> None:
    made = argo.rights()
    assert {m["metadata"]["namespace"] for m in made} == {"tiphys-actions", "tiphys-argo"}
    assert {m["kind"] for m in made} == {"Role", "RoleBinding"}
    rules = [rule for m in made if m["kind"] == "Role" for rule in m["rules"]]
    assert not [rule for rule in rules if "secrets" in rule["resources"]]
    assert not [rule for rule in rules if "*" in rule["resources"] + rule["verbs"]]


def test_argo_runs_only_workflows_that_name_a_template() -> None:
    data = argo.settings()["data"]
    assert yaml.safe_load(data["workflowRestrictions"]) == {"templateReferencing": "Strict"}
    assert data["instanceID"] == "tiphys"


def test_where_another_cluster_is_named_none_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIPHYS_CLUSTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TIPHYS_TEST_KUBECONFIG", str(tmp_path / "kind.kubeconfig"))
    monkeypatch.setattr(command, "up", lambda *_, **__: pytest.fail("a cluster was started"))
    assert command.main(["up"]) == 0
    assert f"nothing to start: TIPHYS_TEST_KUBECONFIG names {tmp_path}" in capsys.readouterr().out
