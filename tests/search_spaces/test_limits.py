"""Every shipped space can be chosen in a search, and every limit be set, as the space itself says them."""

from __future__ import annotations

import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from nas.commands.search import SearchCommand
from nas.config import offer_schema
from search_spaces import find_space, space_names


@pytest.mark.parametrize("name", space_names())
def test_a_search_may_set_every_limit_of_a_space(name: str) -> None:
    offer_schema("search", SearchCommand)
    limits = OmegaConf.to_container(ConfigStore.instance().repo["space"][f"{name}.yaml"].node)
    assert isinstance(limits, dict) and limits.pop("name") == name
    assert limits.keys() == find_space(name).limits().keys()
    assert find_space(name, **limits) == find_space(name)
