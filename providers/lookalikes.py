"""Which names a person could take for one another (T11). A service must not carry another company's name, or one that
looks like it.

The skeleton leaves out what the eye passes over: case, width, accents, spaces, punctuation, and the few letters that look
alike within our scripts. Letters of other scripts are refused where a name is read.
"""

import unicodedata
from collections.abc import Iterable, Iterator

from django.db.models import Q

from providers.models import Organization, Service

# Unicode's confusables (UTS 39) as far as Latin letters and digits go; "rn" and "vv" are read as one letter.
_LETTERS = str.maketrans(
    {"0": "o", "1": "l", "i": "l", "ı": "l", "ɩ": "l", "ɑ": "a", "ɡ": "g", "5": "s", "ʏ": "y"}
)
_PAIRS = (("rn", "m"), ("vv", "w"))


def skeleton(name: str) -> str:
    """What is left of a name when everything that is easily overlooked is gone; equal for names that look alike."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    letters = "".join(sign for sign in plain if unicodedata.category(sign)[0] in "LN").translate(_LETTERS)
    for pair, one in _PAIRS:
        letters = letters.replace(pair, one)
    return letters


def taken(names: Iterable[str], *, organization: Organization) -> str:
    """The first of `names` that could be taken for the name of another firm or of its service; empty where there is none.

    Codes of one firm are one firm; a closed service leaves its name to others. Two queries."""
    others = {skeleton(name) for name in _of_others(organization)} - {""}
    return next((name for name in names if skeleton(name) in others), "")


def _of_others(organization: Organization) -> Iterator[str]:
    own = Q(pk=organization.pk)
    if organization.registration_number:
        own |= Q(registration_number=organization.registration_number)
    others = Organization.objects.exclude(own)
    services = Service.objects.filter(organization__in=others).exclude(state=Service.State.CLOSED)
    for rows in (others, services):
        for pair in rows.order_by().values_list("name_ko", "name_en"):
            yield from pair
