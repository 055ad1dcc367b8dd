"""MR.Q: one actor-critic with one set of hyperparameters for every domain, on features that a model's losses shape.

Fujimoto et al. 2025 (2501.16142). An encoder of states and actions learns to predict reward, termination and next
features over short unrolls; critics and a policy learn on its features, which stand still between two phases of its
learning. No planning, no imagined steps. What the paper leaves open and how it is decided is in README.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32, Key, PyTree

from rekindle.agents.mrq import losses
from rekindle.agents.mrq.actions import (
    add_noise,
    is_discrete,
    noise_share,
    random_action,
    soften,
    space_of,
    to_env,
    to_network,
)
from rekindle.agents.mrq.config import PRESETS as PRESETS
from rekindle.agents.mrq.config import Config
from rekindle.agents.mrq.losses import Predicted
from rekindle.agents.mrq.nets import Actor, Encoder, Features, Nets, shifted
from rekindle.core import twohot
from rekindle.core.losses import huber
from rekindle.core.memoryless import Memoryless
from rekindle.core.optimisers import decayed_adam
from rekindle.core.types import ActOutput, Agent, Data, EnvSpec, Extras, Guidance, Obs, Past, Sequences, Update
from rekindle.networks.normalised import Layer, Perceptron, elu
from rekindle.networks.target import descend

NAME, VERSION = "mrq", 1


class Optimisers(NamedTuple):
    """Their states."""

    encoder: optax.OptState
    values: optax.OptState
    policy: optax.OptState


class State(NamedTuple):
    """Everything that learning needs to go on."""

    nets: Nets
    targets: Nets
    opts: Optimisers
    scale: Float[Array, ""]
    """Mean size of rewards: the critics' unit."""
    target_scale: Float[Array, ""]
    """What it was when the target critics were trained."""
    updates: Int32[Array, ""]
    warm: Bool[Array, ""]
    """Whether it has learnt; before, exploration is random."""


class Metrics(NamedTuple):
    """Of an update; explained in README.md."""

    value_loss: Array
    policy_loss: Array
    guide_loss: Array
    q_mean: Array
    target_mean: Array
    priority_max: Array
    grad_norm: Array
    plain_size: Array


class EncoderMetrics(NamedTuple):
    """Of a phase of the encoder; explained in README.md."""

    encoder_loss: Array
    dynamics_loss: Array
    reward_loss: Array
    terminal_loss: Array
    reward_scale: Array


class Parts(NamedTuple):
    """What the paper's design study exchanges; `ablations.py` has the others."""

    critic: Callable[[Key[Array, ""], Config], Perceptron]
    model: Callable[[Key[Array, ""], Config], Layer | Perceptron]
    dynamics_target: Callable[[Encoder, Nets, Obs], Array]
    reward_error: Callable[[Config, Array, Array], Array]
    scale: Callable[[Array], Array]
    lower: Callable[[Array], Array]
    """Of what the target critics say."""
    value_error: Callable[[Array], Array]
    """Of critics: a loss of each difference."""
    priority: Callable[[Config, Array], Array]
    value_step: Callable[..., Any]


def init(config: Config, key: Key[Array, ""], spec: EnvSpec, *, parts: Parts | None = None) -> State:
    """Fresh weights for a spec; the targets are copies, and rewards count as of size 1.

    Args:
        config: see Config.
        key: consumed.
        spec: of a world for one, with discrete actions or a box from -x to x, and numbers or one picture to see.
        parts: see Parts.

    Raises:
        ConfigError: actions or observations that it does not take.
    """
    parts, space = parts or PARTS, space_of(spec)
    keys = jax.random.split(key, 5)
    features = Features(keys[0], spec, config.hidden, config.state_width)
    model = parts.model(keys[1], config)
    encoder = Encoder(keys[2], features, model, space, config.state_width, config.action_width, config.hidden,
                      config.pair_width)  # fmt: skip
    values = tuple(parts.critic(k, config) for k in jax.random.split(keys[3]))
    nets = Nets(encoder, values, Actor(keys[4], space, config.state_width, config.hidden))
    return _fresh(config, nets, warm=False)


