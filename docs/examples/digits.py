"""Train a small network on handwritten digits, for every combination of its hyperparameters, on a Dask cluster.

Run it: ``python docs/examples/digits.py``. Kill it whenever you like and run it again: trainings that had ended are
there, and those that had not go on from their last checkpoint. At the end `digits.png` shows all learning curves and
what the best network sees.

A sweep of a `Store` runs the trainings. Each records its config, a loss per iteration, the scores of each epoch and its
weights, the four of them in one transaction per epoch, so that whatever dies leaves an epoch whole or not at all. The
data are the 1 797 digits of E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits" (UCI Machine
Learning Repository, 1998), which scikit-learn brings along.
"""

import argparse
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from entropic import Base, Mapped, Store, expand_grid, output, param
from entropic.configs import ArchitectureConfig, RunConfig, TrainerConfig
from entropic.create_store import (
    claim_run,
    create_config_store,
    create_stats_store,
    create_weights_store,
    resume_point,
)
from entropic.options import Options
from entropic.stats import (
    TrainingIterationStats,
    ValidationIterationScores,
    ValidationScores,
)
from entropic.weights_store import Weights

CRITERIA = SimpleNamespace(
    criteria=["accuracy", "cross_entropy"], higher_is_better=lambda criterion: criterion == "accuracy"
)


class Training(Base):
    """The hyperparameters of a training, and what came of it."""

    __tablename__ = "digits"

    hidden: Mapped[int]
    learning_rate: Mapped[float]
    momentum: Mapped[float] = param(default=0.9)
    epochs: Mapped[int] = param(default=20)
    batch_size: Mapped[int] = param(default=32)
    seed: Mapped[int] = param(default=0)
    accuracy: Mapped[float | None] = output()


class Layers(ArchitectureConfig):
    """A network of one hidden layer."""

    hidden: int


class MomentumDescent(TrainerConfig):
    """Stochastic gradient descent with momentum, and how long it goes on."""

    learning_rate: float
    momentum: float
    epochs: int


# The network


