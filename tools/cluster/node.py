"""containerd, the kubelet and kube-proxy: this machine as the cluster's one node."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.cluster.certs import Certificates
from tools.cluster.control_plane import Api, Binaries
from tools.cluster.paths import NODE, NODE_IP, POD_RANGE, SERVICE_DNS, Cache
from tools.cluster.processes import Daemon, start, wait_for

PAUSE_IMAGE = "docker.io/tiphys/pause:dev"
CNI_PLUGINS = "/usr/lib/cni"


def socket(cache: Cache) -> Path:
    """containerd's socket."""
    return cache.run / "containerd.sock"


def _containerd_config(cache: Cache) -> str:
    """`restrict_oom_score_adj`: without CAP_SYS_RESOURCE no score may be lowered, and every pod
    sandbox would fail with "can't get final child's PID from pipe".
    """
    home = cache.run / "containerd"
    return f"""
version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{socket(cache)}"
[ttrpc]
  address = "{socket(cache)}.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{cache.run}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{home}/runc"
        SystemdCgroup = false
"""


def start_containerd(cache: Cache) -> Daemon:
    """Start it and wait until it answers."""
    config = cache.run / "containerd.toml"
    config.write_text(_containerd_config(cache))
    daemon = start(cache.home, "containerd", ["containerd", "--config", config])

    def answers() -> bool:
        asked = subprocess.run(ctr(cache, "version"), check=False, capture_output=True, timeout=10)
        return asked.returncode == 0

    wait_for("containerd's answer", answers, daemon)
    return daemon


def ctr(cache: Cache, *argv: str | Path) -> list[str]:
    """Return a command of containerd's client, in the namespace that the kubelet uses."""
    return ["ctr", "-a", str(socket(cache)), "-n", "k8s.io", *map(str, argv)]


def _kubelet_config(cache: Cache, certificates: Certificates) -> Mapping[str, Any]:
    """What works without systemd, on either version of control groups."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "10s"},
            "x509": {"clientCAFile": str(certificates.crt("ca"))},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificates.crt("kubelet-server")),
        "tlsPrivateKeyFile": str(certificates.key("kubelet-server")),
        "clusterDNS": [SERVICE_DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(cache.run / "resolv.conf"),
        "containerRuntimeEndpoint": f"unix://{socket(cache)}",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "makeIPTablesUtilChains": False,
        "podLogsDir": str(cache.run / "pod-logs"),
        "volumePluginDir": str(cache.run / "kubelet-plugins"),
        "maxPods": 250,
        "imageGCHighThresholdPercent": 100,
        "imageMaximumGCAge": "0s",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "0%"},
        "syncFrequency": "10s",
        "fileCheckFrequency": "1h",
        "httpCheckFrequency": "1h",
        "nodeStatusUpdateFrequency": "5s",
        "registerWithTaints": [],
        "shutdownGracePeriod": "0s",
        "serializeImagePulls": False,
    }


def start_kubelet(cache: Cache, bins: Binaries, certificates: Certificates) -> Daemon:
    """`--node-ip` must not be loopback, so the bridge has its address by now."""
    # Names outside the cluster are not resolved: pods have no way out.
    (cache.run / "resolv.conf").write_text("search .\n")
    config = cache.run / "kubelet.yaml"
    config.write_text(yaml.safe_dump(dict(_kubelet_config(cache, certificates))))
    return start(
        cache.home,
        "kubelet",
        [
            bins["kubelet"],
            f"--config={config}",
            f"--kubeconfig={certificates.kubeconfig('kubelet', cache.run / 'kubelet.kubeconfig')}",
            f"--root-dir={cache.run / 'kubelet'}",
            f"--cert-dir={cache.run / 'kubelet-pki'}",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_IP}",
        ],
    )


def start_kube_proxy(cache: Cache, bins: Binaries, certificates: Certificates) -> Daemon:
    """Services by iptables; the kernel's connection limits are left as they are."""
    kubeconfig = certificates.kubeconfig("kube-proxy", cache.run / "kube-proxy.kubeconfig")
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "hostnameOverride": NODE,
        "bindAddress": NODE_IP,
        "healthzBindAddress": f"{NODE_IP}:10256",
        "metricsBindAddress": f"{NODE_IP}:10249",
        "mode": "iptables",
        "clusterCIDR": POD_RANGE,
        "iptables": {"localhostNodePorts": False, "minSyncPeriod": "100ms"},
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
        "nodePortAddresses": [f"{NODE_IP}/32"],
    }
    path = cache.run / "kube-proxy.yaml"
    path.write_text(yaml.safe_dump(config))
    return start(cache.home, "kube-proxy", [bins["kube-proxy"], f"--config={path}"])


def is_ready(api: Api) -> bool:
    """Tell whether the node is there, Ready and schedulable."""
    found = api.read(f"/api/v1/nodes/{NODE}")
    if found is None:
        return False
    conditions = {c["type"]: c["status"] for c in found["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and not found["spec"].get("taints")
