"""Sums over the stages of a neck: below the score through the neck, and by no more than is said."""

from __future__ import annotations

from itertools import product
from random import Random

import numpy as np
import pytest

from nas.frame import Frame
from nas.scorers.formula import level_ends
from nas.scorers.neck_entropy import NeckEntropy
from nas.scorers.neck_gains import NeckGains
from search_spaces import find_space
from search_spaces.giraffe import GiraffeSpace


@pytest.mark.parametrize(("down", "up", "fusion", "depthwise"), product((False, True), (False, True), ("elan", "csp", "conv"),
                                                                        (False, True)))  # fmt: skip
def test_the_score_lies_between_the_sums_and_their_slack(down: bool, up: bool, fusion: str, depthwise: bool) -> None:
    space = find_space("giraffe")
    assert isinstance(space, GiraffeSpace)
    space = space.in_frame(Frame(extra_down=down, extra_up=up, fusion=fusion, depthwise=depthwise))  # type: ignore[arg-type]
    formula = NeckEntropy((1.0, 2.0, 16.0))
    gains = NeckGains(formula.level_weights, *space.necks)
    assert gains.deepest == 19.0
    for seed in range(25):
        spec = space.sample(Random(seed))
        ends, channels = level_ends(spec.backbone, formula, 640)[0], np.array([spec.backbone.out_channels])
        sums = gains.deepest * ends[-1] + gains.sums(spec.neck, channels)[0]
        rises = (ends[-2:-1] - ends[-3:-2], ends[-1:] - ends[-2:-1])
        score, slack = formula.score(spec), gains.slack(channels, *rises)[0]
        assert sums <= score + 1e-9 and score <= sums + slack + 1e-9
        assert 0 < slack < 0.3  # of a score of thousands
        assert gains.slack(channels, rises[0] / 2, rises[1] / 2)[0] >= slack
