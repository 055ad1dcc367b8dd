"""Seeds that are trained in one program."""

import jax
import numpy as np
import pytest

from rekindle.agents.registry import config_from_json, config_to_json
from rekindle.core.errors import ConfigError
from rekindle.core.tree import flatten_arrays
from rekindle.library.library import Library
from rekindle.train import session, together
from rekindle.train.order import Order

SMALL = {"num_envs": 8, "rollout_length": 6, "hidden": 8, "width": 8, "minibatches": 2, "epochs": 1}
SEQUENCES = {"state_width": 8, "pair_width": 8, "action_width": 4, "hidden": 8, "batch": 8, "warmup": 100, "period": 10,
             "encoder_updates": 3, "bins": 11, "capacity": 600}  # fmt: skip
BUDGETS = ("96steps", "192steps")


@pytest.fixture(autouse=True)
def transposed_keys_are_fresh():
    """The check for keys that are used twice takes an array of keys for used once vmap has transposed it."""
    before = jax.config.jax_debug_key_reuse
    jax.config.update("jax_debug_key_reuse", False)
    yield
    jax.config.update("jax_debug_key_reuse", before)


def order(budget: str, agent: str = "ppo", env: str = "gymnax/CartPole-v1", settings: dict | None = None):
    chosen = config_to_json(config_from_json(agent, SMALL if settings is None else settings))
    return Order(agent, chosen, env, budget, chunk_updates=2)


def weights(trained) -> dict[str, np.ndarray]:
    return {name: x for name, x in flatten_arrays(trained.state).items() if np.issubdtype(x.dtype, np.floating)}


def test_every_seed_comes_to_what_it_would_come_to_alone(tmp_path):
    """One of them ends earlier and is not waited for."""
    library, seen = Library.open(tmp_path), []
    runs = [session.begin(order(budget), library, name="t", seed=seed) for seed, budget in enumerate(BUDGETS)]
    both = together.carry_out(runs, library, show=lambda run, now: seen.append((run.id, now.env_steps)))
    assert [one.env_steps for one in both] == [96, 192]
    assert {run.manifest.status for run in runs} == {"done"} and {id for id, _ in seen} == {run.id for run in runs}
    alone = session.carry_out(session.begin(order(BUDGETS[1]), library, name="a", seed=1), library)
    there, here = weights(both[1]), weights(alone)
    for name in there:
        np.testing.assert_allclose(there[name], here[name], atol=1e-4, err_msg=name)
    assert any((weights(both[0])[name] != there[name]).any() for name in there)


@pytest.mark.parametrize("env", ["probe/delay-v1", "gymnasium/CartPole-v1"])
def test_so_does_every_seed_that_learns_from_sequences(env, tmp_path):
    library, agent = Library.open(tmp_path), config_to_json(config_from_json("mrq", SEQUENCES))
    what = Order("mrq", agent, env, "150steps")
    runs = [session.begin(what, library, name="t", seed=seed) for seed in range(2)]
    both = together.carry_out(runs, library)
    assert {run.manifest.status for run in runs} == {"done"} and (runs[1].path / "replay").is_dir()
    updates = [int(one.state.updates) for one in both]
    assert updates[0] == updates[1] > 40
    alone = [session.carry_out(session.begin(what, library, name="a", seed=seed), library) for seed in range(2)]
    late = [seed for seed in range(2) if int(alone[seed].state.updates) == updates[seed]]  # whom the other waited for
    there, here = weights(both[late[0]]), weights(alone[late[0]])
    for name in there:
        np.testing.assert_allclose(there[name], here[name], atol=1e-3, err_msg=name)


def test_what_goes_wrong_in_the_common_program_is_everybodys(tmp_path, monkeypatch):
    library = Library.open(tmp_path)
    runs = [session.begin(order(BUDGETS[0]), library, name="t", seed=seed) for seed in range(2)]
    monkeypatch.setattr(together, "stacked", lambda trees: jax.numpy.zeros(2)[5:9].reshape(7))
    with pytest.raises(TypeError):
        together.carry_out(runs, library)
    assert {run.manifest.status for run in runs} == {"failed"}


def test_agents_with_a_replay_are_refused(tmp_path):
    library = Library.open(tmp_path)
    what = order("4000steps", "dqn", "gymnax/CartPole-v1", {})
    runs = [session.begin(what, library, name="t", seed=seed) for seed in range(2)]
    with pytest.raises(ConfigError, match="what dqn is to do here is not done together"):
        together.carry_out(runs, library)