def load_digits(n_validation=450):
    """Return images and labels to train on, and to validate on: (n, 64) float32 in 0 to 1, and (n,) int."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(7).permutation(len(images))
    images, labels = (images[order] / 16).astype("f4"), labels[order]
    return (images[n_validation:], labels[n_validation:]), (images[:n_validation], labels[:n_validation])


def make_network(hidden, seed):
    """Return the weights of an untrained network, He-initialised."""
    rng = np.random.default_rng(seed)
    return {
        "w1": (rng.standard_normal((64, hidden)) * np.sqrt(2 / 64)).astype("f4"),
        "b1": np.zeros(hidden, "f4"),
        "w2": (rng.standard_normal((hidden, 10)) * np.sqrt(2 / hidden)).astype("f4"),
        "b2": np.zeros(10, "f4"),
    }


def predict(network, images):
    """Return what the hidden layer makes of images, and the probability of each digit: (n, hidden) and (n, 10)."""
    hidden = np.maximum(images @ network["w1"] + network["b1"], 0)
    scores = hidden @ network["w2"] + network["b2"]
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, odds / odds.sum(axis=1, keepdims=True)


def loss_and_gradient(network, images, labels):
    """Return the mean cross-entropy of a batch, and its gradient by each weight."""
    hidden, probability = predict(network, images)
    loss = float(-np.log(probability[np.arange(len(labels)), labels] + 1e-12).mean())
    error = probability.copy()
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    behind = (error @ network["w2"].T) * (hidden > 0)
    gradient = {"w1": images.T @ behind, "b1": behind.sum(0), "w2": hidden.T @ error, "b2": error.sum(0)}
    return loss, gradient


def score(network, images, labels):
    """Return accuracy and cross-entropy, in the order of `CRITERIA`."""
    probability = predict(network, images)[1]
    right = probability[np.arange(len(labels)), labels]
    return [float((probability.argmax(1) == labels).mean()), float(-np.log(right + 1e-12).mean())]


def train_epoch(network, velocity, data, params, epoch, stats):
    """Train one epoch in place, and add its iterations to *stats*."""
    images, labels = data
    # Of its own for each epoch, so that a training that goes on is the one that was never stopped.
    order = np.random.default_rng([params["seed"], epoch]).permutation(len(images))
    for first in range(0, len(order), params["batch_size"]):
        begun = time.perf_counter()
        batch = order[first : first + params["batch_size"]]
        loss, gradient = loss_and_gradient(network, images[batch], labels[batch])
        for name in network:
            velocity[name] *= np.float32(params["momentum"])
            velocity[name] -= np.float32(params["learning_rate"]) * gradient[name]
            network[name] += velocity[name]
        seconds = time.perf_counter() - begun
        stats.add_iteration_stats(TrainingIterationStats(stats.trained_until(), loss, seconds))


# A training, with a checkpoint after each epoch


class Trainer:
    """Runs one training: what the Store calls.

    Parameters
    ----------
    options : Options
        Where everything is kept.
    """

    def __init__(self, options):
        self.options = options

    def __call__(self, params):
        run = f"digits/{params['id']}"
        with claim_run(run, self.options, wait_timeout_s=30) as claim:
            self.store_config(run, params)
            network = self.train(run, params, claim)
        _, validation = load_digits()
        digits = predict(network, validation[0])[1].argmax(1)
        np.savez(params["result_file"], digits=digits, labels=validation[1])
        return {"accuracy": score(network, *validation)[0]}

    def store_config(self, run, params):
        """Record what the run is made of; run again, that is there already."""
        name = f"{params['hidden']} hidden"
        trainer = {key: params[key] for key in ("learning_rate", "momentum", "epochs")}
        create_config_store(self.options).store_run_config(
            RunConfig(
                name=run,
                architecture_config=Layers(name=name, hidden=params["hidden"]),
                trainer_config=MomentumDescent(name=" ".join(f"{v:g}" for v in trainer.values()), **trainer),
                batch_size=params["batch_size"],
            )
        )

    def train(self, run, params, claim):
        """Train from the last checkpoint on, and return the network."""
        training, validation = load_digits()
        in_epoch = -(-len(training[0]) // params["batch_size"])
        stats_store, weights_store = create_stats_store(self.options), create_weights_store(self.options)

        stats = stats_store.retrieve_training_stats(run)
        scores = ValidationScores(["all"], ["digits"], CRITERIA)
        begin = resume_point(run, self.options)
        stats.delete_after(begin)
        if begin:
            weights = weights_store.retrieve_weights(run, begin)
            network, velocity = weights.model, weights.optimizer
        else:
            network = make_network(params["hidden"], params["seed"])
            velocity = {name: np.zeros_like(weight) for name, weight in network.items()}

        for epoch in range(begin // in_epoch, params["epochs"]):
            train_epoch(network, velocity, training, params, epoch, stats)
            done = stats.trained_until()
            accuracy, cross_entropy = score(network, *validation)
            scores.add_iteration_scores(ValidationIterationScores(done, [[[accuracy, cross_entropy]]]))
            with weights_store.database.transaction():
                weights_store.store_weights(run, done, Weights(network, velocity))
                weights_store.store_best(run, done, "digits", "accuracy", score=accuracy)
                stats_store.store_training_stats(run, stats)
                stats_store.store_validation_iteration_scores(run, scores)
                claim.require()
            weights_store.prune(run, keep_last=1)  # and the best
        return network


# What one would show


def draw(store, options, path):
    """Draw the learning curves of all runs, and what the best network makes of the digits; return the best record."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

    records = store.records(order_by=Training.accuracy.desc())
    best = records[0]
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(15, 4.8), layout="constrained", width_ratios=[5, 5, 4]
    )
    rates = sorted({record.learning_rate for record in records})
    shades = dict(zip(rates, plt.cm.viridis(np.linspace(0.1, 0.85, len(rates))), strict=True))
    stats_store = create_stats_store(options)
    for record in reversed(records):
        run, is_best = f"digits/{record.id}", record is best
        style = {"linewidth": 1, "color": shades[record.learning_rate], "alpha": 0.9}
        if is_best:
            label = f"the best: {record.hidden} hidden, {record.accuracy:.1%} right"
            style = {"linewidth": 2.4, "color": "crimson", "label": label}
        losses = stats_store.retrieve_training_stats(run).to_xarray()
        smooth = np.convolve(losses, np.ones(43) / 43, mode="valid")
        left.plot(losses.iterations[: len(smooth)], smooth, **style)
        validations = stats_store.retrieve_validation_iteration_scores(run)
        wrong = [1 - one.scores[0][0][0] for one in validations]
        middle.plot([one.iteration for one in validations], wrong, **style)
    for rate in rates:
        middle.plot([], [], color=shades[rate], label=f"learning rate {rate:g}")
    left.set(
        title="What the networks learn", xlabel="iteration", ylabel="loss, mean of an epoch", yscale="log"
    )
    middle.set(title="What they make of digits they have not seen", xlabel="iteration", ylabel="read wrong")
    middle.set_yscale("log")
    middle.yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5]))
    middle.yaxis.set_minor_locator(NullLocator())
    middle.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    middle.legend(frameon=False, loc="upper right")
    for axes in (left, middle):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    draw_hardest(right, best, options)
    figure.savefig(path, dpi=150)
    return best


