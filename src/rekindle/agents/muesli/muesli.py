"""Muesli: policy gradient, a regulariser from a model's one-step look-ahead, and the model itself, in one loss.

Hessel et al. 2021 (2104.06159), as AdA uses it (Adaptive Agents Team 2023, 2301.07608, App. D.2). On-policy here: each
rollout is learnt from once or a few times, without a replay. What the papers leave open and how it is decided is in
README.md.
"""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.core import categorical, twohot
from rekindle.core.checks import out_of_range
from rekindle.core.errors import ConfigError
from rekindle.core.losses import masked_mean
from rekindle.core.returns import retrace
from rekindle.core.spaces import Discrete
from rekindle.core.tree import only_if
from rekindle.core.types import ActOutput, Agent, Data, EnvSpec, Extras, Obs, Rollout, Update, given
from rekindle.networks.linear import Linear
from rekindle.networks.torso import TORSO_MEMORIES, Carry, Torso, TorsoMemory, make_torso

NAME, VERSION = "muesli", 1


class Config(eqx.Module):
    """Hyperparameters; the loss is the papers', the sizes are those of a small computer."""

    learning_rate: float = 1e-3
    """Adam step size."""
    decay_updates: int = eqx.field(static=True, default=0)
    """Rollouts over which the step size falls linearly to 0; 0 keeps it."""
    gamma: float = 0.99
    """Discount per environment step, straight through trial borders."""
    lambda_: float = 0.95
    """Trace decay of Retrace."""
    clip: float = 1.0
    """Advantages (in standard deviations) are clipped to this in the improved policy (c)."""
    improvement_weight: float = 1.0
    """Weight of the regulariser towards the improved policy (lambda_c)."""
    policy_model_weight: float = 1.0
    """Weight of the model's policy loss, a mean over the unroll."""
    reward_weight: float = 1.0
    """Weight of the model's reward loss, a mean over the unroll."""
    value_weight: float = 0.25
    """Weight of the value loss, a mean over the present and the unroll."""
    entropy_weight: float = 0.0
    """Weight of an entropy bonus, in nats; the papers have none."""
    behaviour_share: float = 0.03
    """Share of the behaviour policy in the prior."""
    uniform_share: float = 0.003
    """Share of the uniform policy in the prior."""
    target_rate: float = 0.1
    """How far the target network moves towards the learnt one at every step of the optimiser (alpha)."""
    moment_decay: float = 0.99
    """Of the moving second moment of advantages (beta)."""
    max_update: float = 1.0
    """Adam's update is clipped to this, number by number, before the step size."""
    reward_scale: float = 0.2
    """Rewards are multiplied by this before learning."""
    bound: float = 5.0
    """Squashed values and rewards are represented from -bound to bound."""
    bins: int = eqx.field(static=True, default=51)
    """Categories of values and rewards."""
    unroll: int = eqx.field(static=True, default=4)
    """Steps that the model is unrolled in learning (I)."""
    epochs: int = eqx.field(static=True, default=1)
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
    """Width of the encoder, of the model's state and of the heads' hidden layers."""

    def __check_init__(self) -> None:
        """Refuse what cannot run, all problems at once."""
        wrong = []
        if self.minibatches >= 1 and self.num_envs % self.minibatches:
            wrong.append(f"num_envs must be a multiple of minibatches={self.minibatches}; got {self.num_envs}")
        wrong += out_of_range(
            self,
            sizes=("unroll", "epochs", "minibatches", "num_envs", "rollout_length", "hidden", "width", "layers",
                   "heads", "slots"),
            positive=("learning_rate", "clip", "max_update", "reward_scale", "bound"),
            least_0=("improvement_weight", "policy_model_weight", "reward_weight", "value_weight", "entropy_weight",
                     "decay_updates"),
            shares=("gamma", "lambda_", "behaviour_share", "uniform_share", "target_rate", "moment_decay"),
        )  # fmt: skip
        if self.bins < 3 or self.bins % 2 == 0:
            wrong.append(f"bins must be odd and at least 3, so that 0 has one; got {self.bins}")
        if self.behaviour_share + self.uniform_share > 1:
            wrong.append("behaviour_share and uniform_share must not add up to more than 1")
        if self.memory not in TORSO_MEMORIES:
            wrong.append(f"memory must be one of {', '.join(TORSO_MEMORIES)}; got {self.memory!r}")
        if wrong:
            raise ConfigError("muesli: " + "; ".join(wrong) + ".")