def _fresh(config: Config, nets: Nets, *, warm: bool) -> State:
    start = decayed_adam(config.weight_decay).init
    opts = Optimisers(*(start(eqx.filter(net, eqx.is_array)) for net in (nets.encoder, nets.values, nets.actor)))
    return State(nets, nets, opts, jnp.ones(()), jnp.ones(()), jnp.int32(0), jnp.array(warm))


def act(config: Config, key: Key[Array, ""], state: State, carry: PyTree, obs: Obs, start: Bool[Array, " B"], *,
        explore: bool) -> ActOutput:  # fmt: skip
    """One action per row: random before the first update if exploring, then the policy's with noise.

    Args:
        config: see Config.
        key: consumed.
        state: of the learner.
        carry: (), handed back.
        obs: by name, `[B, ...]` as the spec has them.
        start: whether an episode begins; it does not matter.
        explore: add noise of standard deviation `exploration`, half of it to discrete actions.

    Returns:
        Actions as the world takes them, `[B]` or `[B, A]`; `extras.logits` `[B, A]`, or `extras.mean` in [-1, 1].
    """
    del start
    act_key, random_key = jax.random.split(key)
    out = choose(config, act_key, state.nets.encoder.features, state.nets.actor, carry, obs, explore=explore)
    if not explore:
        return out
    anything = random_action(random_key, state.nets.actor.space, out.action.shape[0])
    return out._replace(action=jnp.where(state.warm, out.action, anything))


def choose(config: Config, key: Key[Array, ""], features: Features, actor: Actor, carry: PyTree, obs: Obs, *,
           explore: bool) -> ActOutput:  # fmt: skip
    """The policy's actions, with noise if exploring."""
    soft_key, noise_key = jax.random.split(key)
    plain, space = actor(features(obs)), actor.space
    if is_discrete(space) and not explore and config.eval_discrete == "greedy":
        return ActOutput(jnp.argmax(plain, axis=-1).astype(jnp.int32), carry, Extras(logits=plain))
    action = soften(soft_key, space, plain, config.temperature)
    if explore:
        size = config.exploration * noise_share(space)
        action = add_noise(space, action, size * jax.random.normal(noise_key, action.shape))
    extras = Extras(logits=plain) if is_discrete(space) else Extras(mean=jnp.tanh(plain))
    return ActOutput(to_env(space, action), carry, extras)


# The encoder


def prepare(
    config: Config, key: Key[Array, ""], state: State, batches: PyTree, past: Past, *,
    fetch: Callable[[Any], Sequences] = lambda batch: batch, parts: Parts | None = None,
) -> Update:  # fmt: skip
    """Copies to the targets, the rewards' size, then an update of the encoder on every batch.

    Args:
        config: see Config.
        key: consumed.
        state: before update 1, 1 + period, ...
        batches: any tree; its entries along the first axis make one batch each.
        past: of the replay.
        fetch: makes sequences of an entry, such as of places in a replay. Without, the entries are sequences.
        parts: see Parts.
    """
    parts = parts or PARTS
    state = state._replace(targets=state.nets, target_scale=state.scale, scale=parts.scale(past.reward_size))
    number = jax.tree.leaves(batches)[0].shape[0]
    optimiser = decayed_adam(config.weight_decay)

    def step(carry: tuple[Encoder, optax.OptState], now: tuple[Array, Any]) -> tuple[Any, EncoderMetrics]:
        (encoder, opt), (step_key, entry) = carry, now
        batch = shifted(step_key, encoder.features, fetch(entry))
        loss = lambda net: encoder_loss(config, parts, net, state.targets, batch, past.terminates)  # noqa: E731
        grads, metrics = eqx.filter_grad(loss, has_aux=True)(encoder)
        return descend(encoder, grads, opt, optimiser, config.encoder_rate), metrics

    carry, metrics = jax.lax.scan(
        step, (state.nets.encoder, state.opts.encoder), (jax.random.split(key, number), batches)
    )
    nets, opts = state.nets.replace(encoder=carry[0]), state.opts._replace(encoder=carry[1])
    means = jax.tree.map(lambda x: jnp.sum(x) / max(number, 1), metrics)._replace(reward_scale=state.scale)
    return Update(state._replace(nets=nets, opts=opts), means)


