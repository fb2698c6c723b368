"""Search spaces as data, and the published architectures."""

from search_spaces.base import SearchSpace
from search_spaces.catalog import find_space, space_names

__all__ = ["SearchSpace", "find_space", "space_names"]
