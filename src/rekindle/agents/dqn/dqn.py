"""Deep Q-network: action values by temporal differences against a target network, from a replay.

Mnih et al. 2015 (Nature 518, 529-533), in the form of Dopamine's agent (Castro et al. 2018, 1812.06110): Huber loss,
Adam or centred RMSProp, n-step returns, no double Q-learning. See README.md for every logged metric.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core.checks import out_of_range
from rekindle.core.errors import ConfigError
from rekindle.core.exploration import epsilon, epsilon_greedy, greedy
from rekindle.core.losses import huber
from rekindle.core.memoryless import Memoryless
from rekindle.core.optimisers import OPTIMISERS, grad_norm, make_optimiser
from rekindle.core.spaces import Discrete
from rekindle.core.types import ActOutput, Agent, Data, EnvSpec, Extras, Guidance, Obs, Transitions, Update
from rekindle.networks.head import Head
from rekindle.networks.target import descend, follow
from rekindle.networks.trunk import Flat, Seeing, make_trunk

NAME, VERSION = "dqn", 1


class Config(eqx.Module):
    """Hyperparameters; the defaults are those of MinAtar on a small machine, `PRESETS` the published ones."""

    learning_rate: float = 2.5e-4
    """Step size, constant."""
    gamma: float = 0.99
    """Discount per environment step."""
    n_step: int = eqx.field(static=True, default=1)
    """Rewards of a return before it is continued by a value."""
    reward_clip: float = eqx.field(static=True, default=0.0)
    """Rewards are cut off at plus and minus this in the loss; 0 leaves them as they are."""
    epsilon: float = 0.01
    """Share of random actions in the end."""
    epsilon_steps: int = 10_000
    """Agent steps over which it falls there from 1."""
    epsilon_warmup: int = 1_000
    """Agent steps before it begins to fall."""
    target_period: int = 250
    """Updates between two copies of the network to the target."""
    batch: int = eqx.field(static=True, default=32)
    """Transitions of an update."""
    capacity: int = eqx.field(static=True, default=100_000)
    """Transitions that the replay keeps, over all worlds."""
    warmup: int = eqx.field(static=True, default=1_000)
    """Agent steps before the first update."""
    update_period: int = eqx.field(static=True, default=4)
    """Agent steps per update."""
    num_envs: int = eqx.field(static=True, default=4)
    """Worlds side by side."""
    optimiser: str = eqx.field(static=True, default="adam")
    """Adam, or centred RMSProp with decay 0.95."""
    optimiser_eps: float = 1.5e-4
    """Added to the root of the second moment; under the root, for rmsprop, whose published value is 1e-5."""
    network: str = eqx.field(static=True, default="auto")
    """auto, dense, minatar, residual, nature or impala."""
    width: int = eqx.field(static=True, default=128)
    """Of the last hidden layer."""

    def __check_init__(self) -> None:
        """Refuse what cannot be run."""
        sizes = ("n_step", "epsilon_steps", "target_period", "batch", "capacity", "update_period", "num_envs", "width")
        wrong = out_of_range(self, sizes=sizes, positive=("learning_rate", "optimiser_eps"),
                             least_0=("reward_clip", "epsilon_warmup", "warmup"),
                             shares=("gamma", "epsilon"))  # fmt: skip
        if self.optimiser not in OPTIMISERS:
            wrong.append(f"optimiser must be one of {', '.join(OPTIMISERS)}; got {self.optimiser!r}")
        if self.capacity % self.num_envs:
            wrong.append(f"capacity must be a multiple of num_envs; got {self.capacity} and {self.num_envs}")
        if wrong:
            raise ConfigError(f"dqn: {'; '.join(wrong)}.")


ATARI = {"learning_rate": 6.25e-5, "optimiser": "adam", "optimiser_eps": 1.5e-4, "reward_clip": 1.0, "epsilon": 0.01,
         "epsilon_steps": 250_000, "epsilon_warmup": 20_000, "target_period": 2_000, "capacity": 1_000_000,
         "warmup": 20_000, "num_envs": 1, "network": "nature", "width": 512}  # fmt: skip
PRESETS = {
    "atari": ATARI,
    "atari-impala": ATARI | {"network": "impala"},
    "atari-rmsprop": ATARI | {"optimiser": "rmsprop", "optimiser_eps": 1e-5, "learning_rate": 2.5e-4, "epsilon": 0.1,
                              "epsilon_steps": 1_000_000, "epsilon_warmup": 50_000, "warmup": 50_000,
                              "target_period": 2_500},
}  # fmt: skip
"""Dopamine's settings for Atari (Castro et al. 2018), and with those of Mnih et al. 2015."""


class Net(eqx.Module):
    """Action values of observations."""

    trunk: Flat | Seeing
    head: Head

    def __call__(self, obs: Obs) -> Float[Array, "B A"]:
        """Q(s, .)."""
        return self.head(self.trunk(obs))


class State(NamedTuple):
    """Everything that learning needs to go on."""

    net: Net
    target: Net
    opt: optax.OptState
    updates: Int32[Array, ""]
    clock: Int32[Array, ""]
    """Agent steps, and updates without acting, by which exploration falls."""


class Metrics(NamedTuple):
    """Of an update; explained in README.md."""

    value_loss: Array
    guide_loss: Array
    q_mean: Array
    q_max: Array
    action_gap: Array
    grad_norm: Array


