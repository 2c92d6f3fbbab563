"""NATS servers that let gateways and runners do what the files in `deploy/nats/` allow, no more."""

from pathlib import Path

from quarterhour.broker.nats.permissions import ROLES, Role, variable
from tests.nats_server import NatsServer

__all__ = ["GUARDED", "GUARDED_CLUSTER", "PERMISSIONS", "url_of", "violations"]

PERMISSIONS = Path(__file__).parent.parent / "deploy" / "nats"
_USERS = ", ".join(
    f"{{ user: {role}, password: pw-{role}, permissions: ${variable(role)} }}" for role in ROLES
)
# Beside them one who may do everything; whoever says no name is he.
_GUARDED = f"""\
authorization: {{ users: [ {_USERS}, {{ user: admin, password: pw-admin }} ] }}
no_auth_user: admin
"""
GUARDED = f"{(PERMISSIONS / 'permissions.conf').read_text()}\n{_GUARDED}"
GUARDED_CLUSTER = f"{(PERMISSIONS / 'permissions-cluster.conf').read_text()}\n{_GUARDED}"


def url_of(server: NatsServer, who: Role | str) -> str:
    """Where one of the users connects."""
    return f"nats://{who}:pw-{who}@127.0.0.1:{server.port}"


def violations(server: NatsServer) -> list[str]:
    """What somebody tried and was denied, as the server wrote it down."""
    return [line for line in server.log.splitlines() if "Violation" in line]
