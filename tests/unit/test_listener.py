"""What must be right before a gateway listens."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from quarterhour.errors import SettingsError
from quarterhour.keys import GRANTS_MAX, parse_lines
from quarterhour.listener import check_listener, is_loopback
from quarterhour.options import networks
from quarterhour.settings import GatewaySettings, UpSettings

GRANTS = parse_lines(["anonymous invoke"])


def settings(**values: Any) -> GatewaySettings:
    return GatewaySettings(broker="memory://", **values)


def refusal(**values: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        check_listener(settings(**values))
    return str(caught.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("app.localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("example.org", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
        ("notlocalhost", False),
        ("", False),
    ],
)
def test_which_hosts_are_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "gateway.example.org"])
@pytest.mark.parametrize("process", [GatewaySettings, UpSettings])
def test_who_lets_other_machines_in_needs_keys_or_says_that_none_are_needed(process: Any, host: str) -> None:
    open_to_all = process(broker="memory://", host=host)
    with pytest.raises(SettingsError, match=r"there are no API keys: make one with `quarterhour key new"):
        check_listener(open_to_all)
    check_listener(dataclasses.replace(open_to_all, allow_anonymous=True))
    check_listener(dataclasses.replace(open_to_all, api_keys=GRANTS))


@pytest.mark.parametrize("process", [GatewaySettings, UpSettings])
def test_so_does_who_is_behind_a_proxy(process: Any) -> None:
    behind = process(broker="memory://", trusted_proxies=networks().read("127.0.0.1", Path()))
    with pytest.raises(
        SettingsError, match=r"^A proxy, which --trusted-proxies names, lets other machines in"
    ):
        check_listener(behind)
    check_listener(dataclasses.replace(behind, allow_anonymous=True))
    check_listener(dataclasses.replace(behind, api_keys=GRANTS))


def test_this_machine_alone_needs_none() -> None:
    check_listener(settings())


def test_a_file_of_keys_with_none_in_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# none yet\n")
    assert f"{file}, has no key in it" in refusal(api_keys_file=file)
    file.write_text("anonymous read\n")
    assert check_listener(settings(api_keys_file=file, host="0.0.0.0")) == parse_lines(["anonymous read"])


def test_the_keys_of_file_and_setting_have_a_bounded_number_together(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("anonymous read\n")
    check_listener(settings(api_keys=GRANTS * (GRANTS_MAX - 1), api_keys_file=file))
    text = refusal(api_keys=GRANTS * GRANTS_MAX, api_keys_file=file)
    assert text.startswith(
        f"There are {GRANTS_MAX + 1} API keys, in --api-keys-file and --api-keys together; "
    )
    with pytest.raises(SettingsError, match=f"; {GRANTS_MAX - 1} are allowed"):
        check_listener(settings(api_keys=GRANTS * GRANTS_MAX), keys_max=GRANTS_MAX - 1)


# HTTPS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two certificates with their keys: one, other; and a key with a password."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    for name in ("one", "other"):
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        (folder / f"{name}.crt").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    key = load_pem_private_key((folder / "one.key").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (folder / "locked.key").write_bytes(locked)
    return folder


def test_a_certificate_and_its_key_are_fine(certificates: Path) -> None:
    check_listener(settings(tls_cert=certificates / "one.crt", tls_key=certificates / "one.key"))


def test_one_without_the_other_is_refused(certificates: Path) -> None:
    for given in ({"tls_cert": certificates / "one.crt"}, {"tls_key": certificates / "one.key"}):
        assert refusal(**given) == "--tls-cert and --tls-key belong together: give both of them, or none."


@pytest.mark.parametrize(
    ("certificate", "key", "sentence"),
    [
        (
            "none.crt",
            "one.key",
            "--tls-cert is {}/none.crt, which cannot be read: No such file or directory.",
        ),
        ("one.crt", "none.key", "--tls-key is {}/none.key, which cannot be read: No such file or directory."),
        ("one.crt", "other.key", "--tls-key {0}/other.key is not the key of --tls-cert {0}/one.crt: take"),
        ("one.key", "one.key", "--tls-cert is {}/one.key, which holds no certificate;"),
        ("one.crt", "one.crt", "--tls-key is {}/one.crt, which holds no key that can be used;"),
        ("one.crt", "locked.key", "--tls-key is {}/locked.key, which holds no key that can be used;"),
    ],
)
def test_files_that_do_not_fit_are_named(
    certificates: Path, certificate: str, key: str, sentence: str
) -> None:
    text = refusal(tls_cert=certificates / certificate, tls_key=certificates / key)
    assert text.startswith(sentence.format(certificates))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_named(certificates: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(mode=0)
    assert "cannot be read: Permission denied." in refusal(tls_cert=certificates / "one.crt", tls_key=key)
