"""What the program imports before it does anything: somebody waits for all of it. Each time in a process of its own, since this one has everything."""

from __future__ import annotations

import subprocess
import sys

VERB = "from firebrick.cli.main import VERBS; VERBS['run'].load('run')"
RUN = f"{VERB}; import firebrick.cli.order, firebrick.node.node; from firebrick.machine import Qemu"


def imported(code: str) -> set[str]:
    """The modules that are there once `code` has run."""
    shown = f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_verb_that_is_not_carried_out_waits_for_no_node_and_no_machine() -> None:
    found = imported(VERB)
    assert "firebrick.cli.run" in found
    assert not found & {"firebrick.node.node", "firebrick.machine", "firebrick.workflow.reader", "ruamel.yaml", "rich"}


def test_a_run_under_qemu_waits_for_no_other_driver() -> None:
    found = imported(RUN)
    assert "firebrick.machine.qemu.driver" in found
    assert not found & {"firebrick.machine.firecracker", "firebrick.machine.fake", "firebrick.guest.double", "h11"}


def test_a_run_waits_for_nothing_that_only_some_jobs_use() -> None:
    found = imported(RUN)
    assert "firebrick.node.action.native" in found
    assert not found & {
        "firebrick.node.checkout.checkout",
        "firebrick.node.action.artifact",
        "firebrick.node.dockerfile",
        "firebrick.dockerfile",
        "firebrick.image.debian",
        "firebrick.machine.network.pool",
        "firebrick.machine.jail.jailer",
        "firebrick.server",
        "re2",
        "rich",
        "sqlalchemy",
        "starlette",
    }


def test_every_driver_is_where_it_is_asked_for() -> None:
    wanted = "Fake, Faults, Firecracker, FirecrackerMachine, FirecrackerSettings, Qemu"
    found = imported(f"from firebrick.machine import {wanted}")
    assert {f"firebrick.machine.{name}" for name in ("fake", "firecracker", "qemu")} <= found
    assert "AttributeError" in imported(
        "import firebrick.machine\ntry: firebrick.machine.Xen\nexcept AttributeError as e: print(type(e).__name__)"
    )
