"""Connections to the Kubernetes API, one for each identity this process holds."""

import asyncio
from pathlib import Path

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

TIMEOUT = 5.0
"""Seconds for one request that is not a watch."""

UNREACHABLE = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
"""What the client raises when the API server does not answer."""


async def connect(kubeconfig: Path | None) -> client.ApiClient:
    """Open a client with the given kubeconfig, or with the pod's own ServiceAccount."""
    configuration = client.Configuration()
    if kubeconfig is not None:
        await config.load_kube_config(
            config_file=str(kubeconfig), client_configuration=configuration
        )
    else:
        config.load_incluster_config(client_configuration=configuration)
    configuration.retries = 0
    return client.ApiClient(configuration=configuration)


def explain(error: BaseException) -> str:
    """Say in one line what the API server, or the way to it, answered."""
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason}: {_message(error)}"
    return f"the Kubernetes API does not answer ({type(error).__name__}: {error})"


def _message(error: ApiException) -> str:
    import json

    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.body or "")[:300]