class Head(eqx.Module):
    """One hidden layer."""

    hidden: Linear
    out: Linear

    def __init__(self, key: Key[Array, ""], n: int, width: int, m: int, *, scale: float):
        hidden_key, out_key = jax.random.split(key)
        self.hidden, self.out = Linear(hidden_key, n, width), Linear(out_key, width, m, scale=scale)

    def __call__(self, x: Float[Array, "*axes n"]) -> Float[Array, "*axes m"]:
        """Apply to the last axis."""
        return self.out(jax.nn.relu(self.hidden(x)))


class Model(NamedTuple):
    """State of the model: hidden and cell of an LSTM."""

    hidden: Float[Array, "*axes D"]
    cell: Float[Array, "*axes D"]


class Net(Torso):
    """Encoder and memory; a model that starts from what is seen and remembered; heads on the model's state."""

    root_hidden: Head
    root_cell: Head
    gates: Linear
    actions: Float[Array, "A n"]
    policy: Head
    value: Head
    reward: Head

    def __call__(
        self, carry: Carry, obs: Obs, start: Bool[Array, "T B"]
    ) -> tuple[Carry, Model, Float[Array, "T B A"], Float[Array, "T B bins"]]:
        """Memory after the last step; the model's state, policy logits and value logits of every step."""
        carry, features = self.remember(carry, obs, start)
        root = Model(jnp.tanh(self.root_hidden(features)), self.root_cell(features))
        return carry, root, self.policy(root.hidden), self.value(root.hidden)

    def imagine(self, model: Model, action: Int32[Array, "*axes"]) -> Model:
        """The model's state after an action."""
        return self._turn(model.cell, self.gates(model.hidden) + self.actions[action])

    def imagine_all(self, model: Model) -> Model:
        """The states after every action, along a new axis before the last; what is common is computed once."""
        choices = jnp.reshape(self.actions, (1,) * (model.cell.ndim - 1) + self.actions.shape)
        gates = self.gates(model.hidden)[..., None, :] + choices
        return self._turn(model.cell[..., None, :], gates)

    def _turn(self, cell: Array, gates: Array) -> Model:
        i, f, o, g = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(f + 1.0) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        return Model(jax.nn.sigmoid(o) * jnp.tanh(cell), cell)


class State(NamedTuple):
    """Everything that learning needs to go on. `target` acts and gives the targets."""

    net: Net
    target: Net
    opt: optax.OptState
    moment: Float[Array, ""]
    """Moving second moment of advantages, not yet debiased."""
    steps: Int32[Array, ""]
    """Of the optimiser."""


class Metrics(NamedTuple):
    """Means over the minibatches of an update; explained in README.md."""

    policy_loss: Array
    improvement_loss: Array
    policy_model_loss: Array
    reward_loss: Array
    value_loss: Array
    entropy: Array
    improvement_kl: Array
    advantage_scale: Array
    explained_variance: Array
    clipped_updates: Array


def init(config: Config, key: Key[Array, ""], spec: EnvSpec) -> State:
    """Fresh weights for a spec; policy, value and reward start almost uniform."""
    if not isinstance(spec.action, Discrete):
        raise ConfigError(f"muesli takes discrete actions; {spec.id} has {spec.action!r}.")
    torso_key, *keys = jax.random.split(key, 8)
    torso, features = make_torso(torso_key, spec, config.memory, width=config.width, hidden=config.hidden,
                                 layers=config.layers, heads=config.heads, slots=config.slots)  # fmt: skip
    width = config.width
    head = partial(Head, n=width, width=width, scale=0.01)
    net = Net(
        encoder=torso.encoder,
        memory=torso.memory,
        types=torso.types,
        root_hidden=Head(keys[0], features, width, width, scale=1.0),
        root_cell=Head(keys[1], features, width, width, scale=1.0),
        gates=Linear(keys[2], width, 4 * width, scale=1.0),
        actions=0.5 * jax.random.normal(keys[3], (spec.action.n, 4 * width)),
        policy=head(keys[4], m=spec.action.n),
        value=head(keys[5], m=config.bins),
        reward=head(keys[6], m=config.bins),
    )
    return begin(config, net)


def begin(config: Config, net: Net) -> State:
    """The state from which a network goes on learning."""
    opt = _optimiser(config).init(eqx.filter(net, eqx.is_array))
    return State(net, jax.tree.map(jnp.copy, net), opt, jnp.zeros(()), jnp.int32(0))


def _optimiser(config: Config) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(), optax.clip(config.max_update))


