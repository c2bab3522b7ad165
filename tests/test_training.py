"""Seeds side by side equal seeds alone; arms share draws; a step is NumPy's AdamW."""

import functools
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.data.augment import augment, normalize
from experiments.data.dataset import Dataset
from experiments.training import resnet, steps, vit
from experiments.training.cnn import CNN
from experiments.training.models import MODELS
from experiments.training.regularizers import REGULARIZERS
from experiments.training.steps import Constants, Functions, make_functions, stream
from experiments.training.trainer import Trainer
from sounddrop_jax.sweeps.ensembles import make_mesh
from tests.platforms import on

SEEDS = [58, 59, 2**32 - 1]
BATCH_SIZE = 16
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1.0  # strong, so that a step shows it
NUM_TEST = 30
pytestmark = pytest.mark.slow

# The arms that are compiled, once each. An intensity that is an array is an input of
# the program, which then runs at any intensity, 0 included.
ARMS = {"dropout": 0.2, "water": jnp.float32(0.05)}


def make_dataset() -> Dataset:
    """Ten random pictures with noise on them: a set that can be learned by heart."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (10, 32, 32, 3))

    def make_split(num_images):
        labels = rng.permutation(np.arange(num_images) % 10)
        noise = rng.integers(-40, 41, (num_images, 32, 32, 3))
        images = np.clip(pictures[labels] + noise, 0, 255).astype(np.uint8)
        return images, labels.astype(np.int32)

    names = tuple("abcdefghij")
    return Dataset("tiny", "Tiny", "0", *make_split(250), *make_split(NUM_TEST), names)


DATASET = make_dataset()


def make_arm(name: str, strength, augmented: bool = True, **model: str) -> Functions:
    return make_functions(
        DATASET,
        REGULARIZERS[name].prepare(strength),
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        augmented=augmented,
        **model,
    )


class Arm:
    """The functions of an arm, compiled for one seed."""

    def __init__(self, name: str):
        self.functions = make_arm(name, ARMS[name])
        self._train_steps = jax.jit(self.functions.train_steps)
        self._evaluate = jax.jit(self.functions.evaluate)

    def steps(
        self, state, epoch, start, stop, *, constants=None, order=None, total=0.0
    ):
        """Trains one network; its order is that of the epoch unless given."""
        order = self.functions.shuffle(state.key, epoch) if order is None else order
        constants = constants or self.functions.constants
        total = jnp.float32(total)
        return self._train_steps(state, total, constants, order, epoch, start, stop)

    def evaluate(self, state) -> np.ndarray:
        return np.asarray(self._evaluate(state, self.functions.constants))

    def at_intensity(self, intensity: float) -> Constants:
        """The constants that make the noise this strong."""
        constants = self.functions.constants
        same = jax.tree.map(lambda _: jnp.float32(intensity), constants.strengths)
        return constants._replace(strengths=same)


@pytest.fixture(scope="session")
def arms() -> dict[str, Arm]:
    return {name: Arm(name) for name in ARMS}


@pytest.fixture(scope="session")
def first_steps(arms) -> dict[tuple, tuple]:
    """By arm and seed: the initial state, and state and loss after one step."""
    steps = {}
    for name, arm in arms.items():
        for seed in SEEDS:
            state = arm.functions.init(jax.random.key(np.uint32(seed)))
            steps[name, seed] = state, *arm.steps(state, 0, 0, 1)
    return steps


def without_key(state):
    """A state as a tree of numbers."""
    return state._replace(key=jax.random.key_data(state.key))


def of_seed(states, index: int):
    return jax.tree.map(lambda leaf: leaf[index], states)


close = functools.partial(chex.assert_trees_all_close, rtol=1e-4, atol=1e-6)


def assert_gradients_close(trees, expected) -> None:
    """Asserts that they are sums of the same numbers, with roundings that cancel."""
    for found, gradient in zip(*map(jax.tree.leaves, (trees, expected)), strict=True):
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(found, gradient, rtol=0, atol=1e-4 * scale)


def assert_same_step(state, expected) -> None:
    """Asserts that two programs took the same first step, to float32's tolerance."""
    expected = without_key(expected)
    np.testing.assert_array_equal(state.key, expected.key)
    close(state.batch_stats, expected.batch_stats)
    (adam, *_), (expected_adam, *_) = state.opt_state, expected.opt_state
    # Ten percent of the gradients. What follows from them is shown of AdamW below.
    assert_gradients_close(adam.mu, expected_adam.mu)
    # Adam's first step is the sign of the gradient times the learning rate, so where a
    # gradient is rounding and nothing else the two may part by two steps.
    chex.assert_trees_all_close(state.params, expected.params, atol=2.1 * LEARNING_RATE)


