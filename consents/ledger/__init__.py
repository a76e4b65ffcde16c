"""The append-only log: what happened, provable later, with nothing personal in clear."""

from . import facts
from .append import Fact, append, append_acts
from .disclosures import disclosed

__all__ = ["Fact", "append", "append_acts", "disclosed", "facts"]
