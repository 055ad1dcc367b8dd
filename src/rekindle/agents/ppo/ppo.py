"""Recurrent PPO, which on k-trial episodes is RL^2: the memory learns to explore because it lives through the trials.

Schulman et al. 2017 (1707.06347); Duan et al. 2016 (1611.02779); the setting of XLand-MiniGrid's baseline.
Differs from the PPO paper: recurrent minibatches are whole rows, advantages are normalised per minibatch, rewards are
scaled by a constant. See README.md for every logged metric.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core import categorical
from rekindle.core.checks import out_of_range
from rekindle.core.errors import ConfigError
from rekindle.core.losses import clipped_policy_gradient, clipped_value_error, masked_mean
from rekindle.core.returns import generalized_advantage
from rekindle.core.spaces import Discrete
from rekindle.core.tree import only_if
from rekindle.core.types import ActOutput, Agent, Data, EnvSpec, Extras, Obs, Rollout, Update, given
from rekindle.networks.linear import Linear
from rekindle.networks.torso import TORSO_MEMORIES, Carry, Torso, TorsoMemory, make_torso

NAME, VERSION = "ppo", 1


class Config(eqx.Module):
    """Hyperparameters; the defaults are measured on xland/doors-4."""

    learning_rate: float = 1e-3
    """Adam step size, constant."""
    gamma: float = 0.99
    """Discount per environment step, straight through trial borders."""
    lambda_: float = 0.95
    """Trace decay of the generalised advantage."""
    clip: float = 0.2
    """Clip range of the probability ratio and (in scaled reward) of the value change."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    entropy_weight: float = 0.05
    """Weight of the entropy bonus, in nats."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this global norm."""
    reward_scale: float = 0.2
    """Rewards are multiplied by this before learning."""
    epochs: int = eqx.field(static=True, default=2)
    """Passes over each rollout."""
    minibatches: int = eqx.field(static=True, default=4)
    """Parts a rollout's rows are divided into."""
    num_envs: int = eqx.field(static=True, default=256)
    """Worlds side by side."""
    rollout_length: int = eqx.field(static=True, default=64)
    """Steps per update and world; gradients flow through the memory within them."""
    memory: TorsoMemory = eqx.field(static=True, default="gru+types")
    """What remembers: gru, gru+types (beside it a small one for every object type, where the world has types),
    gru+attention, transformer-xl, skip (a Transformer-XL that keeps every fourth step of a GRU), or none."""
    hidden: int = eqx.field(static=True, default=64)
    """Width of the memory."""
    layers: int = eqx.field(static=True, default=2)
    """Blocks of a Transformer-XL."""
    heads: int = eqx.field(static=True, default=4)
    """Heads of attention; they divide `hidden`."""
    slots: int = eqx.field(static=True, default=64)
    """Steps that attention keeps (M), in each block."""
    width: int = eqx.field(static=True, default=64)
    """Width of the encoder."""

    def __check_init__(self) -> None:
        """Refuse what cannot run, all problems at once."""
        wrong = []
        if self.minibatches >= 1 and self.num_envs % self.minibatches:
            wrong.append(f"num_envs must be a multiple of minibatches={self.minibatches}; got {self.num_envs}")
        wrong += out_of_range(
            self,
            sizes=(
                "epochs",
                "minibatches",
                "num_envs",
                "rollout_length",
                "hidden",
                "width",
                "layers",
                "heads",
                "slots",
            ),
            positive=("learning_rate", "clip", "max_grad_norm", "reward_scale"),
            least_0=("value_weight", "entropy_weight"),
            shares=("gamma", "lambda_"),
        )
        if self.memory not in TORSO_MEMORIES:
            wrong.append(f"memory must be one of {', '.join(TORSO_MEMORIES)}; got {self.memory!r}")
        if wrong:
            raise ConfigError("ppo: " + "; ".join(wrong) + ".")