def draw_hardest(axes, record, options, side=5):
    """Draw the digits of which the best network of a run is least sure, and what it reads."""
    run, weights_store = f"digits/{record.id}", create_weights_store(options)
    network = weights_store.retrieve_weights(
        run, weights_store.retrieve_best(run, "digits", "accuracy")
    ).model
    _, (images, labels) = load_digits()
    probability = predict(network, images)[1]
    hardest = np.argsort(probability[np.arange(len(labels)), labels])[: side**2]
    for number, index in enumerate(hardest):
        row, column = divmod(number, side)
        read, label = probability[index].argmax(), labels[index]
        box = (column + 0.08, column + 0.78, row + 0.92, row + 0.08)
        axes.imshow(images[index].reshape(8, 8), cmap="gray_r", extent=box, interpolation="nearest")
        axes.text(
            column + 0.82, row + 0.9, str(read), fontweight="bold",
            color="seagreen" if read == label else "crimson",
        )  # fmt: skip
    axes.set(xlim=(0, side), ylim=(side, 0), title="The hardest, and what the best network reads")
    axes.set_axis_off()


def main(arguments=None):
    """Sweep over the hyperparameters, and draw what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("digits"), help="of everything (default: digits)")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[0.003, 0.01, 0.03, 0.1])
    parser.add_argument("--workers", type=int, default=2, help="of the Dask cluster; 0 for none (default: 2)")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)

    options = Options(
        type="sql", db_url=f"sqlite:///{given.folder / 'digits.sqlite3'}", runs_base_dir=given.folder / "runs"
    )
    store = Store(Trainer(options), Training, given.folder / "results", ".npz", options.db_url, lease_s=30)
    grid = expand_grid(
        {"hidden": given.hidden, "learning_rate": given.learning_rates, "epochs": [given.epochs]}
    )
    if given.workers:
        from dask.distributed import Client

        os.environ.setdefault("OMP_NUM_THREADS", "1")
        with Client(n_workers=given.workers, threads_per_worker=1, dashboard_address=":0") as client:
            store.sweep(grid, client)
    else:
        store.sweep(grid)
    best = draw(store, options, given.folder / "digits.png")
    print(
        f"{store.count()} trainings; the best, {best.hidden} hidden at {best.learning_rate:g}, reads "
        f"{best.accuracy:.1%} of the digits right"
    )
    print(f"look at {given.folder / 'digits.png'}")


if __name__ == "__main__":
    main()
