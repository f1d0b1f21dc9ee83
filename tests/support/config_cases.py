"""Configs that the tests of the config stores keep, and what a run is made of."""

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from entropic.configs import (
    ArchitectureConfig,
    ArrayConfig,
    DatasetConfig,
    DataSplitConfig,
    RunConfig,
    StartConfig,
    TaskConfig,
    TrainerConfig,
)


class Volume(ArrayConfig):
    path: str = "/data/raw.zarr"
    voxel_size: tuple[int, int, int] = (8, 8, 8)


class Pair(DatasetConfig):
    raw: ArrayConfig
    gt: ArrayConfig | None = None


class TrainValidate(DataSplitConfig):
    train: list[DatasetConfig]


class Distances(TaskConfig):
    clip: float = 5.0


class UNet(ArchitectureConfig):
    channels: list[int] = Field(default_factory=lambda: [12, 24])


class Gunpowder(TrainerConfig):
    rate: float = 1e-4


ONE_OF_EACH = {
    "task": Distances(name="t1"),
    "architecture": UNet(name="a1"),
    "trainer": Gunpowder(name="g1"),
    "datasplit": TrainValidate(
        name="s1", train=[Pair(name="d1", raw=Volume(name="v1"), gt=Volume(name="v2"))]
    ),
    "dataset": Pair(name="d1", raw=Volume(name="v1")),
    "array": Volume(name="v1"),
}

OTHER = {
    "task": Distances(name="t1", clip=6.0),
    "architecture": UNet(name="a1", channels=[1]),
    "trainer": Gunpowder(name="g1", rate=1.0),
    "datasplit": TrainValidate(name="s1", train=[]),
    "dataset": Pair(name="d1", raw=Volume(name="v9")),
    "array": Volume(name="v1", path="elsewhere"),
}


def run(name="r1", **fields):
    """A run of one of each part, unless *fields* say otherwise."""
    parts = {f"{kind}_config": ONE_OF_EACH[kind] for kind in ("task", "architecture", "trainer", "datasplit")}
    return RunConfig(name=name, **{"num_iterations": 100, **parts, **fields})


class Descent(BaseModel):
    """A model that is no config: documents have no class of it."""

    rate: float = 1e-3


class Augmented(TrainerConfig):
    descent: Descent = Descent()
    augments: set[str] = Field(default_factory=set)
    options: dict[str, Any] = Field(default_factory=dict)


class File(ArrayConfig):
    path: Path


OF_BEFORE = RunConfig(
    name="before",
    trainer_config=Augmented(
        name="g",
        augments={"flip", "crop", "noise"},
        options={"a": None, "b": [1, 2.5, math.inf]},
    ),
    datasplit_config=TrainValidate(name="s", train=[Pair(name="d", raw=File(name="v", path="/p"))]),
    start_config=StartConfig(run="first", criterion="f1"),
)

DOCUMENT_OF_BEFORE = {
    "__type__": "RunConfig",
    "name": "before",
    "architecture_config": None,
    "task_config": None,
    "trainer_config": {
        "__type__": "Augmented",
        "name": "g",
        "descent": {"rate": 0.001},
        "augments": ["flip", "crop", "noise"],
        "options": {"a": None, "b": [1, 2.5, math.inf]},
    },
    "datasplit_config": {
        "__type__": "TrainValidate",
        "name": "s",
        "train": [
            {
                "__type__": "Pair",
                "name": "d",
                "weight": 1,
                "raw": {"__type__": "File", "name": "v", "path": "/p"},
                "gt": None,
            }
        ],
    },
    "repetition": None,
    "num_iterations": None,
    "batch_size": 1,
    "num_workers": 0,
    "validation_interval": 1000,
    "snapshot_interval": None,
    "start_config": {"run": "first", "criterion": "f1"},
    "learning_rate": 0.001,
}
"""What the first release with config stores wrote of `OF_BEFORE`; never to be changed."""
