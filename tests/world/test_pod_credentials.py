"""In a pod: the ServiceAccount's own token and CA, over TLS, and the token's successor."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tiphys.agents.ports import UnansweredError
from tiphys.service.kubernetes_api import connect
from tiphys.service.kubernetes_reader import KubernetesReader


def certify(directory: Path) -> tuple[Path, Path]:
    """A CA that is its own server's certificate, and the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "ca.crt", directory / "server.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, private


@asynccontextmanager
async def api_server(directory: Path, seen: list[str]) -> AsyncGenerator[int]:
    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("authorization", ""))
        return web.json_response({"metadata": {"name": "shop", "uid": "u"}})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certify(directory))
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_a_pod_speaks_with_its_own_token_over_its_own_ca(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    async with api_server(tmp_path, seen) as port:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        (tmp_path / "token").write_text("first")
        async with connect(None, account=tmp_path) as api:
            reader = KubernetesReader(api)
            assert await reader.get("v1", "Namespace", "", "shop") is not None
            (tmp_path / "token").write_text("second")
            # What a minute does: the loader then reads the file again.
            hook = api.configuration.refresh_api_key_hook
            loader = next(c.cell_contents for c in hook.__closure__)
            loader.token_expires_at = datetime.datetime.now()  # noqa: DTZ005 - as the library does
            await reader.get("v1", "Namespace", "", "shop")
    assert [word.lower() for word in seen] == ["bearer first", "bearer second"]


async def test_a_token_that_cannot_be_read_anew_is_a_question_unanswered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_server(tmp_path, []) as port:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        (tmp_path / "token").write_text("first")
        async with connect(None, account=tmp_path) as api:
            hook = api.configuration.refresh_api_key_hook
            loader = next(c.cell_contents for c in hook.__closure__)
            loader.token_expires_at = datetime.datetime.now()  # noqa: DTZ005 - as the library does
            (tmp_path / "token").write_text("")
            with pytest.raises(UnansweredError):
                await KubernetesReader(api).get("v1", "Namespace", "", "shop")


async def test_another_ca_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    seen: list[str] = []
    async with api_server(tmp_path, seen) as port:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(port))
        certify(tmp_path / "other")
        (tmp_path / "other" / "token").write_text("first")
        async with connect(None, account=tmp_path / "other") as api:
            with pytest.raises(UnansweredError):
                await KubernetesReader(api).get("v1", "Namespace", "", "shop")
    await asyncio.sleep(0)
    assert seen == [], "no token goes to a server that is not ours"
