"""Class names of a detector: given, COCO's eighty, or numbered."""

from __future__ import annotations

from collections.abc import Sequence

from nas.errors import UserError

COCO_CLASSES = tuple(
    (
        "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
        "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,"
        "suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
        "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
        "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,"
        "cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,"
        "toothbrush"
    ).split(",")
)


def numbered(classes: Sequence[str]) -> bool:
    """Whether the names are none, only the labels: "class 0", "class 1", ... as `class_names` gives, or "0", "1", ..."""
    labels = range(len(classes))
    return tuple(classes) in (tuple(f"class {i}" for i in labels), tuple(str(i) for i in labels))


def class_names(num_classes: int, classes: Sequence[str] | None = None) -> tuple[str, ...]:
    """`classes` checked against their number, or default names for it.

    Raises UserError if the two disagree.
    """
    if classes is not None:
        if len(classes) != num_classes:
            raise UserError(f"{len(classes)} class names were given for {num_classes} classes")
        return tuple(str(name) for name in classes)
    if num_classes == len(COCO_CLASSES):
        return COCO_CLASSES
    return tuple(f"class {index}" for index in range(num_classes))
