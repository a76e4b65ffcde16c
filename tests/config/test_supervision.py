"""The demo's processes: one that dies comes back, what a killed supervisor left is cleared."""

import os
import socket
import subprocess
import sys
import time

import pytest
from django.core.management.base import CommandError

from config import supervision
from config.management.commands import demo
from config.supervision import Child, Supervisor

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def soon(happened) -> bool:
    deadline = time.monotonic() + 10
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.fault
def test_a_child_that_dies_is_started_again_and_told_about(tmp_path):
    supervisor = Supervisor(tmp_path, tmp_path)
    child = Child("worker", SLEEP, tmp_path / "worker.log")
    supervisor.start(child)
    first = child.process.pid
    said = []

    def revive():
        return []

    def say(text):
        said.append(text)

    os.kill(first, 9)
    child.process.wait()
    supervisor._replace(child, time.monotonic(), say)
    assert "worker killed by signal 9: starting it again in 1 s" in said[0]
    supervisor._replace(child, time.monotonic() + 1.1, say)
    assert child.alive()
    assert child.process.pid != first
    supervisor.requests = 1
    supervisor.watch(say, revive)  # asked to stop: returns at once
    supervisor.stop()
    assert len(said) == 1


def test_a_child_that_keeps_dying_is_started_ever_more_slowly(tmp_path):
    supervisor = Supervisor(tmp_path, tmp_path)
    child = Child("web", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "web.log")
    supervisor.start(child)
    said = []
    for _ in range(4):
        child.process.wait()
        supervisor._replace(child, child.started_at, said.append)
        supervisor._replace(child, child.due_at, said.append)
    child.process.wait()
    assert ["in 1 s" in said[0], "in 2 s" in said[1], "in 4 s" in said[2], "in 8 s" in said[3]] == [True] * 4
    assert "exit code 3" in said[0]


def test_stopping_takes_the_grandchildren_along(tmp_path):
    note = tmp_path / "grandchild"
    code = f"""
import subprocess, sys, time, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen(["sleep", "60"]).pid, file=open({str(note)!r}, "w"), flush=True)
time.sleep(60)
"""
    child = Child("stubborn", [sys.executable, "-c", code], tmp_path / "log", patience=0.2)
    child.start(os.environ, tmp_path)
    assert soon(lambda: note.exists() and note.read_text())
    child.stop(lambda: False)
    assert soon(lambda: not alive(int(note.read_text())))
    assert not child.alive()


@pytest.mark.fault
def test_what_a_killed_supervisor_left_is_cleared_and_nothing_else(tmp_path):
    left = subprocess.Popen(["sleep", "60"], env={**os.environ, supervision.MARK: str(tmp_path / "mine")})
    other = subprocess.Popen(["sleep", "60"], env={**os.environ, supervision.MARK: str(tmp_path / "other")})
    supervision.clear_leftovers(tmp_path / "mine")
    assert left.wait(10) == -15
    assert other.poll() is None
    other.kill()
    other.wait()


@pytest.fixture
def taken_port():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_taken_port_is_told_in_one_line_before_anything_starts(taken_port, tmp_path, monkeypatch):
    monkeypatch.setattr(demo.embedded, "state_dir", lambda: tmp_path)
    with pytest.raises(CommandError, match=f"port {taken_port}, needed for .*--port N$"):
        demo.Command().handle(prepare=False, port=taken_port, people=1, fresh=False)
    assert [path.name for path in tmp_path.iterdir()] == ["demo.lock"]


def test_a_second_demo_of_the_same_checkout_is_told_where_the_first_runs(taken_port, tmp_path, monkeypatch):
    monkeypatch.setattr(demo.embedded, "state_dir", lambda: tmp_path)
    (tmp_path / "run.json").write_text('{"pid": 42, "url": "http://127.0.0.1:8000"}')
    with (tmp_path / "demo.lock").open("a") as lock:
        demo.fcntl.flock(lock, demo.fcntl.LOCK_EX)
        with pytest.raises(CommandError, match=r"runs already at http://127.0.0.1:8000 \(process 42\)"):
            demo.Command().handle(prepare=False, port=taken_port, people=1, fresh=False)


def test_the_sign_ins_stand_in_columns_with_hangul_too(tmp_path):
    (tmp_path / "demo.json").write_text(
        '[{"label": "이용자", "email": "a@example.kr", "password": "one"},'
        ' {"label": "regulator", "email": "bb@example.kr", "password": "two"}]'
    )
    shown = demo.welcome(tmp_path, "http://127.0.0.1:8000").splitlines()
    first, second = (line for line in shown if "@" in line)
    assert demo.width(first.split("a@")[0]) == demo.width(second.split("bb@")[0])
    assert "http://127.0.0.1:8000" in shown[1]