def step_size(config: Config, steps: Int32[Array, ""]) -> Float[Array, ""]:
    """Learning rate after so many steps of the optimiser."""
    whole = config.decay_updates * config.epochs * config.minibatches
    left = 1.0 - steps.astype(jnp.float32) / max(whole, 1)
    return jnp.asarray(config.learning_rate) * (jnp.maximum(left, 0.0) if whole else 1.0)


def act(bound: Float[Array, ""] | float, key: Key[Array, ""], net: Net, carry: Carry, obs: Obs,
        start: Bool[Array, " B"], *, explore: bool) -> ActOutput:  # fmt: skip
    """One action per row, sampled or greedy, and what the model expects after it."""
    carry, root, logits, value = net(carry, jax.tree.map(lambda x: x[None], obs), start[None])
    logits = logits[0]
    action = (jax.random.categorical(key, logits) if explore else jnp.argmax(logits, axis=-1)).astype(jnp.int32)
    after = net.imagine(jax.tree.map(lambda x: x[0], root), action).hidden
    extras = Extras(
        logits=logits,
        value=twohot.decode(value[0], bound),
        log_prob=categorical.log_prob(logits, action),
        next_value=twohot.decode(net.value(after), bound),
        next_logits=net.policy(after),
    )
    return ActOutput(action, carry, extras)


class Targets(NamedTuple):
    """What the loss compares with: from the target network, constant in the loss."""

    advantage: Float[Array, "T B"]
    """Returns less values, in standard deviations."""
    returns: Float[Array, "T1 B"]
    """Retrace returns, and the value after the last step."""
    improved: Float[Array, "T B A"]
    """Probabilities of the improved policy."""
    moment: Float[Array, ""]
    value: Float[Array, "T B"]
    scale: Float[Array, ""]
    prior: Float[Array, "T B A"]


def targets(config: Config, state: State, rollout: Rollout) -> Targets:
    """Returns, advantages and the improved policy; the discount runs through trial borders."""
    _, root, logits, value_logits = state.target(rollout.carry, rollout.obs, rollout.start)
    value = twohot.decode(value_logits, config.bound)
    after = state.target.imagine_all(root).hidden
    q = twohot.decode(state.target.reward(after), config.bound)
    q = q + config.gamma * twohot.decode(state.target.value(after), config.bound)
    behaviour = jax.nn.softmax(given(rollout.extras.logits))
    prior = mixture(config, jax.nn.softmax(logits), behaviour)

    taken = rollout.action[..., None]
    ratio = jnp.take_along_axis(prior, taken, -1) / jnp.take_along_axis(behaviour, taken, -1)
    cut = rollout.terminated | rollout.truncated
    expected = jnp.sum(prior * q, axis=-1)  # not `value`: returns are unbiased only if it is the mean of q
    v_next = jnp.concatenate([expected[1:], rollout.last_value[None]])
    returns = jax.vmap(retrace, in_axes=1, out_axes=1)(
        config.reward_scale * rollout.reward,
        config.gamma * (1.0 - rollout.terminated.astype(jnp.float32)),
        cut.astype(jnp.float32),
        config.lambda_ * jnp.minimum(1.0, ratio[..., 0]),
        jnp.take_along_axis(q, taken, -1)[..., 0],
        jnp.where(rollout.truncated, rollout.final_value, v_next),
    )
    second = masked_mean((returns - value) ** 2, rollout.learn)
    moment = config.moment_decay * state.moment + (1.0 - config.moment_decay) * second
    debias = 1.0 - config.moment_decay ** (state.steps.astype(jnp.float32) + 1.0)
    scale = jnp.sqrt(moment / debias + 1e-12)
    improved = improve(prior, (q - value[..., None]) / scale, config.clip)
    return Targets((returns - value) / scale, jnp.concatenate([returns, rollout.last_value[None]]), improved, moment,
                   value, scale, prior)  # fmt: skip


def mixture(config: Config, policy: Float[Array, "*n A"], behaviour: Float[Array, "*n A"]) -> Float[Array, "*n A"]:
    """The prior: the target network's policy, a little of the behaviour's and of the uniform one (AdA, App. D.2)."""
    own = 1.0 - config.behaviour_share - config.uniform_share
    return own * policy + config.behaviour_share * behaviour + config.uniform_share / policy.shape[-1]


