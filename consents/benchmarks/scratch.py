"""A database and folders that exist for one benchmark: the portal's own rows, tiles and keys are never touched."""

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from psycopg import sql

from consents.ledger import signer, witness
from providers import datafiles, policy

PREFIX = "bench_"
PATIENCE = 20.0  # seconds for the witness to listen


@contextlib.contextmanager
def database() -> Iterator[None]:
    """The default connection leads to a migrated database of its own, dropped at the end, also by Ctrl-C."""
    default = connections["default"]
    name, before, alias = PREFIX + secrets.token_hex(6), default.settings_dict["NAME"], settings.LEDGER_ALIAS
    server = default.get_connection_params()
    for ours in ("cursor_factory", "context", "prepare_threshold"):
        server.pop(ours, None)
    default.close()
    with psycopg.connect(**server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        default.settings_dict["NAME"], settings.LEDGER_ALIAS = name, "default"
        call_command("migrate", verbosity=0, interactive=False)
        datafiles.load_policy()
        yield
    finally:
        default.close()
        default.settings_dict["NAME"], settings.LEDGER_ALIAS = before, alias
        policy.forget()
        with psycopg.connect(**server, autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextlib.contextmanager
def folders() -> Iterator[Path]:
    """Tiles, signer and policy lie in a temporary folder; answers it."""
    names = ("LEDGER_DIR", "SIGNER_DIR", "SIGNER_SOCKET", "LEDGER_POLICY", "WITNESS_URL")
    before = {name: getattr(settings, name) for name in names}
    with tempfile.TemporaryDirectory(prefix="portal-bench-") as made:
        home = Path(made)
        settings.LEDGER_DIR, settings.SIGNER_DIR = home / "ledger", home / "signer"
        settings.SIGNER_SOCKET, settings.LEDGER_POLICY = "", home / "ledger" / "policy.txt"
        try:
            yield home
        finally:
            for name, value in before.items():
                setattr(settings, name, value)


@contextlib.contextmanager
def real_witness(home: Path) -> Iterator[None]:
    """A witness in a process of its own, that the scratch log's policy asks for."""
    key = signer.make(settings.SIGNER_DIR, settings.LEDGER_ORIGIN)
    folder = home / "witness"
    mine, _new = witness.make(folder, name="bench.invalid/witness", logs=[str(key)])
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "witness", "serve", "--dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().rpartition(" ")[2].strip()
        if not url.startswith("http"):
            raise RuntimeError("the witness did not start")
        settings.WITNESS_URL = url
        settings.LEDGER_DIR.mkdir(parents=True, exist_ok=True)
        settings.LEDGER_POLICY.write_text(
            f"log {key}\nwitness bench {mine} {url}\nquorum bench\n", encoding="utf-8"
        )
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)
        assert process.stdout is not None
        process.stdout.close()