# Seeds side by side


@pytest.fixture(scope="session")
def trained(arms) -> dict:
    """Three seeds with dropout: two epochs of three steps, and all that they report."""
    trainer = Trainer(arms["dropout"].functions, SEEDS)
    # Copies, for the trainer gives its state away to the next step.
    initial = jax.tree.map(np.array, without_key(trainer._state))
    reports = []
    for report in trainer.train(num_epochs=2, steps_per_epoch=3):
        logits = trainer.evaluate() if report.step == 3 else None
        if not reports:
            assert report.step == 1
            after = jax.tree.map(np.array, without_key(trainer._state))
        reports.append((report, logits))
    logits = [logits for _, logits in reports if logits is not None]
    made = {"trainer": trainer, "initial": initial, "after one step": after}
    return made | {"reports": [report for report, _ in reports], "logits": logits}


def test_three_seeds_start_and_take_the_first_step_as_each_alone(first_steps, trained):
    for index, seed in enumerate(SEEDS):
        start, expected, loss = first_steps["dropout", seed]
        chex.assert_trees_all_equal(
            of_seed(trained["initial"], index), without_key(start)
        )
        assert_same_step(of_seed(trained["after one step"], index), expected)
        np.testing.assert_allclose(trained["reports"][0].losses[index], loss, rtol=1e-5)


def test_seeds_that_take_turns_are_what_they_are_side_by_side(arms, trained):
    # Two at once, and a remainder: `test_seeds_of_other_networks...`, and the tests of
    # ensembles.
    trainer = Trainer(
        arms["dropout"].functions, SEEDS, seeds_at_once=1, mesh=make_mesh()
    )
    assert trainer.seeds_at_once == 1
    initial = jax.tree.map(np.array, without_key(trainer._state))
    chex.assert_trees_all_equal(initial, trained["initial"])
    report = next(trainer.train(num_epochs=1, steps_per_epoch=1))
    np.testing.assert_allclose(report.losses, trained["reports"][0].losses, rtol=1e-5)
    assert trainer.evaluate().shape[0] == len(SEEDS)
    after = without_key(trainer._state)
    for index in range(len(SEEDS)):
        assert_same_step(
            of_seed(after, index), of_seed(trained["after one step"], index)
        )


@pytest.mark.parametrize("model", sorted(MODELS.keys() - {"cnn"}))
def test_seeds_of_other_networks_side_by_side_are_what_they_are_in_turn(
    model, monkeypatch
):
    # Less deep, as XLA compiles every block.
    monkeypatch.setattr(resnet, "BLOCKS", 1)
    monkeypatch.setattr(vit, "LAYERS", 2)
    functions = make_arm("gaussian", 0.1, model=model)
    ends = []
    for seeds_at_once in (1, 2):
        trainer = Trainer(functions, SEEDS[:2], seeds_at_once=seeds_at_once)
        report = next(trainer.train(num_epochs=1, steps_per_epoch=1))
        state = jax.tree.map(np.array, without_key(trainer._state))
        ends.append((report.losses, state, trainer.evaluate()))
    (losses, state, logits), (own_losses, own_state, own_logits) = ends
    np.testing.assert_allclose(own_losses, losses, rtol=1e-5)
    np.testing.assert_allclose(own_logits, logits, rtol=1e-3, atol=1e-3)
    assert len(set(losses.tolist())) == 2
    for index in range(2):
        assert_same_step(of_seed(own_state, index), of_seed(state, index))