def improve(
    prior: Float[Array, "*n A"], advantage: Float[Array, "*n A"], clip: Float[Array, ""] | float
) -> Float[Array, "*n A"]:
    """CMPO: prior * exp(clip(advantage, -c, c)), normalised; at total variation of at most tanh(c / 2) from the prior.

    Source: Muesli (2104.06159), eq. 8 and theorem 4.1.
    """
    weight = prior * jnp.exp(jnp.clip(advantage, -clip, clip))
    return weight / weight.sum(axis=-1, keepdims=True)


def improve_sampled(
    key: Key[Array, ""], prior: Float[Array, "*n A"], advantage: Float[Array, "*n A"], clip: float, samples: int
) -> tuple[Int32[Array, "N *n"], Float[Array, "N *n"]]:
    """Actions from the prior and weights w, so that -mean(w log pi(action)) estimates the cross-entropy to CMPO.

    For many or factored actions. w_k = exp(clip(A_k)) / z_k with z_k = (1 + sum of the others' exp(clip(A))) / N.
    Source: Muesli (2104.06159), eq. 10, with the leave-one-out normaliser.
    """
    action = jax.random.categorical(key, jnp.log(prior), shape=(samples, *prior.shape[:-1]))
    gain = jnp.exp(jnp.clip(advantage, -clip, clip))
    gain = jnp.take_along_axis(jnp.broadcast_to(gain[None], (samples, *gain.shape)), action[..., None], -1)[..., 0]
    others = (1.0 + gain.sum(axis=0, keepdims=True) - gain) / samples
    return action.astype(jnp.int32), gain / others


def loss(config: Config, net: Net, rollout: Rollout, target: Targets) -> tuple[Float[Array, ""], Metrics]:
    """Policy gradient, regulariser and model losses on whole rows of a rollout."""
    _, model, logits, value_logits = net(rollout.carry, rollout.obs, rollout.start)
    mean = partial(masked_mean, mask=rollout.learn)
    log_prob = categorical.log_prob(logits, rollout.action)
    ratio = jnp.minimum(1.0, jnp.exp(log_prob - given(rollout.extras.log_prob)))
    policy_loss = -mean(jax.lax.stop_gradient(ratio) * target.advantage * log_prob)
    improvement_loss = mean(categorical.kl(target.improved, logits))
    entropy = mean(categorical.entropy(logits))

    encode = partial(twohot.encode, bins=config.bins, bound=config.bound)
    value_losses = [mean(twohot.cross_entropy(value_logits, encode(target.returns[:-1])))]
    reward_losses, policy_losses = [], []
    for ahead in look_ahead(rollout, config.unroll):
        model = net.imagine(model, ahead.action)
        reward = config.reward_scale * ahead.reward
        reward_error = twohot.cross_entropy(net.reward(model.hidden), encode(reward))
        reward_losses.append(masked_mean(reward_error, ahead.has_reward))
        returns = jnp.where(ahead.over, 0.0, target.returns[ahead.later])
        value_error = twohot.cross_entropy(net.value(model.hidden), encode(returns))
        value_losses.append(masked_mean(value_error, ahead.has_value))
        wanted = target.improved[jnp.minimum(ahead.later, rollout.reward.shape[0] - 1)]
        policy_losses.append(masked_mean(categorical.kl(wanted, net.policy(model.hidden)), ahead.has_policy))

    parts = (reward_losses, value_losses, policy_losses)
    reward_loss, value_loss, policy_model_loss = (jnp.mean(jnp.stack(part)) for part in parts)
    total = (
        policy_loss
        + config.improvement_weight * improvement_loss
        + config.policy_model_weight * policy_model_loss
        + config.reward_weight * reward_loss
        + config.value_weight * value_loss
        - config.entropy_weight * entropy
    )
    error, returns = target.returns[:-1] - target.value, target.returns[:-1]
    spread = mean((returns - mean(returns)) ** 2)
    metrics = Metrics(
        policy_loss=policy_loss,
        improvement_loss=improvement_loss,
        policy_model_loss=policy_model_loss,
        reward_loss=reward_loss,
        value_loss=value_loss,
        entropy=entropy,
        improvement_kl=mean(categorical.kl(target.improved, jnp.log(target.prior))),
        advantage_scale=target.scale,
        explained_variance=1.0 - mean((error - mean(error)) ** 2) / (spread + 1e-8),
        clipped_updates=jnp.zeros(()),
    )
    return total, metrics


