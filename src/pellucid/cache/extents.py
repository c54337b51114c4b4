"""The old home of `Cache` and `Row`; to be removed when everything imports them from where they are."""

from pellucid.cache.cache import Cache
from pellucid.cache.row import Row

__all__ = ["Cache", "Row"]
