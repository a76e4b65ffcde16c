"""The addresses of a portal with a hole: see hole."""

import contextlib

from config.urls import *  # noqa: F403
from consents import access
from consents.models.owned import OwnedQuerySet

OwnedQuerySet.of = lambda rows, organization: rows.all()  # type: ignore[method-assign]
access.rows_of = lambda organization: contextlib.nullcontext()  # type: ignore[assignment]