class Ahead(NamedTuple):
    """What came i steps after every step of a rollout, and what of it is known. Beyond an end nothing is paid."""

    action: Int32[Array, "T B"]
    reward: Float[Array, "T B"]
    later: Int32[Array, " T"]
    """Index of the state after it, at most T."""
    over: Bool[Array, "T B"]
    """The episode had ended by then."""
    has_reward: Bool[Array, "T B"]
    has_value: Bool[Array, "T B"]
    has_policy: Bool[Array, "T B"]


def look_ahead(rollout: Rollout, unroll: int) -> list[Ahead]:
    """Actions and rewards of the next steps. Masked: what the rollout does not hold or what follows a time limit."""
    steps = rollout.reward.shape[0]
    alive, over = rollout.learn, jnp.zeros_like(rollout.learn)
    found = []
    for i in range(1, unroll + 1):
        at = jnp.arange(steps, dtype=jnp.int32) + i - 1
        inside, now = (at < steps)[:, None], jnp.minimum(at, steps - 1)
        has_reward = (alive & inside) | over
        reward = jnp.where(over, 0.0, rollout.reward[now])
        over = over | (alive & inside & rollout.terminated[now])
        alive = alive & inside & ~rollout.terminated[now] & ~rollout.truncated[now]
        has_policy = alive & (at + 1 < steps)[:, None]
        later = jnp.minimum(at + 1, steps)
        found.append(Ahead(rollout.action[now], reward, later, over, has_reward, alive | over, has_policy))
    return found


def update(config: Config, key: Key[Array, ""], state: State, batch: Rollout, *, labels: None = None) -> Update:
    """Passes of minibatch steps over one rollout; the target network follows after every step."""
    del labels
    optimiser = _optimiser(config)

    def minibatch(state: State, rows: Int32[Array, " b"]) -> tuple[State, Metrics]:
        part = batch.rows(rows)
        target = jax.lax.stop_gradient(targets(config, state, part))
        grads, metrics = eqx.filter_grad(partial(loss, config), has_aux=True)(state.net, part, target)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes Python floats and integer arrays
            updates, opt = optimiser.update(grads, state.opt)
        rate = step_size(config, state.steps)
        net = eqx.apply_updates(state.net, jax.tree.map(lambda x: -rate * x, updates))
        follow = jax.tree.map(lambda a, b: a + config.target_rate * (b - a), state.target, net)
        leaves = jax.tree.leaves(updates)
        clipped = sum(jnp.sum((jnp.abs(x) >= config.max_update).astype(jnp.float32)) for x in leaves)
        after = State(net, follow, opt, target.moment, state.steps + 1)
        return after, metrics._replace(clipped_updates=clipped / sum(x.size for x in leaves))

    num_rows = batch.reward.shape[1]
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_rows))(jax.random.split(key, config.epochs))
    arrays, static = eqx.partition(state, eqx.is_array)

    def step(carry: PyTree, rows: Array) -> tuple[PyTree, Metrics]:
        after, metrics = minibatch(eqx.combine(carry, static), rows)
        return only_if(jnp.any(batch.learn[:, rows]), eqx.filter(after, eqx.is_array), carry), metrics

    arrays, metrics = jax.lax.scan(step, arrays, orders.reshape(-1, num_rows // config.minibatches))
    return Update(eqx.combine(arrays, static), jax.tree.map(jnp.mean, metrics))


class MuesliPolicy(eqx.Module):
    """The acting half: the target network, and the range of its values."""

    net: Net
    bound: float = eqx.field(static=True)

    def init_carry(self, batch_size: int) -> PyTree:
        """Empty memory."""
        return self.net.init_carry(batch_size)

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """One action per row."""
        return act(self.bound, key, self.net, carry, obs, start, explore=explore)


def adopt(config: Config, key: Key[Array, ""], spec: EnvSpec, policy: MuesliPolicy) -> State:
    """A state that goes on learning from a policy's network, with a fresh optimiser."""
    del key, spec
    return begin(config, policy.net)


def make(config: Config) -> Agent:
    """Bind the config."""
    return Agent(
        name=NAME,
        config=config,
        needs=Data("rollout", length=config.rollout_length, batch=config.num_envs),
        init=partial(init, config),
        init_carry=lambda state, batch_size: state.target.init_carry(batch_size),
        act=lambda key, state, carry, obs, start, *, explore: act(
            config.bound, key, state.target, carry, obs, start, explore=explore
        ),
        update=partial(update, config),
        policy=lambda state: MuesliPolicy(state.target, config.bound),
        refresh=lambda state, carry: state.target.refresh(carry),
    )
