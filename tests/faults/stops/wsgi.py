"""The portal's web application under `child`."""

from config.wsgi import application
from tests.faults.stops import child

__all__ = ["application"]

child.patch()
