#!/usr/bin/env python
"""Django's commands; where no database or broker is given, the embedded ones run for as long as the command does."""

import os
import signal
import sys

DEMO = "demo"  # brings its own servers, and Django only in its children
ALONE = {"signer", "witness"}  # need neither database nor broker


def main(arguments: list[str]) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    # A polite kill goes through `finally` too, or the embedded servers would outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = arguments[1] if len(arguments) > 1 else "help"
    if command == DEMO:
        from config.management.commands.demo import Command

        Command().run_from_argv(arguments)
        return

    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line
    from django.db.utils import OperationalError

    from config import embedded

    if command in ("help", "--help", "-h", "--version", "version") or {"--help", "-h"} & set(arguments):
        embedded.pretend()  # to explain itself a command needs settings, not servers
        execute_from_command_line(arguments)
        return
    if command in ALONE:
        embedded.pretend()
        try:
            execute_from_command_line(arguments)
        except ImproperlyConfigured as problem:
            sys.exit(f"portal: {problem}")
        except KeyboardInterrupt:
            sys.exit(130)
        return
    try:
        with embedded.provide():
            execute_from_command_line(arguments)
    except embedded.CannotStart as problem:
        sys.exit(f"portal: {problem}")
    except ImproperlyConfigured as problem:
        sys.exit(f"portal: {problem}")
    except OperationalError as problem:
        reason = str(problem).strip().splitlines()[0]
        sys.exit(f"portal: the database does not answer, check DATABASE_URL: {reason}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main(sys.argv)
