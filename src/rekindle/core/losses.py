"""Losses for one sample; the caller vmaps and averages."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def clipped_policy_gradient(
    log_prob: Float[Array, ""],
    behaviour_log_prob: Float[Array, ""],
    advantage: Float[Array, ""],
    epsilon: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """-min(ratio * A, clip(ratio, 1 - epsilon, 1 + epsilon) * A). Source: Schulman et al. 2017 (1707.06347), eq. 7."""
    ratio = jnp.exp(log_prob - behaviour_log_prob)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - epsilon, 1.0 + epsilon) * advantage)


def clipped_value_error(
    value: Float[Array, ""], old_value: Float[Array, ""], target: Float[Array, ""], epsilon: Float[Array, ""] | float
) -> Float[Array, ""]:
    """max((v - G)^2, (v_old + clip(v - v_old, +-epsilon) - G)^2) / 2. Source: PPO's reference code (1707.06347)."""
    near = old_value + jnp.clip(value - old_value, -epsilon, epsilon)
    return 0.5 * jnp.maximum((value - target) ** 2, (near - target) ** 2)


def masked_mean(x: Float[Array, "*axes"], mask: Bool[Array, "*axes"]) -> Float[Array, ""]:
    """Mean of the entries where the mask is set; 0 where it is set nowhere."""
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask.astype(jnp.float32)), 1.0)


def huber(error: Float[Array, ""]) -> Float[Array, ""]:
    """e^2 / 2 up to |e| = 1, then |e| - 1/2. Source: Huber 1964."""
    size = jnp.abs(error)
    return jnp.where(size <= 1.0, 0.5 * error**2, size - 0.5)
