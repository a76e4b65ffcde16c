"""What a delivery asks its receiver to do, and which step is owed next, in the words of the people who must do it."""

from django.utils.translation import gettext as _

from consents.models import Delivery
from consents.parties import RANK

STEPS = ("received", "stopped", "erased")


def task(delivery: Delivery) -> str:
    """What this organization must do, as a request in one sentence."""
    match delivery.goal, delivery.role, delivery.event:
        case "erased", _role, "erasure-requested":
            return _("받아간 정보를 지워 주세요.")
        case "erased", "recipient", _event:
            return _("넘겨받은 정보를 더 쓰지 말고, 지워 주세요.")
        case "erased", _role, _event:
            return _("정보를 그만 받고, 받아간 정보를 지워 주세요.")
        case "stopped", _role, "consent-paused":
            return _("정보를 잠시 주고받지 마세요.")
        case "stopped", "source", _event:
            return _("이 서비스로 정보를 더 보내지 마세요.")
        case "stopped", "recipient", _event:
            return _("정보를 더 넘겨받거나 쓰지 마세요.")
        case "stopped", _role, _event:
            return _("정보를 더 받지 마세요.")
    return _("알림을 받았다고 확인해 주세요.")


def owed_step(delivery: Delivery) -> str | None:
    """`received`, `stopped` or `erased`: what has to come next; None when nothing is owed any more."""
    if delivery.closed_at is not None:
        return None
    reached = RANK.get(delivery.state, 0)
    return next((step for step in STEPS if reached < RANK[step] <= RANK[delivery.goal]), None)


def possible_steps(delivery: Delivery) -> list[str]:
    """What can still be stated. A lawful refusal closes the duty, but erasing can be confirmed later all the same."""
    if delivery.overtaken:
        return []
    reached, goal = RANK.get(delivery.state, 0), RANK[delivery.goal]
    steps = [step for step in STEPS if reached < RANK[step] <= goal]
    if delivery.closed_at is not None:
        return [step for step in steps if step == "erased"]
    return [*steps, "retained"] if "erased" in steps else steps