def encoder_loss(
    config: Config, parts: Parts, encoder: Encoder, targets: Nets, batch: Sequences, terminates: Bool[Array, ""]
) -> tuple[Float[Array, ""], EncoderMetrics]:
    """Of the model, unrolled from the features of the first observation with the actions that were taken."""
    steps = config.encoder_horizon
    after = jax.tree.map(lambda x: x[1 : steps + 1].reshape(-1, *x.shape[2:]), batch.obs)
    target = parts.dynamics_target(encoder, targets, after)
    actions = to_network(encoder.space, batch.action[:steps])
    read = encoder.read(actions.reshape(-1, actions.shape[-1])).reshape(*actions.shape[:2], -1)
    state, said = encoder.features(jax.tree.map(lambda x: x[0], batch.obs)), list[Array]()
    for t in range(steps):
        said.append(encoder.predict(encoder.join(state, read[t])))
        state = said[-1][:, 1 : 1 + config.state_width]
    out = jnp.stack(said)
    predicted = Predicted(out[..., 0], out[..., 1 : 1 + config.state_width], out[..., 1 + config.state_width :])
    target = target.reshape(*predicted.done.shape, -1)
    reward_error = parts.reward_error(config, predicted.reward, batch.reward[:steps])
    found = losses.model_losses(predicted, target, reward_error, batch.terminated[:steps], terminates)
    total = weighted(config, found)
    return total, EncoderMetrics(total, *found, reward_scale=jnp.zeros_like(total))


def weighted(config: Config, found: losses.ModelLosses) -> Float[Array, ""]:
    """The encoder's loss."""
    terminal = config.terminal_weight * found.terminal
    return config.dynamics_weight * found.dynamics + config.reward_weight * found.reward + terminal


def reward_categories(
    config: Config, logits: Float[Array, "T B K"], reward: Float[Array, "T B"]
) -> Float[Array, "T B"]:
    """Cross-entropy to the reward between its two bins."""
    bins = twohot.symexp_bins(config.bins, config.exponent).astype(reward.dtype)
    return twohot.cross_entropy(logits, twohot.encode_between(reward, bins))


def next_features(encoder: Encoder, targets: Nets, after: Obs) -> Float[Array, "n D"]:
    """What the model has to predict: the target encoder's features of what was seen next."""
    del encoder
    return jax.lax.stop_gradient(targets.encoder.features(after))


# Critics and policy


def update(
    config: Config, key: Key[Array, ""], state: State, batch: Sequences, *, guide: Guidance | None = None,
    parts: Parts | None = None,
) -> Update:  # fmt: skip
    """One step of the critics and one of the policy, to which somebody may add; new priorities of what was drawn.

    Args:
        config: see Config.
        key: consumed.
        state: prepared; see `prepare`.
        batch: sequences of T >= value_horizon steps, observations 0 to T; of those the first and number value_horizon
            are looked at.
        guide: what is added to the policy's loss.
        parts: see Parts.

    Returns:
        The state, Metrics, and priorities `[B]`, at least 1: max(|error| of the worse critic, 1)^alpha before the step.
    """
    parts, config = parts or PARTS, config if guide is None else at_rate(config, guide.learning_rate)
    shift_key, target_key, policy_key = jax.random.split(key, 3)
    n = config.value_horizon
    ends = batch._replace(obs=jax.tree.map(lambda x: jnp.stack([x[0], x[n]]), batch.obs))
    seen = shifted(shift_key, state.nets.encoder.features, ends).obs
    obs, after = jax.tree.map(lambda x: x[0], seen), jax.tree.map(lambda x: x[1], seen)
    target = value_target(config, parts, target_key, state, batch.reward[:n], batch.terminated[:n], after)
    action = to_network(state.nets.actor.space, batch.action[0])
    nets, opts, z, q, (value_loss, norm) = parts.value_step(config, parts, state.nets, state.opts, obs, action, target)
    added = None if guide is None else partial(guided, guide, batch)
    nets, opts, policy_losses = policy_step(config, policy_key, nets, opts, z, added)
    priorities = parts.priority(config, jnp.max(jnp.abs(q - target[None]), axis=0))
    metrics = Metrics(value_loss, policy_losses.own, policy_losses.guide, jnp.mean(q), jnp.mean(target),
                      jnp.max(priorities), norm, policy_losses.plain_size)  # fmt: skip
    state = state._replace(nets=nets, opts=opts, updates=state.updates + 1, warm=jnp.ones_like(state.warm))
    return Update(state, metrics, priorities)


