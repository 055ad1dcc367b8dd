"""MR.Q with other parts: every row of the paper's design study, each a few settings or functions exchanged.

What the paper does not say of a row, and how it is decided, is in README.md.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from rekindle.agents.mrq.actions import add_noise
from rekindle.agents.mrq.mrq import PARTS, Config, Optimisers, Parts, Stepped, clipped_step, make, q_values
from rekindle.agents.mrq.nets import Encoder, Nets
from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.core.optimisers import decayed_adam
from rekindle.core.types import Agent, Obs
from rekindle.networks.normalised import Layer, Perceptron
from rekindle.networks.target import descend


def linear_critic(key: Key[Array, ""], config: Config) -> Perceptron:
    """One layer without a hidden one."""
    return Perceptron(key, config.pair_width, 1)


def deep_model(key: Key[Array, ""], config: Config) -> Perceptron:
    """Two hidden layers."""
    out = 1 + config.state_width + config.bins
    return Perceptron(key, config.pair_width, config.hidden, config.hidden, out)


def one_reward(key: Key[Array, ""], config: Config) -> Layer:
    """A model that says the reward as a number."""
    return Layer(key, config.pair_width, 1 + config.state_width + 1)


def squared_reward(config: Config, said: Float[Array, "T B 1"], reward: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """Squared error."""
    del config
    return (said[..., 0] - reward) ** 2


def pair_after(encoder: Encoder, nets: Nets, after: Obs) -> Float[Array, "n D"]:
    """Features of what was seen next with what the target policy does there, by this encoder."""
    state, actor = encoder.features(after), nets.actor
    plain = actor(jax.lax.stop_gradient(state))
    bent = plain if actor.space.kind == "discrete" else jnp.tanh(plain)
    return encoder.join(state, encoder.read(add_noise(actor.space, bent, jnp.zeros_like(bent))))


def target_pair(encoder: Encoder, targets: Nets, after: Obs) -> Float[Array, "n D"]:
    """The target encoder's z_s'a'."""
    del encoder
    return jax.lax.stop_gradient(pair_after(targets.encoder, targets, after))


def current_state(encoder: Encoder, targets: Nets, after: Obs) -> Float[Array, "n D"]:
    """The z_s' of the encoder that learns, which learns to be predicted too."""
    del targets
    return encoder.features(after)


def value_step_to_the_end(
    config: Config, parts: Parts, nets: Nets, opts: Optimisers, obs: Obs, action: Float[Array, "B A"],
    target: Float[Array, " B"],
) -> Stepped:  # fmt: skip
    """Of the critics and of the features that they read."""

    def loss(learnt: tuple[Encoder, Any]) -> tuple[Float[Array, ""], tuple[Array, Array]]:
        encoder, values = learnt
        z = encoder.features(obs)
        q = q_values(values, encoder.join(z, encoder.read(action)))
        return jnp.mean(parts.value_error(q - target[None])), (z, q)

    learnt = (nets.encoder, nets.values)
    (value_loss, (z, q)), (of_encoder, of_values) = eqx.filter_value_and_grad(loss, has_aux=True)(learnt)
    values, values_opt, norm = clipped_step(config, nets.values, of_values, opts.values)
    optimiser = decayed_adam(config.weight_decay)
    encoder, encoder_opt = descend(nets.encoder, of_encoder, opts.encoder, optimiser, config.encoder_rate)
    opts = opts._replace(values=values_opt, encoder=encoder_opt)
    return Stepped(nets.replace(values=values, encoder=encoder), opts, z, q, (value_loss, norm))


class Variant(NamedTuple):
    """What is exchanged."""

    settings: dict[str, Any] = {}  # noqa: RUF012  (never written to)
    parts: dict[str, Any] = {}  # noqa: RUF012


VARIANTS = {
    "linear_value": Variant(parts={"critic": linear_critic}),
    "pair_target": Variant(parts={"dynamics_target": target_pair}),
    "no_target_encoder": Variant(parts={"dynamics_target": current_state}),
    "revert": Variant(parts={"critic": linear_critic, "dynamics_target": pair_after}),
    "deep_model": Variant(parts={"model": deep_model}),
    "squared_reward": Variant(parts={"model": one_reward, "reward_error": squared_reward}),
    "no_reward_scale": Variant(parts={"scale": jnp.ones_like}),
    "no_min": Variant(parts={"lower": partial(jnp.mean, axis=0)}),
    "no_lap": Variant(parts={"priority": lambda config, error: jnp.ones_like(error), "value_error": jnp.square}),
    "no_model": Variant({"encoder_updates": 0}, {"value_step": value_step_to_the_end}),
    "one_step": Variant({"value_horizon": 1}),
    "no_unroll": Variant({"encoder_horizon": 1}),
}
"""Rows of the paper's table, in its order."""


def make_variant(name: str, config: Config) -> Agent:
    """MR.Q with what a variant exchanges in this config.

    Raises:
        ConfigError: no such variant; or features of states and of pairs, which it puts in each other's place, of
            different widths.
    """
    if name not in VARIANTS:
        raise ConfigError(f"mrq has no variant {name!r}; {did_you_mean(name, list(VARIANTS))}")
    if name in ("pair_target", "revert") and config.state_width != config.pair_width:
        raise ConfigError(
            f"{name} predicts features of pairs in place of states: state_width and pair_width must be the same; "
            f"got {config.state_width} and {config.pair_width}."
        )
    variant = VARIANTS[name]
    return make(dataclasses.replace(config, **variant.settings), PARTS._replace(**variant.parts))
