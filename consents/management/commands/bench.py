"""Benchmarks from the command line."""

import json
import os
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable
from typing import Any

import psycopg
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from consents.benchmarks import Result, holdings, ledger, steady, stops, tokens

BENCHES: dict[str, Callable[..., Result]] = {
    "ledger": ledger.run,
    "claim": stops.claim,
    "propagation": stops.propagate,
    "celery": steady.celery,
    "holdings": holdings.run,
    "tokens": tokens.run,
}
_NUMBERS = ("entries", "rounds", "leaves")


class Command(BaseCommand):
    help = (
        "How fast the portal is on this machine, against a limit measured in the same run. NAME: ledger (sequencing, "
        "witnessing, verifying, proving), claim (rows claimed and finished), propagation (messages sent and recorded), celery (stops from act "
        "to received under a steady load), holdings (a million reported rows taken in), tokens (access tokens of servers, and of one beside another's flood), or all. Everything happens in a scratch database on the same server and in a temporary folder, which are gone afterwards; the portal's own log is not touched. Machines are noisy: read the "
        "ratio, and the load average beside it."
    )

    def create_parser(self, *args: Any, **options: Any):
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **options)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", metavar="NAME", help=f"{', '.join(BENCHES)} or all")
        parser.add_argument("--json", action="store_true", help="print one JSON object per benchmark, last")
        parser.add_argument("--entries", type=int, default=1_000_000, help="entries of the full run")
        parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of ours and the limit")
        parser.add_argument("--leaves", type=int, default=10_000_000, help="leaves of the tree proved from")

    def handle(self, *args: Any, name: str, **options: Any) -> None:
        if name not in {*BENCHES, "all"}:
            raise CommandError(f"there is no benchmark {name}: choose {', '.join(BENCHES)} or all")
        if wrong := [option for option in _NUMBERS if options[option] < 1]:
            raise CommandError(f"--{wrong[0]} must be at least 1")
        results = []
        for each in BENCHES if name == "all" else [name]:
            start = time.perf_counter()
            try:
                result = BENCHES[each](
                    count=options["entries"], rounds=options["rounds"], leaves=options["leaves"],
                    say=lambda line: self.stderr.write(self.style.NOTICE(line)),
                )  # fmt: skip
            except (DatabaseError, psycopg.Error, OSError, RuntimeError) as problem:
                raise CommandError(f"{each}: {problem}".strip()) from problem
            result.detail["load_average"] = round(os.getloadavg()[0], 1)
            result.detail["seconds"] = round(time.perf_counter() - start, 1)
            results.append(result)
        for result in results:
            self._print(result)
        for result in results if options["json"] else ():
            self.stdout.write(json.dumps(result.as_dict(), ensure_ascii=False))

    def _print(self, result: Result) -> None:
        self.stdout.write(
            f"{result.bench}: {result.ours:,} {result.unit}, limit {result.limit:,}, ratio {result.ratio}; "
            f"{'holds' if result.holds else 'DOES NOT HOLD'}: {result.goal}"
        )
        for key, value in result.detail.items():
            self.stdout.write(f"  {key}: {value}")
