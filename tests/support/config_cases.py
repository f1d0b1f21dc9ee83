"""Configs that the tests of the config stores keep, and what a run is made of."""

from pydantic import Field

from entropic.configs import (
    ArchitectureConfig,
    ArrayConfig,
    DatasetConfig,
    DataSplitConfig,
    RunConfig,
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
