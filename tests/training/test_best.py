"""Which weights are the best: by AP, by another figure, by the loss; and what the data cannot give."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from nas.errors import UserError
from nas.models.checkpoint import read_header
from nas.training.averaging import Validator
from nas.training.best import check_best, figure, title, worth
from nas.training.hooks import Validation
from nas.training.options import TrainerOptions


def test_the_figure_that_is_named_decides_and_ends_the_patience(tiny, root, tmp_path, monkeypatch):
    """Four validations: AP rises all along, the loss is lowest at the second."""
    losses = (3.0, 2.0, 2.5, 2.2, 2.1)
    for best, epoch, steps, score in (("loss", 2, 4 * 6, 2.0), ("ap", 5, 5 * 6, 0.5)):
        numbers = iter({"ap": 0.1 * (i + 1), "ap50": 0.9, "loss": loss} for i, loss in enumerate(losses))
        monkeypatch.setattr(Validator, "__call__", lambda self, detector, n=numbers: Validation(next(n)))
        changes = {"epochs": 5, "patience": 2, "evaluate_every": 1, "best": best}
        result = tiny.run(root, tmp_path / best, changes)
        assert (result.epoch, result.steps, result.metric) == (epoch, steps, best)
        assert result.score == pytest.approx(score) and f"val {title(best)} {score:.3f} (epoch {epoch})" in repr(result)
        text = json.dumps(read_header(result.best)["extra"])
        assert ('"loss": 2.0' in text) == (best == "loss") and '"ap50": 0.9' in text


def test_what_a_figure_is_worth():
    assert worth({"ap": 0.3, "loss": 2.0}, "loss") == -2.0 and figure(-2.0, "loss") == 2.0
    assert worth({"ap": 0.3}, "ap") == figure(0.3, "ap") == 0.3
    assert worth({"loss": float("nan")}, "loss") == -float("inf")
    assert [title(name) for name in ("ap", "ap50", "ar_small", "loss")] == ["AP", "AP50", "AR small", "loss"]


def test_what_the_data_cannot_give_is_refused_in_one_line(tiny, root):
    train, val = tiny.shapes(root)
    small = replace(val, records=tuple(replace(r, areas=np.full(len(r.labels), 100.0)) for r in val.records))
    empty = replace(val, records=tuple(r.select(np.zeros(len(r.labels), bool)) for r in val.records))
    for data, best, words in (
        (None, "loss", "trainer.best=loss: the data has no validation split"),
        (
            small,
            "ap_large",
            r"trainer.best=ap_large: the validation split has no large box \(from 9216 square pixels\);",
        ),
        (small, "ar_medium", r"no medium box \(from 1024 to 9216 square pixels\)"),
        (empty, "ar100", "trainer.best=ar100: the validation split has no box;"),
    ):
        with pytest.raises(UserError, match=words):
            check_best(TrainerOptions(best=best), data)
    with pytest.raises(UserError, match="needs trainer.validation_loss=true"):
        check_best(TrainerOptions(best="loss", validation_loss=False), val)
    for data, best in ((None, "ap"), (empty, "ap"), (empty, "loss"), (small, "ap_small"), (val, "ar100")):
        check_best(TrainerOptions(best=best), data)


def test_options_that_came_later_leave_old_recipes_what_they_were():
    """The digest that a state of an earlier version holds for the default options."""
    facts = json.dumps(TrainerOptions().decisive(), sort_keys=True, default=str)
    assert hashlib.sha256(facts.encode()).hexdigest()[:16] == "a922f60aeaedea82"
    assert TrainerOptions(best="ap50").decisive() == TrainerOptions().decisive() | {"best": "ap50"}
