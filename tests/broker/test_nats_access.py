"""Getting in to NATS: TLS, certificates and credentials, right and wrong ones."""

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import nkeys
import pytest
import structlog
import trustme
from nacl.signing import SigningKey

from quarterhour.broker import BrokerOptions
from quarterhour.broker.nats.address import parse_address
from quarterhour.broker.nats.broker import connect
from quarterhour.errors import BrokerUnavailable, SettingsError
from tests.nats_server import NatsServer, free_port
from tests.tcp_server import tcp_server
from tests.waiting import eventually

NEEDED = "sync_interval=always"


class Authority:
    """A certificate authority, with certificates for a server on loopback and for a client."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._ca, self.folder = trustme.CA(), folder
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)
        self.server = self.issue("server", "127.0.0.1")
        self.client = self.issue("client", "gateway@example.org")

    def issue(self, name: str, identity: str) -> tuple[Path, Path]:
        """Certificate and key."""
        issued = self._ca.issue_cert(identity)
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issued.private_key_pem.write_to_path(paths[1])
        issued.cert_chain_pems[0].write_to_path(paths[0])
        paths[1].chmod(0o600)
        return paths

    def tls(self, **more: object) -> dict[str, object]:
        """The server's settings."""
        cert, key = self.server
        return {"tls": {"cert_file": str(cert), "key_file": str(key), "ca_file": str(self.ca), **more}}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "theirs")


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[NatsServer]:
    """A server that speaks TLS, and wants the user's password."""
    folder = tmp_path_factory.mktemp("nats")
    with NatsServer(folder, user="u", password="secret-word", more=authority.tls()) as server:
        yield server


async def warnings(url: str) -> tuple[str, ...]:
    """Connect; what is warned about."""
    async with connect(BrokerOptions(url=url, name="x")) as broker:
        assert broker.connected
        return broker.warnings


async def refused(url: str, error: type[Exception] = BrokerUnavailable) -> str:
    with pytest.raises(error) as caught:
        await warnings(url)
    assert "secret-word" not in str(caught.value)
    return str(caught.value)


def new_key(prefix: int = nkeys.PREFIX_BYTE_USER) -> tuple[str, str]:
    """A seed and its public key."""
    seed = nkeys.encode_seed(bytes(SigningKey.generate()), prefix)
    return seed.decode(), nkeys.from_seed(bytearray(seed)).public_key.decode()


