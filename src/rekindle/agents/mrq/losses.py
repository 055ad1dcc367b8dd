"""MR.Q's mathematics, free of networks and settings: the model's losses, returns, critics, policy, priorities."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

RETURNS = ("correct", "pre_release", "feb2025")
"""Ways to count rewards at a termination."""


class Predicted(NamedTuple):
    """What the model says of T steps."""

    done: Float[Array, "T B"]
    state: Float[Array, "T B D"]
    reward: Float[Array, "T B K"]


class ModelLosses(NamedTuple):
    """Sums over steps of means over the batch."""

    dynamics: Float[Array, ""]
    reward: Float[Array, ""]
    terminal: Float[Array, ""]


def before(x: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """Products of all x at earlier times: 1, x_0, x_0 x_1, ..."""
    return jnp.cumprod(jnp.concatenate([jnp.ones_like(x[:1]), x[:-1]]), axis=0)


def model_losses(
    predicted: Predicted,
    target: Float[Array, "T B D"],
    reward_error: Float[Array, "T B"],
    terminated: Bool[Array, "T B"],
    terminates: Bool[Array, ""],
) -> ModelLosses:
    """Squared errors in next features and termination, and errors in rewards.

    Source: Fujimoto et al. 2025 (2501.16142), section 4.

    Args:
        predicted: by the unrolled model, with raw terminations.
        target: features that follow each step.
        reward_error: a loss of each step's reward.
        terminated: whether the episode terminated with the step; steps behind that count as 0 in the means.
        terminates: whether a termination was ever seen; before, terminations are not learnt.
    """
    over = terminated.astype(predicted.done.dtype)
    alive = before(1.0 - over)
    dynamics = jnp.sum(jnp.mean(alive[..., None] * (predicted.state - target) ** 2, axis=(1, 2)))
    reward = jnp.sum(jnp.mean(alive * reward_error, axis=1))
    terminal = jnp.sum(jnp.mean(alive * (predicted.done - over) ** 2, axis=1))
    return ModelLosses(dynamics, reward, jnp.where(terminates, terminal, 0.0))


def returns(
    reward: Float[Array, "n B"], terminated: Bool[Array, "n B"], gamma: Float[Array, ""] | float, counts: str
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """R = sum_i gamma^i c_i r_i, and D = gamma^n prod_i (1 - d_i), which the value n steps later is multiplied by.

    `correct`: c_i = prod_{j<i} (1 - d_j), all rewards up to a termination. `pre_release`: c_i = 1, of what comes behind
    it too. `feb2025`: c_i = 1 - d_i, without the termination's own.

    Args:
        reward: of the steps t to t + n - 1.
        terminated: d_i, whether the episode terminated with that step.
        gamma: discount of a step, in [0, 1].
        counts: one of RETURNS.

    Source: Fujimoto et al. 2025 (2501.16142), section 4; the other two are states of its published code.
    """
    goes_on = 1.0 - terminated.astype(reward.dtype)
    discount = gamma ** jnp.arange(reward.shape[0] + 1, dtype=reward.dtype)
    counted = {"correct": before(goes_on), "pre_release": jnp.ones_like(goes_on), "feb2025": goes_on}[counts]
    return discount[:-1] @ (counted * reward), discount[-1] * jnp.prod(goes_on, axis=0)


def continued(
    reward: Float[Array, " B"],
    discount: Float[Array, " B"],
    value: Float[Array, " B"],
    scale: Float[Array, ""],
    target_scale: Float[Array, ""],
) -> Float[Array, " B"]:
    """(R + D r' Q') / r: returns that go on with values in an older unit r', in the unit r of today.

    Source: Fujimoto et al. 2025 (2501.16142), section 4.
    """
    return (reward + discount * target_scale * value) / scale


def policy_loss(
    q: Float[Array, "2 B"], plain: Float[Array, "B A"], weight: Float[Array, ""] | float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """-mean Q, plus `weight` of the mean square of the policy's plain output; and the latter.

    Source: Fujimoto et al. 2025 (2501.16142), section 4.
    """
    size = jnp.mean(plain**2)
    return weight * size - jnp.mean(q), size


def priority(
    error: Float[Array, " B"], least: Float[Array, ""] | float, alpha: Float[Array, ""] | float
) -> Float[Array, " B"]:
    """max(|error|, least)^alpha. Source: Fujimoto et al. 2020 (2007.06049), algorithm 1."""
    return jnp.maximum(jnp.abs(error), least) ** alpha
