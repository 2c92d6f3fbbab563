"""HTTPS, with both servers."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import trustme

from quarterhour.cli.readiness import only
from quarterhour.keys import parse_lines
from quarterhour.settings import Server
from tests.process.gateway_rig import PREFIX, Rig, open_rig
from tests.tcp_server import tcp_server

# What a server may say of a client that gives up during the handshake.
GAVE_UP = ("SSL", "ssl", "tls", "TLS")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA) -> Path:
    folder = tmp_path_factory.mktemp("certificate")
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return folder


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


@pytest.fixture(params=["hypercorn", "granian"])
async def rig(request: pytest.FixtureRequest, folder: Path, authority: trustme.CA) -> AsyncIterator[Rig]:
    server: Server = request.param
    async with open_rig(
        server,
        complaints=GAVE_UP,
        verify=trusting(authority),
        tls_cert=folder / "cert.pem",
        tls_key=folder / "key.pem",
        api_keys=parse_lines(["anonymous admin"]),
    ) as rig:
        yield rig


async def test_functions_and_the_api_are_served_over_https(rig: Rig) -> None:
    answer = await rig.client.post(f"{PREFIX}/hello", content=b"x" * 300_000)
    assert (answer.status_code, answer.json()["scheme"], len(answer.json()["body"])) == (
        200,
        "https",
        300_000,
    )
    assert (await rig.client.get("/v1/functions")).status_code == 200
    assert (await rig.client.post(f"{PREFIX}/hello-background")).status_code == 202


async def test_there_is_but_one_version_of_http_to_speak(rig: Rig, authority: trustme.CA) -> None:
    context = trusting(authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port, ssl=context)
    spoken = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.transport.abort()
    assert spoken == "http/1.1"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_old_versions_and_plain_http_are_refused(rig: Rig, authority: trustme.CA) -> None:
    async def spoken(version: ssl.TLSVersion) -> bool:
        context = trusting(authority)
        context.set_ciphers("DEFAULT@SECLEVEL=0")  # or the client itself would have none of it
        context.minimum_version = context.maximum_version = version
        async with httpx.AsyncClient(verify=context, timeout=30) as client:
            try:
                return (await client.get(f"https://127.0.0.1:{rig.port}/healthz")).status_code == 200
            except httpx.ConnectError:
                return False

    versions = (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert [await spoken(version) for version in versions] == [False, True, True]
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{rig.port}/healthz")


async def test_up_trusts_the_gateways_certificate_alone_even_when_it_is_past_its_time(
    authority: trustme.CA, tmp_path: Path
) -> None:
    intermediate = authority.create_child_ca()
    past = datetime(2020, 1, 1, tzinfo=UTC)
    expired = intermediate.issue_cert(
        "elsewhere.example", not_before=past, not_after=past + timedelta(days=1)
    )
    other = intermediate.issue_cert("127.0.0.1")
    for number, certificate in enumerate((expired, other)):
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        assert chain.count(b"BEGIN CERTIFICATE") > 1
        (tmp_path / f"{number}.pem").write_bytes("für uns\n".encode() + chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    expired.configure_cert(context)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with tcp_server(serve, tls=context) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=only(tmp_path / "0.pem"))
        writer.transport.abort()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=only(tmp_path / "1.pem"))