def signed(name: str, subject: str, issuer: tuple[str, str], **nats: object) -> str:
    """A JWT as `nsc` makes them."""
    claims = {"iat": 1, "iss": issuer[1], "name": name, "sub": subject, "nats": {"version": 2, **nats}}
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, claims | {"jti": name})
    )
    signature = nkeys.from_seed(bytearray(issuer[0].encode())).sign(head + b"." + body)
    return b".".join((head, body, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


async def test_a_credentials_file(tmp_path: Path) -> None:
    operator = new_key(nkeys.PREFIX_BYTE_OPERATOR)
    account, system = new_key(nkeys.PREFIX_BYTE_ACCOUNT), new_key(nkeys.PREFIX_BYTE_ACCOUNT)
    seed, public = new_key()
    limits = dict.fromkeys(("subs", "conn", "data", "payload", "imports", "exports", "leaf"), -1)
    limits |= dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    accounts = {
        key[1]: signed(name, key[1], operator, type="account", limits=limits | {"wildcards": True} | more)
        for name, key, more in (
            ("ours", account, {}),
            ("system", system, {"mem_storage": 0, "disk_storage": 0, "streams": 0, "consumer": 0}),
        )
    }
    options = {
        "operator": signed("operator", operator[1], operator, type="operator", system_account=system[1]),
        "resolver": "MEMORY",
        "resolver_preload": accounts,
    }
    user = signed("user", public, account, type="user", subs=-1, data=-1, payload=-1)
    for name, key in (("right", seed), ("wrong", new_key()[0])):
        (tmp_path / name).write_text(
            f"-----BEGIN NATS USER JWT-----\n{user}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{key}\n------END USER NKEY SEED------\n"
        )
        (tmp_path / name).chmod(0o600)
    with NatsServer(tmp_path / "nats", more=options) as server:
        url = f"nats://127.0.0.1:{server.port}?{NEEDED}"
        assert await warnings(f"{url}&creds={tmp_path / 'right'}") == ()
        assert "does not accept this credentials file" in await refused(f"{url}&creds={tmp_path / 'wrong'}")
        async with connect(BrokerOptions(url=f"{url}&creds={tmp_path / 'right'}", name="x")) as broker:
            good = (tmp_path / "right").read_text()
            (tmp_path / "right").write_text("")  # it is being exchanged
            server.kill()
            await eventually(lambda: not broker.connected)
            with structlog.testing.capture_logs() as logs:
                server.start()
                await eventually(lambda: any("no user's seed" in log.get("why", "") for log in logs))
            assert len([log for log in logs if log["event"] == "broker_still_away"]) <= 3  # not one a try
            (tmp_path / "right").write_text(good)
            await eventually(lambda: broker.connected)


async def test_tls_by_an_authority_of_ones_own(encrypted: NatsServer, authority: Authority) -> None:
    at = f"127.0.0.1:{encrypted.port}"
    await warnings(f"tls://u:secret-word@{at}?ca={authority.ca}")
    untrusted = await refused(f"tls://u:secret-word@{at}")
    assert untrusted.startswith(f"The certificate of the broker at {at} is not trusted: ")
    assert "ca=FILE" in untrusted
    elsewhere = f"tls://u:secret-word@localhost:{encrypted.port}?ca={authority.ca}"
    assert "Hostname mismatch" in await refused(elsewhere)
    assert "password" in await refused(f"tls://u:wrong@{at}?ca={authority.ca}")


async def test_encryption_is_what_the_url_says(encrypted: NatsServer, nats: NatsServer) -> None:
    assert "wants TLS: write tls://" in await refused(f"nats://u:secret-word@127.0.0.1:{encrypted.port}")
    assert "offers no TLS" in await refused(f"tls://127.0.0.1:{nats.port}")


async def test_no_password_is_sent_in_the_clear_to_who_says_that_he_knows_no_tls() -> None:
    heard = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        info = {"server_id": "x", "version": "2.15.0", "max_payload": 1048576, "auth_required": True}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        heard += await reader.read()
        all_heard.set()

    all_heard = asyncio.Event()
    async with tcp_server(serve) as port:
        assert "offers no TLS" in await refused(f"tls://u:secret-word@127.0.0.1:{port}")
        await asyncio.wait_for(all_heard.wait(), 30)
    assert heard == b""


async def test_a_certificate_of_the_client(tmp_path: Path, authority: Authority, stranger: Authority) -> None:
    with NatsServer(tmp_path, more=authority.tls(verify=True)) as server:
        url = f"tls://127.0.0.1:{server.port}?{NEEDED}&ca={authority.ca}"
        (cert, key), (their_cert, their_key) = authority.client, stranger.client
        assert await warnings(f"{url}&cert={cert}&key={key}") == ()
        assert "want a certificate" in await refused(url)
        nobody = await refused(f"tls://127.0.0.1:{free_port()}?ca={authority.ca}")
        assert "cannot be reached" in nobody
        assert "want a certificate" in await refused(f"{url}&cert={their_cert}&key={their_key}")
        key.chmod(0o644)
        (warning,) = await warnings(f"{url}&cert={cert}&key={key}")
        assert f"chmod 600 {key}" in warning


async def test_a_token_and_an_nkey(tmp_path: Path) -> None:
    seed, public = new_key()
    other, _ = new_key()
    for name, text in {"right": seed, "wrong": other, "token": "secret-word\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    with NatsServer(tmp_path / "t", more={"authorization": {"token": "secret-word"}}) as server:
        url = f"nats://127.0.0.1:{server.port}?{NEEDED}"
        assert await warnings(f"{url}&token={tmp_path / 'token'}") == ()
        assert "does not accept this token" in await refused(f"{url}&token={tmp_path / 'wrong'}")
    with NatsServer(tmp_path / "n", more={"authorization": {"users": [{"nkey": public}]}}) as server:
        url = f"nats://127.0.0.1:{server.port}?{NEEDED}"
        assert await warnings(f"{url}&nkey={tmp_path / 'right'}") == ()
        assert "does not accept this nkey" in await refused(f"{url}&nkey={tmp_path / 'wrong'}")
        async with connect(BrokerOptions(url=f"{url}&nkey={tmp_path / 'right'}", name="x")) as broker:
            server.kill()
            await eventually(lambda: not broker.connected)
            server.start()  # it signs anew
            await eventually(lambda: broker.connected)


@pytest.mark.parametrize(
    ("query", "content", "said"),
    [
        ("ca={}", None, "cannot be read: No such file"),
        ("ca={}", "secret-word", "no certificates in PEM"),
        ("cert={}", "secret-word", "no certificate with its unencrypted key"),
        ("creds={}", "secret-word", "has no credentials of NATS"),
        ("creds={}", "-----BEGIN NATS USER JWT-----\nsecret-word\n", "has no user's seed"),
        ("nkey={}", "SU-secret-word", "has no user's seed"),
        ("nkey={}", "x" * 100_000, "is larger than"),
        ("token={}", "\n", "has no token"),
    ],
)
async def test_files_that_will_not_do(tmp_path: Path, query: str, content: str | None, said: str) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_text(content)
    sentence = await refused(f"tls://127.0.0.1:{free_port()}?{query.format(path)}", SettingsError)
    assert said in sentence
    assert str(path) in sentence


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://one?ca=x", "write tls://"),
        ("tls://one?key=x", "cert="),
        ("tls://one?nkey=x&token=y", "one way to log in"),
        ("tls://u:secret-word@one?creds=x", "one way to log in"),
        ("tls://secret-word@one?password=x", "takes replicas="),
    ],
)
def test_addresses_that_contradict_themselves(url: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_address(url)
    assert said in str(caught.value)
    assert "secret-word" not in str(caught.value)