class Net(Torso):
    """Encoder and memory, a joint layer on what is seen and remembered, and two linear heads."""

    joint: Linear
    policy: Linear
    value: Linear

    def __call__(
        self, carry: Carry, obs: Obs, start: Bool[Array, "T B"]
    ) -> tuple[Carry, Float[Array, "T B A"], Float[Array, "T B"]]:
        """Memory after the last step, logits and values of every step."""
        carry, features = self.remember(carry, obs, start)
        joint = jax.nn.relu(self.joint(features))
        return carry, self.policy(joint), self.value(joint)[..., 0]


class State(NamedTuple):
    """Everything that learning needs to go on."""

    net: Net
    opt: optax.OptState
    updates: Int32[Array, ""]


class Metrics(NamedTuple):
    """Means over the minibatches of an update; explained in README.md."""

    policy_loss: Array
    value_loss: Array
    entropy: Array
    approx_kl: Array
    clip_fraction: Array
    explained_variance: Array
    grad_norm: Array


def init(config: Config, key: Key[Array, ""], spec: EnvSpec) -> State:
    """Fresh weights for a spec; the policy starts almost uniform."""
    if not isinstance(spec.action, Discrete):
        raise ConfigError(f"ppo takes discrete actions; {spec.id} has {spec.action!r}.")
    torso_key, *keys = jax.random.split(key, 4)
    torso, features = make_torso(torso_key, spec, config.memory, width=config.width, hidden=config.hidden,
                                 layers=config.layers, heads=config.heads, slots=config.slots)  # fmt: skip
    joint, policy = Linear(keys[0], features, config.width), Linear(keys[1], config.width, spec.action.n, scale=0.01)
    value = Linear(keys[2], config.width, 1, scale=1.0)
    net = Net(torso.encoder, torso.memory, torso.types, joint, policy, value)
    return State(net, _optimiser(config).init(eqx.filter(net, eqx.is_array)), jnp.int32(0))


def _optimiser(config: Config) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(config.learning_rate, eps=1e-5))


def act(key: Key[Array, ""], net: Net, carry: Carry, obs: Obs, start: Bool[Array, " B"], *, explore: bool) -> ActOutput:
    """One action per row, sampled or greedy."""
    carry, logits, value = net(carry, jax.tree.map(lambda x: x[None], obs), start[None])
    logits, value = logits[0], value[0]
    action = jax.random.categorical(key, logits) if explore else jnp.argmax(logits, axis=-1)
    extras = Extras(logits=logits, value=value, log_prob=categorical.log_prob(logits, action))
    return ActOutput(action.astype(jnp.int32), carry, extras)


class Targets(NamedTuple):
    """What the loss compares with, fixed during an update."""

    advantage: Float[Array, "T B"]
    value: Float[Array, "T B"]


def targets(config: Config, rollout: Rollout) -> Targets:
    """Advantages and lambda-returns. The discount runs through trial borders: only an episode's end stops it."""
    value = given(rollout.extras.value)
    ended, cut = rollout.terminated, rollout.terminated | rollout.truncated
    v_next = jnp.concatenate([value[1:], rollout.last_value[None]])
    v_next = jnp.where(rollout.truncated, rollout.final_value, v_next)
    advantage = jax.vmap(partial(generalized_advantage, lambda_=config.lambda_), in_axes=1, out_axes=1)(
        config.reward_scale * rollout.reward,
        config.gamma * (1.0 - ended.astype(jnp.float32)),
        cut.astype(jnp.float32),
        value,
        v_next,
    )
    return Targets(advantage, advantage + value)


