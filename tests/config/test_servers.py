"""The embedded servers: shared, stopped by the last user, cleaned up after a kill -9."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from config import embedded, servers

KINDS = [servers.Valkey, servers.Postgres]


@pytest.fixture
def home():
    path = Path(tempfile.mkdtemp(prefix="portal-try-", dir=servers.temporary()))
    path.chmod(0o711)  # as root, the servers' own account passes through
    yield path
    for kind in KINDS:
        kind(path).stop()
    shutil.rmtree(path)


def owner_elsewhere(kind: type[servers.Server], home: Path) -> subprocess.Popen:
    """Another process that has acquired the server and holds it."""
    code = f"""
import time
from pathlib import Path
from config import servers
servers.{kind.__name__}(Path({str(home)!r})).acquire()
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=embedded.CHECKOUT
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("kind", KINDS)
def test_users_share_one_server_and_the_last_one_stops_it(kind, home):
    first, second = kind(home), kind(home)
    first.acquire()
    second.acquire()
    assert first.pid() == second.pid() is not None
    assert first.url() == second.url()
    first.release()
    assert second.answers()
    second.release()
    first.stop()  # it was the parent, and buries it
    assert second.pid() is None
    assert not (second.home / "socket").exists()


@pytest.mark.fault
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_owner_left_is_replaced(kind, home):
    owner = owner_elsewhere(kind, home)
    left = kind(home).pid()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert kind(home).pid() == left
    heir = kind(home)
    heir.acquire()
    assert heir.answers()
    assert heir.pid() != left
    heir.release()
    assert heir.pid() is None


@pytest.mark.fault
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_died_comes_back_at_its_address(kind, home):
    server = kind(home)
    server.acquire()
    address = server.url()
    assert not server.revive()
    os.kill(server.pid(), signal.SIGKILL)
    assert servers._wait(lambda: not server.answers(), 5)
    assert server.revive()
    assert server.url() == address
    assert server.answers()
    server.release()


@pytest.mark.fault
def test_an_owner_killed_while_another_uses_the_server_changes_nothing(home):
    owner = owner_elsewhere(servers.Valkey, home)
    other = servers.Valkey(home)
    other.acquire()
    running = other.pid()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    third = servers.Valkey(home)
    third.acquire()
    assert third.pid() == running
    third.release()
    assert other.answers()
    other.release()
    assert other.pid() is None


def test_a_pid_file_that_names_a_stranger_is_not_believed(home):
    server = servers.Valkey(home)
    server.data.mkdir(parents=True)
    with subprocess.Popen(["sleep", "30"]) as stranger:
        (server.data / server.pid_name).write_text(f"{stranger.pid}\n")
        assert server.pid() is None
        server.stop()
        assert stranger.poll() is None
        stranger.kill()


def test_data_in_use_is_not_erased(home):
    server = servers.Valkey(home)
    server.acquire()
    with pytest.raises(servers.InUse, match="stop it"):
        servers.Valkey(home).erase()
    server.release()
    servers.Valkey(home).erase()
    assert not server.data.exists()


def test_data_of_another_postgres_is_refused_in_words(home):
    server = servers.Postgres(home)
    server.data.mkdir(parents=True)
    (server.data / "PG_VERSION").write_text("15\n")
    with pytest.raises(servers.CannotStart, match="PostgreSQL 15, not 18"):
        server.acquire()


def test_a_server_that_cannot_start_says_why(home, monkeypatch):
    server = servers.Valkey(home)
    monkeypatch.setattr(server, "command", lambda: ["sh", "-c", "echo no luck today; exit 1"])
    with pytest.raises(servers.CannotStart, match="no luck today"):
        server.acquire()


def test_a_socket_folder_taken_by_somebody_else_is_not_used(home, tmp_path):
    server = servers.Valkey(home)
    server.home.mkdir()
    taken = tmp_path / "taken"
    taken.mkdir(mode=0o777)
    taken.chmod(0o777)
    (server.home / "socket").write_text(str(taken))
    fresh = server.socket_folder()
    assert fresh != taken
    assert fresh.stat().st_mode & 0o777 == 0o700


def test_servers_listen_on_their_private_socket_only(home):
    server = servers.Postgres(home, ephemeral=True)
    server.acquire()
    with psycopg.connect(server.url()) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW server_version_num").fetchone()[0].startswith("18")
    assert server.socket_folder().stat().st_mode & 0o777 == 0o700
    server.release()


def test_the_given_address_wins(monkeypatch):
    started = time.monotonic()
    monkeypatch.setenv("DATABASE_URL", "postgresql://given/portal")
    monkeypatch.setenv("REDIS_URL", "redis://given/0")
    with embedded.provide(ephemeral=True):
        assert os.environ["DATABASE_URL"] == "postgresql://given/portal"
        assert os.environ["REDIS_URL"] == "redis://given/0"
    assert time.monotonic() - started < 5
