"""Categorical distributions over logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def log_prob(logits: Float[Array, "*axes A"], action: Int[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Log-probability of integer actions."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), action[..., None], axis=-1)[..., 0]


def entropy(logits: Float[Array, "*axes A"]) -> Float[Array, "*axes"]:
    """Entropy in nats."""
    logs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(logs) * logs, axis=-1)


def kl(p: Float[Array, "*axes A"], logits: Float[Array, "*axes A"]) -> Float[Array, "*axes"]:
    """KL(p || softmax(logits)) in nats, from probabilities to logits."""
    log_p = jnp.log(jnp.maximum(p, 1e-30))
    return jnp.sum(p * (log_p - jax.nn.log_softmax(logits)), axis=-1)