def loss(config: Config, net: Net, rollout: Rollout, target: Targets) -> tuple[Float[Array, ""], Metrics]:
    """PPO's clipped objective on whole rows of a rollout."""
    _, logits, value = net(rollout.carry, rollout.obs, rollout.start)
    log_prob = categorical.log_prob(logits, rollout.action)
    old_log_prob, old_value = given(rollout.extras.log_prob), given(rollout.extras.value)
    mean = partial(masked_mean, mask=rollout.learn)
    centred = target.advantage - mean(target.advantage)
    advantage = centred / (jnp.sqrt(mean(centred**2)) + 1e-8)
    over = partial(jnp.vectorize, signature="(),(),()->()")
    policy_loss = mean(over(partial(clipped_policy_gradient, epsilon=config.clip))(log_prob, old_log_prob, advantage))
    value_loss = mean(over(partial(clipped_value_error, epsilon=config.clip))(value, old_value, target.value))
    entropy = mean(categorical.entropy(logits))
    total = policy_loss + config.value_weight * value_loss - config.entropy_weight * entropy
    log_ratio = log_prob - old_log_prob
    spread = mean((target.value - mean(target.value)) ** 2)
    error = target.value - old_value
    metrics = Metrics(
        policy_loss=policy_loss,
        value_loss=value_loss,
        entropy=entropy,
        approx_kl=mean(jnp.exp(log_ratio) - 1.0 - log_ratio),
        clip_fraction=mean((jnp.abs(jnp.exp(log_ratio) - 1.0) > config.clip).astype(jnp.float32)),
        explained_variance=1.0 - mean((error - mean(error)) ** 2) / (spread + 1e-8),
        grad_norm=jnp.zeros(()),
    )
    return total, metrics


def update(config: Config, key: Key[Array, ""], state: State, batch: Rollout, *, labels: None = None) -> Update:
    """Several epochs of minibatch steps on one rollout."""
    del labels
    target = targets(config, batch)
    optimiser = _optimiser(config)

    def minibatch(carry: tuple[Net, optax.OptState], rows: Int32[Array, " b"]) -> tuple[tuple, Metrics]:
        net, opt = carry
        part, part_target = batch.rows(rows), jax.tree.map(lambda x: x[:, rows], target)
        (_, metrics), grads = eqx.filter_value_and_grad(partial(loss, config), has_aux=True)(net, part, part_target)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes Python floats and integer arrays
            updates, opt = optimiser.update(grads, opt)
        return (eqx.apply_updates(net, updates), opt), metrics._replace(grad_norm=optax.tree.norm(grads))

    num_rows = batch.reward.shape[1]
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_rows))(jax.random.split(key, config.epochs))
    arrays, static = eqx.partition(state.net, eqx.is_array)

    def step(carry: tuple, rows: Array) -> tuple[tuple, Metrics]:
        (net, opt), metrics = minibatch((eqx.combine(carry[0], static), carry[1]), rows)
        return only_if(jnp.any(batch.learn[:, rows]), (eqx.filter(net, eqx.is_array), opt), carry), metrics

    (arrays, opt), metrics = jax.lax.scan(step, (arrays, state.opt), orders.reshape(-1, num_rows // config.minibatches))
    net = eqx.combine(arrays, static)
    return Update(State(net, opt, state.updates + 1), jax.tree.map(jnp.mean, metrics))


class PPOPolicy(eqx.Module):
    """The acting half: the network and nothing else."""

    net: Net

    def init_carry(self, batch_size: int) -> PyTree:
        """Empty memory."""
        return self.net.init_carry(batch_size)

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """One action per row."""
        return act(key, self.net, carry, obs, start, explore=explore)


def adopt(config: Config, key: Key[Array, ""], spec: EnvSpec, policy: PPOPolicy) -> State:
    """A state that goes on learning from a policy's network, with a fresh optimiser."""
    fresh = init(config, key, spec)
    return fresh._replace(net=policy.net)


def make(config: Config) -> Agent:
    """Bind the config."""
    return Agent(
        name=NAME,
        config=config,
        needs=Data("rollout", length=config.rollout_length, batch=config.num_envs),
        init=partial(init, config),
        init_carry=lambda state, batch_size: state.net.init_carry(batch_size),
        act=lambda key, state, carry, obs, start, *, explore: act(key, state.net, carry, obs, start, explore=explore),
        update=partial(update, config),
        policy=lambda state: PPOPolicy(state.net),
        refresh=lambda state, carry: state.net.refresh(carry),
    )
