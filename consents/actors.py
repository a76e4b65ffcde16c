"""Who did it: every act names its actor."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Actor:
    """`kind` is person, organization, regulator, staff or system; `id` names which one (a job's name for system)."""

    kind: str
    id: str = ""
    organization_id: UUID | None = None

    @classmethod
    def person(cls, person) -> "Actor":
        return cls("person", str(person.pk))

    @classmethod
    def organization(cls, organization, *, member=None) -> "Actor":
        """An organization's server, or (`member`) one of its admins at the desk."""
        return cls("organization", str(member.pk if member else organization.code), organization.pk)

    @classmethod
    def regulator(cls, person) -> "Actor":
        return cls("regulator", str(person.pk))

    @classmethod
    def system(cls, job: str) -> "Actor":
        return cls("system", job)
