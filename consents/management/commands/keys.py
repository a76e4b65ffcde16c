"""The portal's signing keys from the command line."""

from argparse import REMAINDER, ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from consents import keys
from consents.actors import Actor
from providers import keyring

RESTART = "Restart web and workers now, then run `keys reissue` once: it finds what they signed with the old key meanwhile."


class Command(BaseCommand):
    help = """The keys that sign messages (set) and receipts (receipt); kid is the RFC 7638 thumbprint.

  keys list                      what is published, and which one signs
  keys prepare PURPOSE           publish a next key; receivers may keep our keys for a day
  keys use PURPOSE               a day later: sign with it; the old one stays published; restart web and workers
  keys retire PURPOSE KID        stop publishing an old key: 30 days later, when nothing open is signed with it any more
  keys compromised PURPOSE       somebody may have the key: drop it now, sign with another, sign open messages anew
  keys reissue                   sign open messages anew whose key is published no more; safe at any time

Each change is an entry of the log (key.added, key.retired)."""

    def create_parser(self, *args: Any, **options: Any):
        return super().create_parser(*args, formatter_class=RawDescriptionHelpFormatter, **options)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["list", "prepare", "use", "retire", "compromised", "reissue"])
        parser.add_argument("purpose", nargs="?", choices=keyring.PURPOSES)
        # One thumbprint in sixty-four begins with "-", which argparse would take for an option.
        parser.add_argument("kid", nargs=REMAINDER)

    def handle(self, *args: Any, action: str, purpose: str | None, kid: list[str], **options: Any) -> None:
        if action in {"prepare", "use", "retire", "compromised"} and not purpose:
            raise CommandError(f"keys {action} needs a purpose: {' or '.join(keyring.PURPOSES)}")
        if len(kid) != (action == "retire"):
            raise CommandError("keys retire needs one kid, and nothing else does; `keys list` shows them")
        try:
            getattr(self, f"_{action}")(purpose, *kid)
        except keyring.NotReady as problem:
            raise CommandError(
                "there is no next key that was published for a day: run `keys prepare` first"
            ) from problem
        except keyring.TooSoon as problem:
            raise CommandError(
                "it signed less than 30 days ago, and others may still check what they have from then"
            ) from problem
        except keyring.KeyInUse as problem:
            raise CommandError(
                "this key signs: `keys use` another first, or say `keys compromised`"
            ) from problem
        except keyring.UnknownKey as problem:
            raise CommandError(f"no published key has the kid {problem}") from problem

    def _list(self, _purpose) -> None:
        for purpose in keyring.PURPOSES:
            for kid, state in keyring.keys(purpose):
                self.stdout.write(f"{purpose:<8} {state:<8} {kid}")

    def _prepare(self, purpose: str) -> None:
        known = dict(keyring.keys(purpose))
        kid = keyring.prepare(purpose)
        if kid not in known:
            keys.note_added(kid, by=BY, at=timezone.now())
        self.stdout.write(f"{kid} is published and may sign in a day: keys use {purpose}")

    def _use(self, purpose: str) -> None:
        old, new = keyring.take_up(purpose)
        self.stdout.write(f"{new} signs instead of {old}, which stays published. Restart web and workers.")

    def _retire(self, purpose: str, kid: str) -> None:
        if purpose == "set" and (n := keys.still_open(kid)):
            raise CommandError(f"{n} open messages are signed with it: wait until they are closed")
        keyring.drop(purpose, kid)
        keys.note_retired(kid, by=BY, at=timezone.now())
        self.stdout.write(f"{kid} is published no more")

    def _compromised(self, purpose: str) -> None:
        old, new, n = keys.replace_compromised(purpose, by=BY, at=timezone.now())
        self.stdout.write(f"{old} is dropped, {new} signs; {n} open messages were signed anew.\n{RESTART}")

    def _reissue(self, _purpose) -> None:
        self.stdout.write(f"{keys.reissue(by=BY, at=timezone.now())} messages were signed anew")


BY = Actor.system("keys")
