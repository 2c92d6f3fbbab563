"""`quarterhour up` with API keys and HTTPS: that it works, and that no key is anywhere afterwards."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trustme

from tests.up import Up, leaving_nothing

FAIL_BACKGROUND = """
config = {"retries": 0}

def handler(event, context):
    print(event["headers"])
    raise ValueError(repr(event))
"""
HELLO = """
import os

def handler(event, context):
    return {"statusCode": 200, "body": event["rawUrl"] + repr(event) + repr(dict(os.environ))}
"""


def quarterhour(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "quarterhour", *arguments]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("QUARTERHOUR_")}
    return subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, timeout=60, check=False
    )


def new_key(*arguments: str) -> tuple[str, str]:
    key, line = quarterhour("key", "new", *arguments).stdout.splitlines()
    return key, line


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "functions").mkdir()
    (tmp_path / "functions" / "hello.py").write_text(HELLO)
    (tmp_path / "functions" / "fail-background.py").write_text(FAIL_BACKGROUND)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "root.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    return tmp_path


def test_up_with_keys_and_https(project: Path) -> None:
    admin, admin_line = new_key("--role", "admin")
    invoke, invoke_line = new_key("--role", "invoke", "--functions", "hel*")
    (project / "keys").write_text(f"# ours\n{admin_line}\n{invoke_line}\n")
    flags = ("--api-keys-file", "keys", "--tls-cert", "cert.pem", "--tls-key", "key.pem", "--runners", "1")
    with leaving_nothing() as ups:
        up = Up(project, "--port", "0", *flags)
        ups.append(up)
        url = up.ready()
        assert url.startswith("https://127.0.0.1:")
        _curl_as_it_is_printed(project, up.output.read_text(), invoke)
        _command_line(project, url, admin, invoke)
        with httpx.Client(base_url=url, verify=False, timeout=30) as client:
            for headers in ({}, {"authorization": f"Bearer {invoke}x"}):
                assert client.get("/v1/functions", headers=headers).status_code == 401
                assert client.post("/.netlify/functions/hello", headers=headers).status_code == 401
            assert client.post("/.netlify/functions/x", headers={"x-api-key": invoke}).status_code == 403
            metrics = client.get("/metrics", headers={"x-api-key": admin}).text
            assert "quarterhour_requests_total" in metrics
            assert "qh_" not in metrics
        up.process.terminate()
        assert up.wait(30) == 0
    # What was accepted, recorded, logged and set aside: everything that there is of it.
    for path in project.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert [key for key in (admin, invoke) if key.encode() in content] == [], path


def _curl_as_it_is_printed(project: Path, output: str, key: str) -> None:
    (line,) = [line.strip() for line in output.splitlines() if line.endswith("/hello")]
    assert "--cacert" in line
    if shutil.which("curl") is not None:
        environment = {**os.environ, "QUARTERHOUR_API_KEY": key}
        done = subprocess.run(
            ["sh", "-c", line], cwd=project, env=environment, capture_output=True, text=True, check=False
        )
        assert "HTTP/1.1 200" in done.stdout, done.stderr
        assert "https://127.0.0.1:" in done.stdout
        assert "qh_" not in done.stdout


def _command_line(project: Path, url: str, admin: str, invoke: str) -> None:
    where = {"QUARTERHOUR_URL": url, "SSL_CERT_FILE": str(project / "root.pem")}
    done = quarterhour("list", QUARTERHOUR_API_KEY=admin, **where)
    assert "fail-background" in done.stdout, done.stderr
    done = quarterhour("invoke", "hello", QUARTERHOUR_API_KEY=invoke, **where)  # which may not list
    assert "https://127.0.0.1:" in done.stdout, done.stderr
    done = quarterhour("invoke", "fail-background", "--wait", QUARTERHOUR_API_KEY=admin, **where)
    assert "ValueError" in done.stdout, done.stderr
    done = quarterhour("list", **where)
    assert (done.returncode, "This needs an API key" in done.stderr) == (1, True)
    done = quarterhour("list", QUARTERHOUR_API_KEY="secret", **where)
    assert "QUARTERHOUR_API_KEY is no API key" in done.stderr
    assert "secret" not in done.stderr
