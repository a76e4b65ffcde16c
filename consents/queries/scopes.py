"""What is handed over, in plain words: the rows of the scope catalogue behind standard scope codes."""

from collections.abc import Iterable

from django.utils.translation import ngettext

from providers.models import Scope


def catalogue() -> list[Scope]:
    """Every kind of data the portal knows. One query; a page asks once and looks up in it."""
    return list(Scope.objects.all())


def in_words(codes: Iterable[str], riders: Iterable[str], known: list[Scope]) -> list[Scope]:
    """The kinds of data behind `codes`, most sensitive first; sensitive riders only where they are switched on.

    A code that the catalogue does not know is shown as it is, so that nothing is hidden."""
    wanted, switched = set(codes), {"", *riders}
    found = [scope for scope in known if wanted & set(scope.codes) and scope.rider in switched]
    unknown = wanted - {code for scope in known for code in scope.codes}
    found += [
        Scope(item="", name_ko=code, name_en=code, sensitivity=3, position=0) for code in sorted(unknown)
    ]
    return sorted(found, key=lambda scope: (-scope.sensitivity, scope.position))


def shortened(scopes: list[Scope], most: int = 5) -> list[Scope]:
    """The first few, and one that says how many more there are."""
    rest = len(scopes) - most
    if rest <= 1:
        return scopes
    words = ngettext("그 밖에 %(n)d가지", "그 밖에 %(n)d가지", rest) % {"n": rest}
    return [*scopes[:most], Scope(item="", name_ko=words, name_en=words, sensitivity=1)]
