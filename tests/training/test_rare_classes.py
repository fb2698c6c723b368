"""A training that repeats images of rare classes and weighs their losses: longer epochs, exact after an interruption."""

from __future__ import annotations

from nas.data.rare import class_weights, repeat_factors
from nas.loss import LossOptions
from nas.training.run import run_training


def test_it_trains_longer_epochs_and_resumes_exactly(tiny, root, tmp_path):
    def task():
        made = tiny.tiny_task(root, {"epochs": 2, "repeat_threshold": 1.0, "evaluate_every": 1})
        made.options.loss = LossOptions(class_balance=0.5)
        return made

    run_training(task(), tmp_path / "straight", progress=False)
    run_training(task(), tmp_path / "paused", progress=False, until=1)
    result = run_training(task(), tmp_path / "paused", resume=True, progress=False)
    data = task().train
    draws = repeat_factors(data, 1.0).sum()
    assert draws > len(data) + 4 and result.steps == 2 * -(-draws // 4)
    for file in ("steps.csv", "epochs.jsonl", "last.safetensors", "best.safetensors"):
        assert (tmp_path / "straight" / file).read_bytes() == (tmp_path / "paused" / file).read_bytes(), file
    weights = class_weights(data.histogram(), 0.5)
    assert weights.min() < 1 < weights.max()
    plain = tiny.tiny_task(root, {"epochs": 2, "repeat_threshold": 1.0, "evaluate_every": 1})
    run_training(plain, tmp_path / "plain", progress=False, until=1)
    one, other = (tiny.steps(tmp_path / name)[0] for name in ("straight", "plain"))
    assert one["class"] != other["class"] and (one["box"], one["dfl"]) == (other["box"], other["dfl"])
