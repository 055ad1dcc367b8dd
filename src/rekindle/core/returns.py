"""Returns and advantages for one sequence; the caller vmaps over rows. Time suffixes: `_t` after acting at t - 1."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def generalized_advantage(
    r_t: Float[Array, " T"],
    discount_t: Float[Array, " T"],
    cut_t: Float[Array, " T"],
    v_tm1: Float[Array, " T"],
    v_t: Float[Array, " T"],
    lambda_: Float[Array, ""] | float,
) -> Float[Array, " T"]:
    """A_{t-1} = delta_t + lambda * discount_t * (1 - cut_t) * A_t, with delta_t = r_t + discount_t * v_t - v_{t-1}.

    Source: Schulman et al. 2016 (1506.02438), eq. 16; the cut keeps time limits and automatic resets apart from ends.

    Args:
        r_t: rewards after acting at t - 1, t in [1, T].
        discount_t: gamma where the episode went on or a time limit cut it, 0 where it terminated.
        cut_t: 1 where the next row belongs to another episode (terminated or truncated), else 0.
        v_tm1: values of the observations acted on.
        v_t: values of the observations that followed; of the final one where an episode was cut.
        lambda_: trace decay in [0, 1].

    Returns:
        Advantages of the actions at t - 1; add `v_tm1` for lambda-returns.
    """
    delta = r_t + discount_t * v_t - v_tm1

    def back(advantage: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        delta_t, decay_t = now
        advantage = delta_t + decay_t * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.zeros(()), (delta, lambda_ * discount_t * (1.0 - cut_t)), reverse=True)
    return advantages


def retrace(
    r_t: Float[Array, " T"],
    discount_t: Float[Array, " T"],
    cut_t: Float[Array, " T"],
    c_tm1: Float[Array, " T"],
    q_tm1: Float[Array, " T"],
    v_t: Float[Array, " T"],
) -> Float[Array, " T"]:
    """G_{t-1} = r_t + discount_t * (v_t + (1 - cut_t) * c_t * (G_t - q_t)): returns corrected for other behaviour.

    Source: Munos et al. 2016 (1606.02647), eq. 4, in the recursive form of its appendix.

    Args:
        r_t: rewards after acting at t - 1, t in [1, T].
        discount_t: gamma where the episode went on or a time limit cut it, 0 where it terminated.
        cut_t: 1 where the next row belongs to another episode (terminated or truncated), else 0.
        c_tm1: lambda * min(1, target probability / behaviour probability) of the actions at t - 1.
        q_tm1: values of the actions at t - 1.
        v_t: values of the observations that followed; of the final one where an episode was cut.

    Returns:
        Returns of the actions at t - 1.
    """
    after = (1.0 - cut_t) * jnp.append(c_tm1[1:], 0.0)
    q_t = jnp.append(q_tm1[1:], 0.0)

    def back(g: Array, now: tuple[Array, ...]) -> tuple[Array, Array]:
        r, discount, c, q, v = now
        g = r + discount * (v + c * (g - q))
        return g, g

    _, returns = jax.lax.scan(back, jnp.zeros(()), (r_t, discount_t, after, q_t, v_t), reverse=True)
    return returns
