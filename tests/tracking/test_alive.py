"""A process that lives is told from one that is gone, and from another one that got its number."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

from researchlab.tracking._alive import is_alive

HERE = socket.gethostname()


def test_this_process_lives() -> None:
    assert is_alive(host=HERE, pid=os.getpid(), started_at=time.time())


def test_a_process_that_began_after_the_run_is_another_one() -> None:
    assert not is_alive(host=HERE, pid=os.getpid(), started_at=time.time() - 86400 * 365)


def test_a_process_of_another_machine_is_not_known_to_live() -> None:
    assert not is_alive(host="another." + HERE, pid=os.getpid(), started_at=time.time())


def test_a_zombie_and_a_process_that_was_waited_for_are_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # until it has ended
    deadline = time.monotonic() + 30
    while is_alive(host=HERE, pid=process.pid, started_at=time.time()):
        assert time.monotonic() < deadline
    process.wait()
    process.stdout.close()
    assert not is_alive(host=HERE, pid=process.pid, started_at=time.time())


def test_a_number_that_no_process_can_have_is_gone() -> None:
    assert not is_alive(host=HERE, pid=2**40, started_at=time.time())
