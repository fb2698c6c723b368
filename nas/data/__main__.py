"""python -m nas.data data=FOLDER: look at a data set, convert it between COCO and YOLO, or fetch it.

    python -m nas.data data=bccd                                                 report: counts, classes, problems
    python -m nas.data data=bccd action=convert to=yolo output=data/bccd_yolo    (to=coco likewise)
    python -m nas.data data=coco action=fetch [output=data/coco]                downloads and checks

Sources (in conf/data/*.yaml under `download`; from a mirror or a local copy with
'data.download=[{url: file:///..., checksum: null}]'): COCO 2017, 19 GB, annotations CC BY 4.0, https://cocodataset.org.
Three small sets whose corrected annotations and splits come with maenas (annotations_raw has none of the corrections):
bccd, 8 MB, MIT, https://github.com/Shenggan/BCCD_Dataset; cards, Apache-2.0, the playing cards of
https://github.com/EdjeElectronics/TensorFlow-Object-Detection-API-Tutorial-Train-Multiple-Objects-Windows-10; aquarium,
CC BY 4.0, Roboflow, as kept by https://github.com/sumit2011/underwater-object-detection. shapes is drawn, not fetched.
"""

from __future__ import annotations

from pathlib import Path

from nas.config import Job, launch
from nas.data.actions import DataCommand


def main() -> None:
    """Entry point of `python -m nas.data`."""
    launch("data", DataCommand, _run)


def _run(command: DataCommand, job: Job) -> None:
    from nas.data.actions import run_data_action

    for line in run_data_action(command, Path(command.output) if command.output else None):
        print(line)


if __name__ == "__main__":
    main()
