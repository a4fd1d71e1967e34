"""`helm test`: is every replica ready, and does the API server refuse what it must?"""

import functools
import json
import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request

POD = "/var/run/secrets/kubernetes.io/serviceaccount"


def ready(service: str, replicas: int) -> str:
    """Ask /readyz at every address of a Service; gives what is wrong."""
    host = f"{service}.{os.environ['NAMESPACE']}.svc"
    try:
        found = socket.getaddrinfo(host, 8080, type=socket.SOCK_STREAM)
    except OSError as error:
        return f"{host} cannot be resolved: {error}"
    addresses = sorted({str(one[4][0]) for one in found})
    if len(addresses) < replicas:
        return f"{host} has {len(addresses)} addresses, {replicas} are expected"
    for address in addresses:
        literal = f"[{address}]" if ":" in address else address
        try:
            with urllib.request.urlopen(f"http://{literal}:8080/readyz", timeout=5):
                pass
        except urllib.error.HTTPError as error:
            return f"{service} at {address} is not ready: {error.read().decode()[:300]}"
        except OSError as error:
            return f"{service} at {address} does not answer: {error}"
    return ""


def boundary() -> str:
    """Try, without effect, to start a pod where Workflows run; gives what is wrong.

    This pod's account may create pods there, as far as RBAC goes: what must refuse is admission.
    """
    locked = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "tiphys-test-intruder"},
        "spec": {
            "containers": [
                {"name": "main", "image": os.environ["IMAGE"], "securityContext": locked}
            ]
        },
    }
    with open(f"{POD}/token") as file:
        token = file.read()
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    literal = f"[{host}]" if ":" in host else host
    namespace = os.environ["ACTIONS_NAMESPACE"]
    request = urllib.request.Request(
        f"https://{literal}:{port}/api/v1/namespaces/{namespace}/pods?dryRun=All",
        data=json.dumps(pod).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    trust = ssl.create_default_context(cafile=f"{POD}/ca.crt")
    try:
        with urllib.request.urlopen(request, timeout=10, context=trust):  # noqa: S310  https
            return f"a pod of a stranger would be accepted in {namespace}"
    except urllib.error.HTTPError as error:
        said = json.loads(error.read()).get("message", "")
    except OSError as error:
        return f"the API server does not answer: {error}"
    if "ValidatingAdmissionPolicy" not in said:
        return f"a pod of a stranger was refused, but not by the boundary: {said[:300]}"
    sys.stdout.write(f"refused, as it must be: {said[:200]}\n")
    return ""


def until_right(name: str, check, seconds: float) -> bool:
    """Ask until it is right or the time is over; says how it ended."""
    end = time.monotonic() + seconds
    while wrong := check():
        if time.monotonic() > end:
            sys.stdout.write(f"FAILED {name}: {wrong}\n")
            return False
        time.sleep(1)
    sys.stdout.write(f"ok {name}\n")
    return True


def main() -> int:
    """Check everything, whatever fails."""
    results = [until_right("boundary", boundary, 15)]
    for pair in os.environ["ROLES"].split(","):
        service, replicas = pair.split("=")
        check = functools.partial(ready, service, int(replicas))
        results.append(until_right(service, check, 60))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
