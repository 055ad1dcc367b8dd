"""What a teacher adds to a student's loss, for one sample; the caller vmaps and averages over the batch.

Agarwal et al. 2022 (2206.01626), section 4. The student's policy is softmax(Q / tau); a teacher's is given by logits:
its action values over the same tau, or its log-probabilities. A student with a policy of its own is asked for that.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

Q = Float[Array, " A"]


def distillation(logits: Q, teacher_logits: Q) -> Float[Array, ""]:
    """KL(pi_T, pi): a sum over actions, without a factor tau^2. In logarithms throughout: Q / tau reaches +-100.

    What the teacher never does (-inf) adds nothing.
    """
    log_teacher, log_student = jax.nn.log_softmax(teacher_logits), jax.nn.log_softmax(logits)
    does = log_teacher > -jnp.inf
    apart = jnp.where(does, log_teacher, 0.0) - log_student
    return jnp.sum(jnp.where(does, jnp.exp(log_teacher) * apart, 0.0))


def distance(action: Float[Array, " D"], teacher: Float[Array, " D"]) -> Float[Array, ""]:
    """Mean square of the differences, for actions that are vectors. Which distance the paper takes is not known."""
    return jnp.mean((action - teacher) ** 2)


def conservative(q: Q, action: Int32[Array, ""], tau: float) -> Float[Array, ""]:
    """logsumexp(Q / tau) - Q(a) / tau: the cross-entropy of the student's policy at the action of the data.

    Source: Kumar et al. 2020 (2006.04779), eq. 4.
    """
    return jax.nn.logsumexp(q / tau) - q[action] / tau


def hard_margin(q: Q, expert: Int32[Array, ""], margin: float) -> Float[Array, ""]:
    """max_a [Q(a) + margin (a != a_E)] - Q(a_E). Source: Hester et al. 2018 (1704.03732), eq. 2."""
    return jnp.max(_lifted(q, expert, margin)) - q[expert]


def soft_margin(q: Q, expert: Int32[Array, ""], margin: float) -> Float[Array, ""]:
    """Mean over actions of max(0, Q(a) + margin (a != a_E) - Q(a_E)), as in the code released with 2206.01626."""
    return jnp.mean(jnp.maximum(_lifted(q, expert, margin) - q[expert], 0.0))


def _lifted(q: Q, expert: Int32[Array, ""], margin: float) -> Q:
    return q + margin * (jnp.arange(q.shape[0]) != expert).astype(q.dtype)
