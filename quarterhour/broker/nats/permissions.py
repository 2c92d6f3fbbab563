"""What gateways and runners have to be allowed on a NATS server, and no more. Pure.

    python -m quarterhour.broker.nats.permissions [--cluster] [NAMESPACE]

prints the files in `deploy/nats/`; the server that `up` starts gets the same. A test runs everything
under these permissions and holds each line against what was used, so a new subject in the adapter
needs its line here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import click

from quarterhour.broker.nats.layout import bodies_of, bucket_of, checked_namespace

__all__ = ["ROLES", "Grant", "Role", "grants", "page", "permissions", "variable"]

Role = Literal["gateway", "runner"]
ROLES: tuple[Role, ...] = ("gateway", "runner")


@dataclass(frozen=True, slots=True)
class Grant:
    """Subjects, and what they are needed for. `cluster`: only where more than one server keeps a message."""

    why: str
    publish: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    cluster: bool = False


def grants(role: Role, namespace: str) -> tuple[Grant, ...]:
    """All that a role needs in a namespace. Raises `SettingsError` for a namespace that is none."""
    name = checked_namespace(namespace)
    return (*_both(role, name), *(_gateway(name) if role == "gateway" else _runner(name)))


def _both(role: Role, n: str) -> tuple[Grant, ...]:
    api, bodies, bucket = "$JS.API", bodies_of(n), bucket_of(n)
    return (
        Grant(
            "replies to what it asks",
            publish=(f"_INBOX.{n}.{role}.*.peer.*",),  # to itself: what came before has been done
            subscribe=(f"_INBOX.{n}.{role}.>",),
        ),
        Grant(
            "streams: there, and as they should be; creating one that is there changes nothing",
            publish=(
                f"{api}.INFO",
                *(
                    f"{api}.STREAM.{verb}.{name}"
                    for verb in ("INFO", "CREATE")
                    for name in (n, bodies, bucket)
                ),
            ),
        ),
        Grant(
            "functions, which it hears of when they change",
            publish=(f"{api}.DIRECT.GET.{bucket}",),
            subscribe=(f"{n}.ctl.functions",),
        ),
        Grant(
            "how far the stream went when the server was started",
            publish=(f"{api}.DIRECT.GET.{n}.{n}.c._server.*", f"{n}.c._server.*"),
        ),
        Grant("records", publish=(f"{api}.DIRECT.GET.{n}.{n}.r.*.*", f"{n}.r.*.*")),
        Grant(
            "a cluster, whose leader has what is true, and where another may be elected",
            publish=(f"{api}.STREAM.MSG.GET.{n}", f"{api}.STREAM.MSG.GET.{bodies}"),
            subscribe=(f"$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.{n}.>",),
            cluster=True,
        ),
        Grant(
            "large bodies",
            publish=(f"{api}.DIRECT.GET.{bodies}", f"{api}.STREAM.PURGE.{bodies}"),
        ),
        Grant("dead letters", publish=(f"{n}.d.*.*",)),
        Grant(
            "queues: how deep they are, taking work off them (gateways set aside what has waited too long)",
            publish=(
                f"{api}.CONSUMER.LIST.{n}",
                f"{api}.CONSUMER.INFO.{n}.*",
                f"{api}.CONSUMER.CREATE.{n}.*.{n}.q.*.>",
                f"{api}.CONSUMER.MSG.NEXT.{n}.*",
                f"$JS.ACK.{n}.>",
            ),
        ),
        Grant("work: accepted, or a retry that is due at once", publish=(f"{n}.q.*.*.*",)),
        Grant("who runs an invocation", publish=(f"{n}.ctl.who",)),
        Grant("bells", publish=(f"{n}.bell",)),
    )


def _gateway(n: str) -> tuple[Grant, ...]:
    api = "$JS.API"
    return (
        Grant(
            "bringing the settings up to date",
            publish=tuple(f"{api}.STREAM.UPDATE.{name}" for name in (n, bodies_of(n), bucket_of(n))),
        ),
        Grant("large bodies of requests", publish=(f"{n}.b.work.*", f"{n}.b.request.*")),
        Grant("idempotency keys", publish=(f"{n}.k.*", f"{api}.DIRECT.GET.{n}.{n}.k.*")),
        Grant("calls, and credit for what they stream", publish=(f"{n}.call.*", f"{n}.credit.*")),
        Grant(
            "delayed invocations, and the consumers that count them",
            publish=(
                f"{n}.s.delay.*.*",
                f"{api}.CONSUMER.CREATE.{n}.*.{n}.s.delay.*.*",
                f"{api}.CONSUMER.DELETE.{n}.*",
            ),
        ),
        Grant("schedules: cursors, and firings to come", publish=(f"{n}.c.*", f"{n}.s.cron.*.*")),
        Grant("reading whatever is stored", publish=(f"{api}.DIRECT.GET.{n}",)),
        Grant("removing what is settled", publish=(f"{api}.STREAM.PURGE.{n}",)),
        Grant("records that change", subscribe=(f"{n}.r.*.*",)),
        Grant("runners", publish=(f"{n}.ctl.roll",), subscribe=(f"{n}.beat",)),
        Grant("telling runners what is cancelled", publish=(f"{n}.ctl.cancelled",)),
    )


def _runner(n: str) -> tuple[Grant, ...]:
    return (
        Grant(
            "calls, and credit for what they stream",
            publish=(f"_INBOX.{n}.gateway.*.calls.*",),
            subscribe=(f"{n}.call.*", f"{n}.credit.*"),
        ),
        Grant("retries", publish=(f"{n}.s.retry.*",)),
        Grant("large bodies of responses", publish=(f"{n}.b.response.*",)),
        Grant(
            "functions: announced, withdrawn",
            publish=(
                f"$KV.{bucket_of(n).removeprefix('KV_')}.*",
                f"$JS.API.STREAM.PURGE.{bucket_of(n)}",
                f"{n}.ctl.functions",
            ),
        ),
        Grant("signs of life", publish=(f"{n}.beat",), subscribe=(f"{n}.ctl.roll",)),
        Grant(
            "who runs an invocation",
            publish=(f"_INBOX.{n}.gateway.*.peer.*",),
            subscribe=(f"{n}.ctl.who",),
        ),
        Grant("what is cancelled", subscribe=(f"{n}.ctl.cancelled",)),
        Grant("bells", subscribe=(f"{n}.bell",)),
    )


def variable(role: Role) -> str:
    """What the permissions of a role are called in the server's configuration."""
    return f"QUARTERHOUR_{role.upper()}"


