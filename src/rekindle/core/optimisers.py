"""Optimisers of value agents, without a step size: it may change from update to update, and is multiplied on."""

from typing import Any

import jax
import optax
from jaxtyping import Array, Float

from rekindle.core.errors import ConfigError, did_you_mean

OPTIMISERS = ("adam", "rmsprop")


def make_optimiser(name: str, eps: float) -> optax.GradientTransformation:
    """Adam, or RMSProp as in Mnih et al. 2015: centred, decay 0.95.

    Raises:
        ConfigError: an unknown name.
    """
    if name == "adam":
        return optax.scale_by_adam(eps=eps)
    if name == "rmsprop":
        return optax.scale_by_stddev(decay=0.95, eps=eps)
    raise ConfigError(f"no optimiser {name!r}; {did_you_mean(name, list(OPTIMISERS))}")


def decayed_adam(decay: Float[Array, ""] | float) -> optax.GradientTransformation:
    """AdamW: of every number, biases too, this share times the step size is taken away at every step."""
    return optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(decay))


def grad_norm(grads: Any) -> Float[Array, ""]:
    """The Euclidean norm of a gradient that Adam takes, too.

    It is that of twice the gradient, halved, which is the same to the last bit: of the very squares that Adam needs XLA
    would make an array for both, which costs more than the squares.
    """
    return optax.tree.norm(jax.tree.map(lambda g: 2.0 * g, grads)) / 2.0
