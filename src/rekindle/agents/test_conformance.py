import jax
import jax.numpy as jnp
import pytest

from rekindle.agents import registry
from rekindle.agents.conformance import check_agent
from rekindle.core.errors import AgentContractError
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec
from rekindle.envs import registry as envs

FLAT = EnvSpec("test/flat", 1, {"x": Box((3,), -1, 1), "n": Discrete(3)}, Discrete(3))
TINY = {"num_envs": 4, "minibatches": 2, "rollout_length": 5, "hidden": 8, "width": 8, "epochs": 1}
VALUED = {"batch": 8, "width": 8, "capacity": 64}
SEQUENCES = {"batch": 8, "capacity": 64, "warmup": 8, "state_width": 8, "pair_width": 8, "action_width": 4, "hidden": 8,
             "encoder_updates": 2, "bins": 11, "value_rate": 3e-3, "eval_discrete": "greedy"}  # fmt: skip
SMALL = {"ppo": TINY, "muesli": {**TINY, "bins": 11, "unroll": 2}, "dqn": VALUED, "rainbow": {**VALUED, "atoms": 11},
         "mrq": SEQUENCES}  # fmt: skip


def small(name: str = "ppo", **settings):
    return registry.make_agent(name, registry.config_from_json(name, {**SMALL[name], **settings}))


def test_every_agent_is_checked():
    assert set(SMALL) == set(registry.names())


@pytest.mark.parametrize("name", sorted(SMALL))
def test_conforms(name):
    check_agent(small(name), FLAT)


@pytest.mark.parametrize("name", ["ppo", "dqn", "mrq"])  # one for each kind of batch: what sees is shared by all
def test_conforms_on_what_a_world_of_tasks_shows(name):
    slower = {} if name == "mrq" else {"learning_rate": 1e-4}  # random codes make a crowded world, of values far from 0
    check_agent(small(name, **slower), envs.make("xland/f0").spec)


@pytest.mark.parametrize("memory", ["transformer-xl"])
def test_other_memories_conform(memory):
    check_agent(small(memory=memory, slots=3, heads=2), FLAT)


@pytest.mark.parametrize("part", ["noisy", "dueling", "double"])
def test_the_parts_of_rainbow_conform(part):
    check_agent(small("rainbow", learning_rate=1e-2, **{part: True}), FLAT)  # steps that noise does not hide


PICTURE = EnvSpec("test/picture", 1, {"x": Box((10, 10, 2), 0, 1, "uint8")}, Discrete(3))


@pytest.mark.parametrize("name", ["dqn", "rainbow"])
def test_agents_that_see_pictures_conform(name):
    check_agent(small(name, network="residual"), PICTURE)


GOOD = small()


def constant_init(key, spec):
    del key
    return GOOD.init(jax.random.key(0), spec)


def nan_init(key, spec):
    state = GOOD.init(key, spec)
    return state._replace(opt=jax.tree.map(lambda x: x * jnp.nan if x.dtype == jnp.float32 else x, state.opt))


def greedy_act(key, state, carry, obs, start, *, explore):
    del explore
    return GOOD.act(key, state, carry, obs, start, explore=False)


def key_twice_act(key, state, carry, obs, start, *, explore):
    jax.random.uniform(key)
    return GOOD.act(key, state, carry, obs, start, explore=explore)


def retyped_update(key, state, batch):
    result = GOOD.update(key, state, batch)
    return result._replace(state=result.state._replace(updates=result.state.updates.astype(jnp.int16)))


def climbing_update(key, state, batch):
    result = GOOD.update(key, state, batch)
    net = jax.tree.map(lambda old, new: 2 * old - new, state.net, result.state.net)
    return result._replace(state=result.state._replace(net=net))


def lazy_update(key, state, batch):
    return GOOD.update(key, state, batch)._replace(state=state)


def nan_update(key, state, batch):
    result = GOOD.update(key, state, batch)
    return result._replace(metrics=result.metrics._replace(grad_norm=jnp.full((), jnp.nan)))


def noisy_policy(state):
    policy = GOOD.policy(state)

    class Noisy:
        def act(self, key, carry, obs, start, *, explore):
            del explore
            return policy.act(key, carry, obs, start, explore=True)

    return Noisy()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"init": constant_init}, "does not use its key"),
        ({"init": nan_init}, "init gives NaN"),
        ({"act": greedy_act}, "same actions for four keys"),
        ({"act": key_twice_act}, "uses a random key twice"),
        ({"update": retyped_update}, "state after an update is not like a fresh one.*updates"),
        ({"update": lazy_update}, "update 1 leaves the state as it was"),
        ({"update": climbing_update}, "value_loss of a fixed batch goes from"),
        ({"update": nan_update}, "update 1 gives NaN"),
        ({"policy": noisy_policy}, "must be greedy"),
    ],
    ids=lambda x: "" if isinstance(x, str) else "-".join(f.__name__ for f in x.values()),
)
def test_what_is_broken_is_found(broken, message):
    with pytest.raises(AgentContractError, match=message):
        check_agent(GOOD._replace(**broken), FLAT)