def at_rate(config: Config, rate: Float[Array, ""] | float) -> Config:
    """With another step size of the critics, and the policy's in proportion."""
    rates = (rate, rate / config.value_rate * config.policy_rate)
    return eqx.tree_at(lambda config: (config.value_rate, config.policy_rate), config, rates)


def guided(
    guide: Guidance, batch: Sequences, own: Float[Array, ""], q: Float[Array, "2 B"], said: Float[Array, "B A"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The policy's loss with what somebody adds, whose weight is in units of what the critics say; and the latter.

    Source: TD3+BC (Fujimoto and Gu 2021, 2106.06860), eq. 5, which divides the critics' part by that instead.
    """
    size, added = jax.lax.stop_gradient(jnp.mean(jnp.abs(q))), jnp.mean(guide.loss(said, batch))
    return guide.own * own + guide.weight * size * added, added


def value_target(
    config: Config, parts: Parts, key: Key[Array, ""], state: State, reward: Float[Array, "n B"],
    terminated: Bool[Array, "n B"], after: Obs,
) -> Float[Array, " B"]:  # fmt: skip
    """What the critics are to say, in units of the rewards' size: (R + D r' min Q'(z', a')) / r.

    Args:
        config: see Config.
        parts: see Parts.
        key: consumed.
        state: whose target nets say z', a' (with clipped noise) and Q', in the unit r' of when they were copied.
        reward: of the steps t to t + n - 1.
        terminated: with which of them an episode terminated.
        after: what was seen at t + n.

    Source: Fujimoto et al. 2025 (2501.16142), section 4.
    """
    soft_key, noise_key = jax.random.split(key)
    encoder, space = state.targets.encoder, state.targets.actor.space
    z = encoder.features(after)
    action, half = soften(soft_key, space, state.targets.actor(z), config.temperature), noise_share(space)
    noise = config.target_noise * half * jax.random.normal(noise_key, action.shape)
    action = add_noise(space, action, jnp.clip(noise, -config.noise_clip * half, config.noise_clip * half))
    value = parts.lower(q_values(state.targets.values, encoder.join(z, encoder.read(action))))
    earned, discount = losses.returns(reward, terminated, config.gamma, config.n_step)
    return losses.continued(earned, discount, value, state.scale, state.target_scale)


def q_values(values: tuple[Perceptron, ...], pair: Float[Array, "B D"]) -> Float[Array, "2 B"]:
    """What both critics say."""
    return jnp.stack([critic(pair, elu)[:, 0] for critic in values])


class Stepped(NamedTuple):
    """After a step of the critics."""

    nets: Nets
    opts: Optimisers
    state: Float[Array, "B D"]
    """Features of the states."""
    q: Float[Array, "2 B"]
    """What the critics said before."""
    measures: tuple[Float[Array, ""], Float[Array, ""]]
    """Their loss, and the norm of its gradient."""


def value_step(
    config: Config, parts: Parts, nets: Nets, opts: Optimisers, obs: Obs, action: Float[Array, "B A"],
    target: Float[Array, " B"],
) -> Stepped:  # fmt: skip
    """Of the critics alone: the features stand still."""
    z = nets.encoder.features(obs)
    pair = nets.encoder.join(z, nets.encoder.read(action))

    def loss(values: tuple[Perceptron, ...]) -> tuple[Float[Array, ""], Float[Array, "2 B"]]:
        q = q_values(values, pair)
        return jnp.mean(parts.value_error(q - target[None])), q

    (value_loss, q), grads = eqx.filter_value_and_grad(loss, has_aux=True)(nets.values)
    values, opt, norm = clipped_step(config, nets.values, grads, opts.values)
    return Stepped(nets.replace(values=values), opts._replace(values=opt), z, q, (value_loss, norm))


def clipped_step(config: Config, values: Any, grads: Any, opt: optax.OptState) -> tuple[Any, optax.OptState, Array]:
    """Of the critics, along a gradient of at most the norm that is allowed; and its norm before."""
    norm = optax.tree.norm(grads)
    grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, config.grad_clip / norm), grads)
    return *descend(values, grads, opt, decayed_adam(config.weight_decay), config.value_rate), norm


Added = Callable[[Array, Array, Array], tuple[Array, Array]]
"""From the policy's own loss, what the critics say, and what the policy says, to the loss that is taken, and what was
added."""


class PolicyLosses(NamedTuple):
    """Of a step of the policy."""

    own: Float[Array, ""]
    guide: Float[Array, ""]
    """Of somebody else, before it is weighted."""
    plain_size: Float[Array, ""]
    """Mean square of the policy's output before it is bent or softened."""


def policy_step(
    config: Config, key: Key[Array, ""], nets: Nets, opts: Optimisers, z: Float[Array, "B D"],
    added: Added | None = None,
) -> tuple[Nets, Optimisers, PolicyLosses]:  # fmt: skip
    """Towards actions that the critics value; gradients of other nets' weights are not computed."""

    def loss(actor: Actor) -> tuple[Float[Array, ""], PolicyLosses]:
        plain = actor(z)
        action = soften(key, actor.space, plain, config.temperature)
        q = q_values(nets.values, nets.encoder.join(z, nets.encoder.read(action)))
        own, size = losses.policy_loss(q, plain, config.plain_weight)
        said = plain if is_discrete(actor.space) else action
        total, guide = (own, jnp.zeros_like(own)) if added is None else added(own, q, said)
        return total, PolicyLosses(own, guide, size)

    (_, found), grads = eqx.filter_value_and_grad(loss, has_aux=True)(nets.actor)
    actor, opt = descend(nets.actor, grads, opts.policy, decayed_adam(config.weight_decay), config.policy_rate)
    return nets.replace(actor=actor), opts._replace(policy=opt), found


PARTS = Parts(
    critic=lambda key, config: Perceptron(key, config.pair_width, *(config.hidden,) * 3, 1),
    model=lambda key, config: Layer(key, config.pair_width, 1 + config.state_width + config.bins),
    dynamics_target=next_features,
    reward_error=reward_categories,
    scale=lambda size: size,
    lower=lambda q: jnp.min(q, axis=0),
    value_error=jax.vmap(jax.vmap(huber)),
    priority=lambda config, error: losses.priority(error, config.least_priority, config.alpha),
    value_step=value_step,
)
"""The paper's."""


# The agent


class MRQPolicy(Memoryless):
    """The acting half."""

    features: Features
    actor: Actor
    config: Config = eqx.field(static=True)

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """One action per row."""
        del start
        return choose(self.config, key, self.features, self.actor, carry, obs, explore=explore)


def adopt(
    config: Config, key: Key[Array, ""], spec: EnvSpec, policy: MRQPolicy, *, parts: Parts | None = None
) -> State:
    """A state that goes on learning from a policy and what it sees by, with all else fresh; it acts by that policy."""
    nets = init(config, key, spec, parts=parts).nets
    encoder = eqx.tree_at(lambda encoder: encoder.features, nets.encoder, policy.features)
    return _fresh(config, nets.replace(encoder=encoder, actor=policy.actor), warm=True)


def restart(config: Config, state: State, *, optimiser_too: bool) -> State:
    """The targets follow at once; the optimisers forget, if asked to."""
    opts = _fresh(config, state.nets, warm=True).opts if optimiser_too else state.opts
    return state._replace(targets=state.nets, target_scale=state.scale, opts=opts)


def make(config: Config, parts: Parts | None = None) -> Agent:
    """Bind the config, and other parts than the paper's."""
    needs = Data("sequence", length=max(config.encoder_horizon, config.value_horizon), batch=config.batch,
                 n_step=config.value_horizon, warmup=config.warmup, rows=config.num_envs, capacity=config.capacity,
                 gamma=config.gamma, prioritised=True, prepare_period=config.period,
                 prepare_batches=config.encoder_updates, true_ends=config.terminal_obs == "correct")  # fmt: skip
    return Agent(
        name=NAME,
        config=config,
        needs=needs,
        init=partial(init, config, parts=parts),
        init_carry=lambda state, batch_size: (),
        act=partial(act, config),
        update=partial(update, config, parts=parts),
        policy=lambda state: MRQPolicy(state.nets.encoder.features, state.nets.actor, config),
        restart=lambda state, *, optimiser: restart(config, state, optimiser_too=optimiser),
        prepare=partial(prepare, config, parts=parts),
    )