def permissions(role: Role, namespace: str, *, cluster: bool) -> str:
    """The permissions of a role as the server's configuration has them, by `variable`."""
    needed = [grant for grant in grants(role, namespace) if cluster or not grant.cluster]
    return "\n".join(
        (
            f"{variable(role)}: {{",
            *_list("publish", ((grant.why, grant.publish) for grant in needed)),
            *_list("subscribe", ((grant.why, grant.subscribe) for grant in needed)),
            "}",
            "",
        )
    )


def _list(verb: str, parts: Iterable[tuple[str, tuple[str, ...]]]) -> Iterable[str]:
    yield f"  {verb}: ["
    for why, subjects in parts:
        if subjects:
            yield f"    # {why}"
            yield from (f'    "{subject}"' for subject in subjects)
    yield "  ]"


_HEAD = """\
# What gateways and runners have to be allowed{where}, and no more.
# What that keeps from whom: docs/security.md.
# Made by `{command}`; another --namespace needs its own.
"""


def page(namespace: str, *, cluster: bool) -> str:
    """One of the files in `deploy/nats/`."""
    option = " --cluster" if cluster else ""
    head = _HEAD.format(
        where=" where there are replicas" if cluster else "",
        command=f"python -m quarterhour.broker.nats.permissions{option} {namespace}",
    )
    return "\n".join((head, *(permissions(role, namespace, cluster=cluster) for role in ROLES)))


@click.command()
@click.argument("namespace", default="quarterhour")
@click.option("--cluster", is_flag=True, help="For a cluster that keeps replicas.")
def main(namespace: str, *, cluster: bool) -> None:
    """Print what gateways and runners have to be allowed on a NATS server."""
    click.echo(page(namespace, cluster=cluster), nl=False)


if __name__ == "__main__":
    main()