def init(config: Config, key: Key[Array, ""], spec: EnvSpec) -> State:
    """Fresh weights for a spec."""
    if not isinstance(spec.action, Discrete):
        raise ConfigError(f"dqn takes discrete actions; {spec.id} has {spec.action!r}.")
    keys = jax.random.split(key)
    net = Net(make_trunk(keys[0], spec, config.network, config.width), Head(keys[1], config.width, spec.action.n))
    return State(net, net, optimiser(config).init(eqx.filter(net, eqx.is_array)), jnp.int32(0), jnp.int32(0))


def optimiser(config: Config) -> optax.GradientTransformation:
    """Without a step size, which may change from update to update."""
    return make_optimiser(config.optimiser, config.optimiser_eps)


def act(config: Config, key: Key[Array, ""], state: State, carry: PyTree, obs: Obs, start: Bool[Array, " B"], *,
        explore: bool) -> ActOutput:  # fmt: skip
    """One action per row, greedy but for a share epsilon."""
    del start
    share = epsilon(state.clock, last=config.epsilon, steps=config.epsilon_steps, warmup=config.epsilon_warmup)
    return choose(key, state.net, carry, obs, share if explore else None)


def choose(key: Key[Array, ""], net: Net, carry: PyTree, obs: Obs, share: Float[Array, ""] | float | None) -> ActOutput:
    """Actions of which a share is random, and the values that they follow."""
    q = net(obs)
    action = greedy(q) if share is None else epsilon_greedy(key, q, share)
    return ActOutput(action, carry, Extras(q=q, value=jnp.max(q, axis=-1)))


def loss(config: Config, net: Net, target: Net, batch: Transitions, guide: Guidance | None
         ) -> tuple[Float[Array, ""], Metrics]:  # fmt: skip
    """Huber error to R_n + gamma^n max_a Q_target(s_n, a), plus what a guide adds."""
    q = net(batch.obs)
    taken = jnp.take_along_axis(q, batch.action[:, None], axis=1)[:, 0]
    goal = batch.reward + batch.discount * jnp.max(target(batch.next_obs), axis=-1)
    own = jax.vmap(huber)(jax.lax.stop_gradient(goal) - taken)
    value_loss = jnp.mean(batch.weight * own)
    guide_loss, total = jnp.zeros(()), value_loss
    if guide is not None:
        guide_loss = jnp.mean(batch.weight * guide.loss(q, batch))
        total = guide.own * value_loss + guide.weight * guide_loss
    best = jax.lax.top_k(q, 2)[0] if q.shape[-1] > 1 else jnp.concatenate([q, q], axis=-1)
    metrics = Metrics(value_loss, guide_loss, jnp.mean(q), jnp.max(q), jnp.mean(best[:, 0] - best[:, 1]),
                      jnp.zeros(()))  # fmt: skip
    return total, metrics


def update(config: Config, key: Key[Array, ""], state: State, batch: Transitions, *, guide: Guidance | None = None
           ) -> Update:  # fmt: skip
    """One gradient step; the target follows every `target_period` updates."""
    del key
    gradient = eqx.filter_value_and_grad(lambda net: loss(config, net, state.target, batch, guide), has_aux=True)
    (_, metrics), grads = gradient(state.net)
    rate = config.learning_rate if guide is None else guide.learning_rate
    net, opt = descend(state.net, grads, state.opt, optimiser(config), rate)
    updates = state.updates + 1
    target = follow(state.target, net, updates, config.target_period)
    metrics = metrics._replace(grad_norm=grad_norm(grads))
    return Update(State(net, target, opt, updates, state.clock), metrics)


def lived(state: State, steps: int) -> State:
    """The clock goes on."""
    return state._replace(clock=state.clock + steps)


def restart(config: Config, state: State, *, optimiser_too: bool) -> State:
    """The target follows at once; the optimiser forgets, if asked to."""
    opt = optimiser(config).init(eqx.filter(state.net, eqx.is_array)) if optimiser_too else state.opt
    return state._replace(target=state.net, opt=opt)


class QPolicy(Memoryless):
    """The acting half: greedy in its action values, or a random action now and then."""

    net: Net
    epsilon: float = eqx.field(static=True)

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """One action per row; with exploration, a share `epsilon` is random."""
        del start
        return choose(key, self.net, carry, obs, self.epsilon if explore else None)


def adopt(config: Config, key: Key[Array, ""], spec: EnvSpec, policy: QPolicy) -> State:
    """A state that goes on learning from a policy's network, with a fresh optimiser and its exploration done."""
    fresh = init(config, key, spec)
    done = jnp.int32(config.epsilon_warmup + config.epsilon_steps)
    return fresh._replace(net=policy.net, target=policy.net, clock=done)


def make(config: Config) -> Agent:
    """Bind the config."""
    needs = Data("transition", length=1, batch=config.batch, n_step=config.n_step, warmup=config.warmup,
                 updates_per_step=1 / config.update_period, rows=config.num_envs, capacity=config.capacity,
                 gamma=config.gamma, reward_clip=config.reward_clip)  # fmt: skip
    return Agent(
        name=NAME,
        config=config,
        needs=needs,
        init=partial(init, config),
        init_carry=lambda state, batch_size: (),
        act=partial(act, config),
        update=partial(update, config),
        policy=lambda state: QPolicy(state.net, config.epsilon),
        lived=lived,
        restart=lambda state, *, optimiser: restart(config, state, optimiser_too=optimiser),
    )
