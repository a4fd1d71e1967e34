"""What the labels of a GPU's alert or series name: its node, its device and the pod that uses it.

Sources: dcgm-exporter's labels (`Hostname`, `UUID`, `gpu`, `pci_bus_id`, `pod`, `namespace`), and
Prometheus' `honor_labels`, without which a metric's own `pod` becomes `exported_pod`.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from tiphys.policies.xid import device_name

NODE_LABELS: Final = ("node", "Hostname", "kubernetes_node", "nodename")
"""The first that is there names the node."""
XID_LABELS: Final = ("xid", "err_code")
_UUID_LABELS: Final = ("UUID", "uuid", "gpu_uuid")
_UUID = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]{4,80}")
_ALERT = re.compile(r"(?i).*(xid|dcgm).*|gpuoperatornode.*")
_EXPORTER = "exporter"


class Named(NamedTuple):
    """One GPU as labels name it; empty is what they do not tell."""

    uuid: str
    pci: str
    number: str

    @property
    def name(self) -> str:
        """The one name that a device goes by: its PCI address, since the kernel knows no other."""
        return device_name(self.pci or self.uuid)


def about_gpu(labels: Mapping[str, str]) -> bool:
    """Tell whether an alert is about a GPU."""
    return bool(_ALERT.fullmatch(labels.get("alertname", "")) or _uuid(labels))


def node_of(labels: Mapping[str, str]) -> str:
    """Name the node; empty where no label does."""
    return next((labels[k] for k in NODE_LABELS if labels.get(k)), "")


def device_of(labels: Mapping[str, str]) -> Named | None:
    """Name the device; None where no label does."""
    found = Named(_uuid(labels), labels.get("pci_bus_id", ""), labels.get("gpu", ""))
    return found if any(found) else None


def code_of(labels: Mapping[str, str]) -> str:
    """Give the Xid that a label names, as it is written; empty without one."""
    return next((labels[k] for k in XID_LABELS if labels.get(k)), "")


def user_of(labels: Mapping[str, str]) -> tuple[str, str] | None:
    """Give namespace and name of the pod that used the GPU; None where no label tells.

    A plain `pod` that is an exporter's is the one that told, not the one that used it.
    """
    if labels.get("exported_pod"):
        return labels.get("exported_namespace", ""), labels["exported_pod"]
    pod = labels.get("pod", "")
    return (labels.get("namespace", ""), pod) if pod and _EXPORTER not in pod else None


def _uuid(labels: Mapping[str, str]) -> str:
    found = next((labels[k] for k in _UUID_LABELS if labels.get(k)), "")
    return found if _UUID.fullmatch(found) else ""