def test_trainer_runs_each_seed_as_it_runs_alone(arms, trained):
    arm = arms["dropout"]
    ends = [report for report in trained["reports"] if report.step == 3]
    logits = trained["logits"]
    for index, seed in enumerate(SEEDS):
        state = arm.functions.init(jax.random.key(np.uint32(seed)))
        for epoch, report in enumerate(ends):
            state, loss = arm.steps(state, epoch, 0, 3)
            # What rounding does to the smallest gradients, Adam makes steps of: after
            # few of them, a percent of the spread between seeds.
            np.testing.assert_allclose(report.losses[index], loss / 3, rtol=2e-3)
            np.testing.assert_allclose(
                logits[epoch][index], arm.evaluate(state), rtol=0, atol=0.02
            )
    assert np.ptp(ends[-1].losses) > 0.02
    assert np.ptp(logits[-1], axis=0).mean() > 0.1


def test_seconds_leave_out_what_the_reader_does(arms, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def lasting(seconds, result):
        def call(*args):
            clock[0] += seconds
            return result

        return call

    trainer = object.__new__(Trainer)
    trainer.num_seeds = 1
    trainer._mesh = None
    trainer._constants = None
    trainer._zeros = None
    trainer._state = steps.TrainState(None, None, None, jax.random.key(0), None)
    trainer._shuffle = lasting(0, None)
    trainer._train_steps = lasting(1, (trainer._state, jnp.ones(1)))
    seconds = []
    for report in trainer.train(num_epochs=2, steps_per_epoch=1):
        clock[0] += 10_000  # the reader takes its time
        seconds.append(report.seconds)
    assert seconds == [1, 2]


# What seeds, arms, epochs and steps share, and what they do not


@pytest.mark.parametrize("name", ["none", "water", "aphex"])
def test_arms_share_initial_weights_and_order(first_steps, name):
    arm = make_arm(name, REGULARIZERS[name].default)
    key = jax.random.key(58)
    expected, _, _ = first_steps["dropout", 58]
    chex.assert_trees_all_equal(without_key(arm.init(key)), without_key(expected))
    chex.assert_trees_all_equal(
        arm.shuffle(key, 3), make_arm("none", 0.0).shuffle(jax.random.key(58), 3)
    )


def test_a_strength_of_0_is_the_program_without_a_regularizer():
    programs = []
    for name in ("none", "dropout", "gaussian"):
        arm = make_arm(name, 0.0)
        state = jax.eval_shape(arm.init, jax.random.key(0))
        order = jnp.arange(len(DATASET.train_labels))
        program = jax.make_jaxpr(arm.train_steps)(
            state, 0.0, arm.constants, order, 0, 0, 1
        )
        programs.append(str(program))
    assert programs[0] == programs[1] == programs[2]


def test_where_an_epoch_is_cut_changes_no_bit(arms):
    steps, start = arms["water"].steps, arms["water"].functions.init(jax.random.key(58))
    part, total = steps(start, 1, 0, 1)
    ends = [steps(start, 1, 0, 3), steps(part, 1, 1, 3, total=total)]
    chex.assert_trees_all_equal(*((without_key(x), total) for x, total in ends))


def test_networks_of_one_program_differ_in_strength(arms):
    arm, strengths = arms["water"], [0.0, 0.1, 2.0]
    assert steps.takes_strengths(arm.functions)
    assert not steps.takes_strengths(arms["dropout"].functions)  # a number is no state
    trainer = Trainer(arm.functions, [58] * 3, strengths=strengths)
    *_, last = trainer.train(num_epochs=1, steps_per_epoch=1)
    start = arm.functions.init(jax.random.key(58))
    for strength, loss in zip(strengths, last.losses, strict=True):
        constants = arm.at_intensity(strength)
        _, expected = arm.steps(start, 0, 0, 1, constants=constants)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert len(set(last.losses.tolist())) == 3


def test_without_augmentation_the_images_are_trained_on_as_they_are(arms):
    plain = make_arm("none", 0.0, augmented=False)
    key = jax.random.key(1)
    state, order = plain.init(key), plain.shuffle(key, 0)
    _, loss = jax.jit(plain.train_steps)(state, 0.0, plain.constants, order, 0, 0, 1)
    batch = np.asarray(order[:BATCH_SIZE])
    network = CNN(lambda shape: nnx.Dropout(0.0), rngs=nnx.Rngs(0))
    nnx.update(network, state.params)
    logits = network(normalize(DATASET.train_images[batch]))
    expected = optax.softmax_cross_entropy_with_integer_labels(
        logits, DATASET.train_labels[batch]
    ).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    # The same weights and images, augmented.
    silent = arms["water"].at_intensity(0.0)
    _, other = arms["water"].steps(state, 0, 0, 1, constants=silent)
    assert abs(other - loss) > 1e-4


def test_trainer_classifies_other_images_as_it_does_the_test_set(trained):
    trainer, images = trained["trainer"], DATASET.test_images
    expected = trained["logits"][-1]
    np.testing.assert_array_equal(trainer.evaluate(images), expected)
    np.testing.assert_array_equal(trainer.evaluate(), expected)
    # More than one block of the test set's size, and a part of one.
    many = np.concatenate([images, images[::-1], images[:3]])
    logits = trainer.evaluate(many)
    np.testing.assert_array_equal(
        logits, np.concatenate([expected, expected[:, ::-1], expected[:, :3]], axis=1)
    )


def test_an_epoch_is_a_new_permutation(arms):
    shuffle = arms["dropout"].functions.shuffle
    orders = [np.asarray(shuffle(jax.random.key(58), epoch)) for epoch in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(250))
    # Two random permutations agree in one place on average.
    assert (orders[0] == orders[1]).sum() < 10 > (orders[1] == orders[2]).sum()
    np.testing.assert_array_equal(shuffle(jax.random.key(58), 1), orders[1])


# Steps


def test_every_stretch_of_every_epoch_shares_one_compilation(arms, first_steps):
    arm = arms["dropout"]
    state, _, _ = first_steps["dropout", 58]
    for epoch, start, stop in ((0, 0, 1), (1, 2, 4), (2, 0, 3)):
        arm.steps(state, epoch, start, stop)
    assert arm._train_steps._cache_size() == 1


def test_a_step_sees_its_batch_augmented_and_its_own_noise(arms):
    name, epoch, step = "water", 2, 3
    arm = arms[name]
    # Statistics other than the initial ones, as after some training.
    state, _ = arm.steps(arm.functions.init(jax.random.key(58)), 0, 0, 2)
    after, loss = arm.steps(state, epoch, step, step + 1)

    order = np.asarray(arm.functions.shuffle(state.key, epoch))
    batch = order[step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
    augment_key, noise_key = (
        jax.random.fold_in(jax.random.fold_in(stream(state.key, name), epoch), step)
        for name in ("augment", "noise")
    )
    images = normalize(augment(augment_key, DATASET.train_images[batch]))
    labels = DATASET.train_labels[batch]
    make_regularizer = REGULARIZERS[name].prepare(ARMS[name])
    network = CNN(make_regularizer, rngs=nnx.Rngs(params=0))
    graph, _, _, layers = nnx.split(network, nnx.Param, nnx.BatchStat, ...)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def forward(*states):
        model = nnx.merge(graph, *states, copy=True)
        log_probs = jax.nn.log_softmax(model(images, rngs=nnx.Rngs(dropout=noise_key)))
        loss = -log_probs[jnp.arange(BATCH_SIZE), labels].mean()
        return loss, nnx.state(model, nnx.BatchStat)

    (expected, batch_stats), gradients = forward(
        state.params, state.batch_stats, layers
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    close(after.batch_stats, batch_stats)
    assert_gradients_close(gradients_of(state, after), gradients)


def gradients_of(state, after):
    """The gradients of one step, from Adam's mean of them before and after it."""
    return jax.tree.map(
        lambda old, new: (np.asarray(new, np.float64) - 0.9 * np.asarray(old)) / 0.1,
        state.opt_state[0].mu,
        after.opt_state[0].mu,
    )


def test_a_step_is_adamw_on_every_parameter(arms, first_steps):
    arm = arms["dropout"]
    _, state, _ = first_steps["dropout", 58]
    # BatchNorm's biases off their 0, so that they too can decay.
    state = state._replace(params=jax.tree.map(lambda x: x + 0.5, state.params))
    after, _ = arm.steps(state, 0, 1, 2)
    (adam, *_), (new_adam, *_) = state.opt_state, after.opt_state
    assert (int(adam.count), int(new_adam.count)) == (1, 2)
    num_params = 0
    trees = (state.params, after.params, adam.nu, new_adam.mu, new_adam.nu)
    trees = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), trees)
    for param, new, square, new_mean, new_square, gradient in zip(
        *map(jax.tree.leaves, (*trees, gradients_of(state, after))), strict=True
    ):
        expected, scale = 0.999 * square + 0.001 * gradient**2, np.abs(gradient).max()
        np.testing.assert_allclose(new_square, expected, 1e-3, 1e-9 * scale**2)
        direction = new_mean / (1 - 0.9**2)
        direction /= np.sqrt(new_square / (1 - 0.999**2)) + 1e-8
        expected = param - LEARNING_RATE * (direction + WEIGHT_DECAY * param)
        # A few roundings of parameters below 2; decay itself is 1e-3 of them.
        np.testing.assert_allclose(new, expected, rtol=0, atol=5e-7)
        num_params += param.size
    assert num_params == 34_058


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_seeds_with_a_bank_are_each_alone_on_every_platform(
    arms, first_steps, platform
):
    # One bank for all, not a copy for each.
    functions, constants = arms["water"].functions, arms["water"].functions.constants

    def train_and_test(state, order):
        states = functions.train_steps(state, jnp.zeros(()), constants, order, 0, 0, 1)
        return *states, functions.evaluate(states[0], constants)

    seeds = SEEDS[:2]
    alone = [first_steps["water", seed][0] for seed in seeds]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    orders = jnp.stack([functions.shuffle(state.key, 0) for state in alone])
    run = jax.jit(jax.vmap(on(platform, train_and_test)))
    states, losses, logits = run(states, orders)
    for index, seed in enumerate(seeds):
        _, expected, loss = first_steps["water", seed]
        np.testing.assert_allclose(losses[index], loss, rtol=1e-5)
        assert_same_step(of_seed(without_key(states), index), expected)
        np.testing.assert_allclose(
            logits[index], arms["water"].evaluate(expected), rtol=1e-3, atol=1e-3
        )


def test_loss_falls_on_a_set_that_can_be_learned(arms, first_steps):
    arm = arms["water"]
    state, _, _ = first_steps["water", 58]
    losses = []
    for epoch in range(6):
        state, total = arm.steps(state, epoch, 0, 15)
        losses.append(float(total) / 15)
    assert losses[0] > 1.5 and losses[-1] < 0.5 * losses[0]
    accuracy = (arm.evaluate(state).argmax(1) == DATASET.test_labels).mean()
    assert accuracy > 0.8


# Evaluation


def test_evaluation_in_batches_is_one_forward_pass(arms, first_steps, monkeypatch):
    sizes = dict.fromkeys(steps.EVALUATION_BATCH, 7)  # of 30 images
    monkeypatch.setattr(steps, "EVALUATION_BATCH", sizes)
    functions = arms["water"].functions
    _, state, _ = first_steps["water", 58]
    # A function of its own: JAX would find the program of another size.
    logits = jax.jit(lambda *args: functions.evaluate(*args))(
        state, functions.constants
    )
    assert (logits.shape, logits.dtype) == ((NUM_TEST, 10), jnp.float32)
    # A network whose regularizers do nothing.
    network = CNN(lambda shape: nnx.Dropout(0.0), rngs=nnx.Rngs(params=0))
    evaluated = nnx.view(network, deterministic=True, use_running_average=True)
    graph = nnx.graphdef(evaluated)
    images = normalize(jnp.asarray(DATASET.test_images))
    forward = jax.jit(lambda *states: nnx.merge(graph, *states)(images))
    expected = forward(state.params, state.batch_stats)
    # float32 sums in another order.
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
