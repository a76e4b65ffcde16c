"""What the stories share: the other side."""

from tests.partners import partners

__all__ = ["partners"]
