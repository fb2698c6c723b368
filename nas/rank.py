"""`python -m nas.rank`: training-free scorers on one network, on a file of networks, or on a tabular benchmark."""

from __future__ import annotations

from nas.config.launch import launch
from nas.config.rank import RankConfig


def _run(config: RankConfig) -> None:
    from omegaconf import OmegaConf

    from nas.commands.rank import run_ranking

    settings = OmegaConf.to_object(config)  # type: ignore[arg-type]
    assert isinstance(settings, RankConfig)
    print(run_ranking(settings))


if __name__ == "__main__":
    launch("rank", RankConfig, _run)
