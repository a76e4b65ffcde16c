"""Why an act is refused: one exception a fact."""


class Refused(Exception):
    """The act is not possible now; the class says why."""


class AlreadyEnded(Refused):
    """The subscription or consent has ended. Ended is for ever."""


class AlreadyJoined(Refused):
    """The person has a live subscription to this service."""


class NotOpen(Refused):
    """The operator's licence or the service's state does not allow new consents, nor that one goes on for longer or again."""


class TermsChanged(Refused):
    """The terms that were shown are not the published ones any more."""


class RequiredDeclined(Refused):
    """A required item was not agreed to."""


class NotOffered(Refused):
    """The item, scope, rider or date is not part of what the terms ask."""


class TooYoung(Refused):
    """Below the age of self-use, or the item is not for the person's age."""


class NotActive(Refused):
    """Only an active consent can be paused, only a paused one resumed."""


class NothingToErase(Refused):
    """Still running, already asked for, or already confirmed."""
