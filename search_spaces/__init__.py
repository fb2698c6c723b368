"""Search spaces as data, and the published architectures."""

from search_spaces.base import SearchSpace
from search_spaces.catalog import find_space, space_names
from search_spaces.published import load_published, published_names

__all__ = ["SearchSpace", "find_space", "load_published", "published_names", "space_names"]
