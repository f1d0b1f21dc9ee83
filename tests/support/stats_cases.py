"""Trainings and validations that the tests of the stats stores keep."""

from types import SimpleNamespace

from entropic.stats import (
    TrainingIterationStats,
    TrainingStats,
    ValidationIterationScores,
    ValidationScores,
)


class Criteria:
    """What a task says of its criteria."""

    criteria = ("f1", "distance")

    @staticmethod
    def higher_is_better(criterion):
        return criterion == "f1"


class Threshold:
    """Parameters of a post-processing."""

    parameter_names = ("id", "threshold")

    def __init__(self, threshold):
        self.threshold = threshold

    def __str__(self):
        return f"threshold_{self.threshold}"


def training(iterations, loss=lambda i: 1 / (i + 1)):
    """A training of some iterations."""
    return TrainingStats([TrainingIterationStats(i, loss(i), time=0.5) for i in iterations])


def losses(stats):
    """The losses of a training by iteration, as text: NaN is not equal to itself."""
    return {one.iteration: repr(one.loss) for one in stats.iteration_stats}


def validation(
    scores,
    datasets=("d0", "d1"),
    thresholds=(0.1, 0.2),
    evaluation_scores=Criteria,
):
    """Validations: scores by iteration; of a number, as many of it as fit."""
    made = ValidationScores(
        [Threshold(one) for one in thresholds],
        [SimpleNamespace(name=name) for name in datasets],
        evaluation_scores,
    )
    for iteration, value in scores.items():
        if isinstance(value, int | float):
            value = [[[float(value)] * len(evaluation_scores.criteria) for _ in thresholds] for _ in datasets]
        made.add_iteration_scores(ValidationIterationScores(iteration, value))
    return made


def shown(validations):
    """The scores of validations by iteration, as text."""
    return {one.iteration: repr(one.scores) for one in validations}


def full(value, datasets=2, thresholds=2, criteria=2):
    """What `shown` shows of a validation of one number."""
    return repr([[[float(value)] * criteria for _ in range(thresholds)] for _ in range(datasets)])
