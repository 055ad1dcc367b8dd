"""Rainbow: returns as distributions, n-step, from a prioritised replay; noise, dueling and double as parts.

Hessel et al. 2018 (1710.02298), in the compact form of Dopamine (Castro et al. 2018, 1812.06110): the three parts that
it found to matter most are always there, `noisy`, `dueling` and `double` are off unless asked for. See README.md for
every logged metric.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core import c51
from rekindle.core.checks import out_of_range
from rekindle.core.errors import ConfigError
from rekindle.core.exploration import epsilon, epsilon_greedy, greedy
from rekindle.core.memoryless import Memoryless
from rekindle.core.optimisers import OPTIMISERS, grad_norm, make_optimiser
from rekindle.core.spaces import Discrete
from rekindle.core.types import ActOutput, Agent, Data, EnvSpec, Extras, Guidance, Obs, Transitions, Update
from rekindle.networks.head import Head, NoisyHead
from rekindle.networks.target import descend, follow
from rekindle.networks.trunk import Flat, Seeing, make_trunk

NAME, VERSION = "rainbow", 1


class Config(eqx.Module):
    """Hyperparameters; the defaults are those of MinAtar on a small machine, `PRESETS` the published ones."""

    learning_rate: float = 2.5e-4
    """Step size, constant."""
    gamma: float = 0.99
    """Discount per environment step."""
    n_step: int = eqx.field(static=True, default=3)
    """Rewards of a return before it is continued by a distribution."""
    atoms: int = eqx.field(static=True, default=51)
    """Of the distribution."""
    bound: float = 10.0
    """They lie from minus to plus this."""
    noisy: bool = eqx.field(static=True, default=False)
    """Explore by noise in the last layer instead of random actions."""
    dueling: bool = eqx.field(static=True, default=False)
    """Values of states and advantages of actions apart."""
    double: bool = eqx.field(static=True, default=False)
    """The network chooses the action whose distribution the target gives."""
    prioritised: bool = eqx.field(static=True, default=True)
    """Sample in proportion to the root of the loss."""
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
        wrong = out_of_range(self, sizes=sizes, positive=("learning_rate", "optimiser_eps", "bound"),
                             least_0=("reward_clip", "epsilon_warmup", "warmup"),
                             shares=("gamma", "epsilon"))  # fmt: skip
        if self.optimiser not in OPTIMISERS:
            wrong.append(f"optimiser must be one of {', '.join(OPTIMISERS)}; got {self.optimiser!r}")
        if self.capacity % self.num_envs:
            wrong.append(f"capacity must be a multiple of num_envs; got {self.capacity} and {self.num_envs}")
        if self.atoms < 2:
            wrong.append(f"atoms must be at least 2; got {self.atoms}")
        if wrong:
            raise ConfigError(f"rainbow: {'; '.join(wrong)}.")


ATARI = {"learning_rate": 6.25e-5, "reward_clip": 1.0, "epsilon_steps": 250_000, "epsilon_warmup": 20_000,
         "target_period": 2_000, "capacity": 1_000_000, "warmup": 20_000, "num_envs": 1, "network": "nature",
         "width": 512}  # fmt: skip
PRESETS = {
    "atari": ATARI,
    "atari-impala": ATARI | {"network": "impala"},
    "atari-full": ATARI | {"noisy": True, "dueling": True, "double": True},
}
"""Dopamine's settings for Atari (Castro et al. 2018): its compact Rainbow, and with all parts (Hessel et al. 2018)."""


class Net(eqx.Module):
    """Distributions over returns of every action."""

    trunk: Flat | Seeing
    advantage: Head | NoisyHead
    """Of actions; without a value of states beside it, their whole distributions."""
    value: Head | NoisyHead | None
    atoms: int = eqx.field(static=True)

    def __call__(self, obs: Obs, key: Key[Array, ""] | None = None) -> Float[Array, "B A K"]:
        """Logits; with a key, those of noisy weights."""
        keys = [None, None] if key is None else list(jax.random.split(key))
        features = self.trunk(obs)
        logits = self.advantage(features, keys[0]).reshape(features.shape[0], -1, self.atoms)
        if self.value is None:
            return logits
        return self.value(features, keys[1])[:, None] + logits - jnp.mean(logits, axis=1, keepdims=True)


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
    priority_max: Array
    grad_norm: Array


def init(config: Config, key: Key[Array, ""], spec: EnvSpec) -> State:
    """Fresh weights for a spec."""
    if not isinstance(spec.action, Discrete):
        raise ConfigError(f"rainbow takes discrete actions; {spec.id} has {spec.action!r}.")
    keys = jax.random.split(key, 3)
    layer = NoisyHead if config.noisy else Head
    trunk = make_trunk(keys[0], spec, config.network, config.width)
    advantage = layer(keys[1], config.width, spec.action.n * config.atoms)
    value = layer(keys[2], config.width, config.atoms) if config.dueling else None
    net = Net(trunk, advantage, value, config.atoms)
    return State(net, net, optimiser(config).init(eqx.filter(net, eqx.is_array)), jnp.int32(0), jnp.int32(0))


def optimiser(config: Config) -> optax.GradientTransformation:
    """Without a step size, which may change from update to update."""
    return make_optimiser(config.optimiser, config.optimiser_eps)


def support(config: Config) -> Float[Array, " K"]:
    """The atoms."""
    return c51.atoms(config.atoms, config.bound)


