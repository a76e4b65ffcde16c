"""Jobs that the clock rings: each finds its own work, and is safe to run twice at once."""

from celery import shared_task
from django.utils import timezone

from consents import (
    accounts,
    channels,
    clock,
    counting,
    discovery,
    escalation,
    gym,
    health,
    identities,
    inbound,
    intake,
    lifecycle,
    mail,
    oauth,
    propagation,
    readback,
    requests,
    silences,
    speedbump,
    turnstile,
    uploads,
    waiting,
)
from consents.actors import Actor
from consents.api import idempotency
from consents.ledger import erasing, upkeep
from consents.ledger import monitor as own_monitor
from consents.ledger import recount as nightly


@shared_task
def deliver() -> int:
    """Send what is due; returns how many messages were tried."""
    return propagation.deliver_due(now=clock.running())


@shared_task
def read_back() -> int:
    """Ask what became of stops; returns how many were found undone for the first time."""
    found = readback.run(now=clock.running())
    mail.tell_contradicted(found)
    return len(found)


@shared_task
def discover() -> int:
    """Ask organizations what they hold, of whoever is due or asked for it; returns how many answers came in."""
    discovery.enrol(at=timezone.now())
    return discovery.run(now=clock.running())


@shared_task
def escalate() -> int:
    """Take late stops one step further; returns how many steps are new."""
    fresh = escalation.raise_due(by=Actor.system("escalate"), at=clock.now())
    mail.tell_inboxes(fresh)
    mail.tell_duty_contacts(fresh)
    return len(fresh)


@shared_task
def verify_channels() -> int:
    """Test channels with a verification event; returns how many were asked."""
    return health.verify_due(now=clock.running())


@shared_task
def expire() -> dict:
    """End what the calendar ends, and forget answers that are repeated no longer."""
    by, at = Actor.system("expire"), clock.now()
    return {
        **lifecycle.expire_due(by=by, at=at),
        "requests": requests.expire_due(by=by, at=at),
        "answers": idempotency.forget_old(at=at),
        "tokens": oauth.forget_expired(by=by, at=at),
        "turns": turnstile.forget_old(at=at),
    }


@shared_task
def erase() -> int:
    """Erase the people whose account is closed and whose legal hold has ended; returns how many. And forget messages that
    nobody can send again."""
    by, at = Actor.system("erase"), timezone.now()
    inbound.forget_old(at=at)
    uploads.forget_old(at=at)
    counting.forget_old(at=at)
    while waiting.forget_ended(by=by, at=at, today=lifecycle.day(at)):
        pass
    accounts.finish_closing(by=by, at=at)
    return erasing.erase_due(by=by, at=at)


@shared_task
def take_in() -> int:
    """Take in the rows of uploaded files, and what waits for people who have come; returns how many rows were looked at."""
    rows = intake.run(now=clock.running())
    return rows + identities.adopt_strays(by=Actor.system("adopt"), at=clock.now())


@shared_task
def end_closed() -> int:
    """End the subscriptions of services that their operators have closed; returns how many."""
    return inbound.end_closed(at=clock.now())


@shared_task
def warn() -> dict:
    """Raise the speed bump's notices for everybody, and tell of regular flows that have fallen silent."""
    by, at = Actor.system("warn"), timezone.now()
    return {**speedbump.raise_due(by=by, at=at), "silent": silences.raise_due(by=by, at=at)}


@shared_task
def sequence() -> int:
    """Give committed log entries their place and have the tree signed; returns its size."""
    return upkeep.sequence(at=timezone.now())


@shared_task
def cosign() -> int:
    """Show the newest checkpoint to the witnesses; returns the published size."""
    return upkeep.cosign(at=timezone.now())


@shared_task
def monitor() -> int:
    """Verify what is published, from its files alone, and tell when nobody witnesses; returns how many entries hold."""
    at = own_monitor.clock()
    found = own_monitor.watch(at=at)
    mail.tell_unwitnessed(at=at)
    return found.size if found else 0


@shared_task
def recount() -> int:
    """Count the whole log again from the database; returns how many entries it has."""
    return nightly.run().entries


@shared_task
def train() -> int:
    """Run the trials of the organization that has waited longest in the gym; returns how many runs were finished."""
    return gym.run_next(now=timezone.now)


@shared_task
def change_channels() -> dict:
    """Take changes of channels further: verify new addresses, tell the old contacts, open what has waited long enough."""
    proved = channels.prove_due(now=timezone.now)
    by, at = Actor.system("change channels"), timezone.now()
    for change in channels.untold():
        if mail.tell_channel_change(change, at=at):
            channels.note_told(change, by=by, at=at)
    return {"proved": proved, **channels.go_live_due(by=by, at=at)}
