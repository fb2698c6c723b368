"""What docs/extending.md has one write and run works as printed, outside the clone, with the package installed from a wheel."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nas.data.shapes import draw_shapes

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/extending.md").read_text()
#: What makes each command short, and small enough for a test; the commands themselves stay as they are printed.
SHORT = {
    "nas.profile": "image_size=64 networks=4 validation_networks=5 repetitions=3",
    "nas.search": "image_size=64 evaluations=60 progress=false",
    "nas.rank": "resamples=5 progress=false",
    "nas.compare": "image_size=64",
    "nas.train": (
        "image_size=64 device=cpu progress=false test=false trainer.epochs=1 trainer.batch_size=4 trainer.workers=0"
        " trainer.schedule.warmup_epochs=0 augmentation.closing_epochs=0"
    ),
    "nas.export": "check_images=2",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_everything_of_ones_own_runs_beside_an_installed_package(wheel_site: Path, tmp_path: Path) -> None:
    known = {name: value for name, value in os.environ.items() if not name.startswith("MAENAS_")}
    environment = known | {"PYTHONPATH": str(wheel_site), "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr[-1500:]}"
        return done.stdout

    origin = run("-c", "import nas, search_spaces; print(nas.__file__, search_spaces.__file__)").split()
    assert all(path.startswith(str(wheel_site)) for path in origin)
    draw_shapes(tmp_path / "my_data", counts={"train": 8, "val": 4, "test": 0}, size=96)
    written = 0
    for block in blocks("python"):
        named = re.match(r"# (\S+\.py)\n", block)
        if named:
            path = tmp_path / named[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block)
            written += 1
        else:
            run("-c", block.replace("evaluations=500", "evaluations=60"))
    assert written == 3 and (tmp_path / "own.yaml").is_file()
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines() if line]
    seen = set()
    for line in lines:
        python, dash, main, *words = shlex.split(line)
        assert (python, dash) == ("python", "-m")
        run("-m", main, *words, *SHORT[main].split())
        seen.add(main)
    assert seen == set(SHORT)
    assert (tmp_path / "outputs/own/best.onnx").is_file()