def act(config: Config, key: Key[Array, ""], state: State, carry: PyTree, obs: Obs, start: Bool[Array, " B"], *,
        explore: bool) -> ActOutput:  # fmt: skip
    """One action per row: greedy but for a share epsilon, or under noisy weights."""
    del start
    share = epsilon(state.clock, last=config.epsilon, steps=config.epsilon_steps, warmup=config.epsilon_warmup)
    return choose(config, key, state.net, carry, obs, share if explore else None)


def choose(config: Config, key: Key[Array, ""], net: Net, carry: PyTree, obs: Obs,
           share: Float[Array, ""] | float | None) -> ActOutput:  # fmt: skip
    """Actions of which a share is random (or that follow noisy weights), and the values that they follow."""
    explores = share is not None
    q = c51.mean(net(obs, key if config.noisy and explores else None), support(config))
    action = epsilon_greedy(key, q, share) if share is not None and not config.noisy else greedy(q)
    return ActOutput(action, carry, Extras(q=q, value=jnp.max(q, axis=-1)))


def loss(config: Config, net: Net, target: Net, key: Key[Array, ""], batch: Transitions, guide: Guidance | None
         ) -> tuple[Float[Array, ""], tuple[Metrics, Float[Array, " B"]]]:  # fmt: skip
    """Cross-entropy to the projected distribution of R_n + gamma^n Z(s_n, a*), plus what a guide adds.

    A guide sees the means of the distributions. Importance weights multiply both.
    """
    keys = list(jax.random.split(key, 3)) if config.noisy else [None] * 3
    z = support(config)
    logits = net(batch.obs, keys[0])
    after = target(batch.next_obs, keys[1])
    judge = net(batch.next_obs, keys[2]) if config.double else after
    best = jnp.argmax(c51.mean(judge, z), axis=-1)
    chosen = jax.nn.softmax(jnp.take_along_axis(after, best[:, None, None], axis=1)[:, 0])
    goal = jax.lax.stop_gradient(c51.project(chosen, batch.reward, batch.discount, z))
    taken = jnp.take_along_axis(logits, batch.action[:, None, None], axis=1)[:, 0]
    own = -jnp.sum(goal * jax.nn.log_softmax(taken), axis=-1)
    q = c51.mean(logits, z)
    value_loss = jnp.mean(batch.weight * own)
    guide_loss, total = jnp.zeros(()), value_loss
    if guide is not None:
        guide_loss = jnp.mean(batch.weight * guide.loss(q, batch))
        total = guide.own * value_loss + guide.weight * guide_loss
    priorities = jnp.sqrt(own + 1e-10)
    metrics = Metrics(value_loss, guide_loss, jnp.mean(q), jnp.max(q), jnp.max(priorities), jnp.zeros(()))
    return total, (metrics, priorities)


def update(config: Config, key: Key[Array, ""], state: State, batch: Transitions, *, guide: Guidance | None = None
           ) -> Update:  # fmt: skip
    """One gradient step; the target follows every `target_period` updates."""
    gradient = eqx.filter_value_and_grad(lambda net: loss(config, net, state.target, key, batch, guide), has_aux=True)
    (_, (metrics, priorities)), grads = gradient(state.net)
    rate = config.learning_rate if guide is None else guide.learning_rate
    net, opt = descend(state.net, grads, state.opt, optimiser(config), rate)
    updates = state.updates + 1
    target = follow(state.target, net, updates, config.target_period)
    metrics = metrics._replace(grad_norm=grad_norm(grads))
    return Update(State(net, target, opt, updates, state.clock), metrics, priorities)


def lived(state: State, steps: int) -> State:
    """The clock goes on."""
    return state._replace(clock=state.clock + steps)


def restart(config: Config, state: State, *, optimiser_too: bool) -> State:
    """The target follows at once; the optimiser forgets, if asked to."""
    opt = optimiser(config).init(eqx.filter(state.net, eqx.is_array)) if optimiser_too else state.opt
    return state._replace(target=state.net, opt=opt)


class RainbowPolicy(Memoryless):
    """The acting half: greedy in the means of its distributions, or exploring."""

    net: Net
    config: Config = eqx.field(static=True)

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """One action per row; with exploration, a share `epsilon` is random."""
        del start
        return choose(self.config, key, self.net, carry, obs, self.config.epsilon if explore else None)


def adopt(config: Config, key: Key[Array, ""], spec: EnvSpec, policy: RainbowPolicy) -> State:
    """A state that goes on learning from a policy's network, with a fresh optimiser and its exploration done."""
    fresh = init(config, key, spec)
    done = jnp.int32(config.epsilon_warmup + config.epsilon_steps)
    return fresh._replace(net=policy.net, target=policy.net, clock=done)


def make(config: Config) -> Agent:
    """Bind the config."""
    needs = Data("transition", length=1, batch=config.batch, n_step=config.n_step, warmup=config.warmup,
                 updates_per_step=1 / config.update_period, rows=config.num_envs, capacity=config.capacity,
                 gamma=config.gamma, reward_clip=config.reward_clip, prioritised=config.prioritised)  # fmt: skip
    return Agent(
        name=NAME,
        config=config,
        needs=needs,
        init=partial(init, config),
        init_carry=lambda state, batch_size: (),
        act=partial(act, config),
        update=partial(update, config),
        policy=lambda state: RainbowPolicy(state.net, config),
        lived=lived,
        restart=lambda state, *, optimiser: restart(config, state, optimiser_too=optimiser),
    )
