"""Programs that a world runs in its own environment: the delivery job under a clock that is turned by hand, and a rotation of
every key."""

import datetime
import json
import os
import sys
import time
from pathlib import Path

import django


def three_days(limit: int) -> dict:
    """Runs the jobs of delivering and escalating at each moment that something is due, for as long as any message waits: when
    each was tried, in seconds after it was owed, what became of it, and which steps were told."""
    from django.utils import timezone

    from consents import escalation, propagation
    from consents.actors import Actor
    from consents.models import Breaker, Delivery, Escalation

    waiting = Delivery.objects.filter(state__in=["queued", "retrying"])
    clock, tries = timezone.now(), {}
    claim = propagation.claim

    def claims(**options):
        rows = claim(**options)
        for row in rows:
            tries.setdefault(str(row.jti), []).append(options["at"].timestamp() - row.owed_since)
        return rows

    propagation.claim = claims
    for _ in range(limit):
        if not waiting.exists():
            break
        tried = propagation.deliver_due(now=lambda at=clock: at, seconds=2)
        escalation.raise_due(by=Actor.system("escalate"), at=clock)
        if not tried:
            # Nothing is due, or what is due waits for its breaker.
            moments = [
                *waiting.filter(next_at__gt=clock).order_by("next_at").values_list("next_at", flat=True)[:1],
                *Breaker.objects.filter(open_until__gt=clock).values_list("open_until", flat=True),
                clock + datetime.timedelta(minutes=15),
            ]
            clock = min(moments) + datetime.timedelta(milliseconds=1)
    escalation.raise_due(by=Actor.system("escalate"), at=clock)
    rows = Delivery.objects.filter(jti__in=tries)
    steps = Escalation.objects.filter(delivery__in=rows).values_list("delivery__jti", "step")
    return {
        "tries": tries, "states": {str(jti): state for jti, state in rows.values_list("jti", "state")},
        "steps": [[str(jti), step] for jti, step in steps], "waiting": waiting.count(),
    }  # fmt: skip


def rotate(seconds: float, every: float) -> None:
    """Every channel gets a new secret and the portal a new signing key, again and again; each line of output tells the
    operators theirs. A key is published one round before it is used, and stays published afterwards."""
    from django.utils import timezone

    from providers import registry, signing
    from providers.models import Channel

    folder, deadline, number = Path(os.environ["PORTAL_KEYS_DIR"]), time.monotonic() + seconds, 0
    signing.public_jwks()
    while time.monotonic() < deadline:
        number += 1
        if (folder / "set.next.pem").exists():
            os.link(folder / "set.pem", folder / f"set.{number}.pem")
            os.replace(folder / "set.next.pem", folder / "set.pem")
        (folder / "set.next.new").write_bytes(signing.new_key())
        os.replace(folder / "set.next.new", folder / "set.next.pem")
        told = {}
        for channel in Channel.objects.filter(state="open").select_related("organization"):
            told[channel.organization.code] = signing.new_webhook_secret()
            registry.rotate_key(channel=channel, secret=told[channel.organization.code], at=timezone.now())
        print(json.dumps(told), flush=True)
        time.sleep(every)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from tests.faults.stops import child

    child.patch()
    if sys.argv[1] == "three_days":
        print(json.dumps(three_days(int(sys.argv[2]))))
    else:
        rotate(float(sys.argv[2]), float(sys.argv[3]))


if __name__ == "__main__":
    main()
