"""MR.Q's hyperparameters (Fujimoto et al. 2025, 2501.16142), and settings of them that have a name."""

import equinox as eqx

from rekindle.agents.mrq.losses import RETURNS
from rekindle.core.checks import out_of_range
from rekindle.core.errors import ConfigError


class Config(eqx.Module):
    """Hyperparameters; the defaults are the paper's, for every domain."""

    gamma: float = 0.99
    """Discount per environment step."""
    batch: int = eqx.field(static=True, default=256)
    """Sequences of an update."""
    capacity: int = eqx.field(static=True, default=1_000_000)
    """Slots of the replay, over all worlds."""
    warmup: int = eqx.field(static=True, default=10_000)
    """Slots that are filled by random actions before the first update."""
    num_envs: int = eqx.field(static=True, default=1)
    """Worlds side by side; an update for every step of each."""
    period: int = eqx.field(static=True, default=250)
    """Updates between two copies to the targets, two looks at the rewards' size, two phases of the encoder."""
    encoder_updates: int = eqx.field(static=True, default=250)
    """Updates of the encoder in such a phase."""
    exploration: float = 0.2
    """Standard deviation of the noise in actions; half of it for discrete ones, as of the next two."""
    target_noise: float = 0.2
    """Standard deviation of the noise in the actions that critics are judged by."""
    noise_clip: float = 0.3
    """That noise is cut off at plus and minus this."""
    dynamics_weight: float = 1.0
    """Of the error in next features in the encoder's loss."""
    reward_weight: float = 0.1
    """Of the error in rewards."""
    terminal_weight: float = 0.1
    """Of the error in terminations, from when one has been seen."""
    alpha: float = 0.4
    """Exponent of priorities."""
    least_priority: float = 1.0
    """Errors below this count as this in priorities."""
    encoder_horizon: int = eqx.field(static=True, default=5)
    """Steps that the encoder's model is unrolled."""
    value_horizon: int = eqx.field(static=True, default=3)
    """Rewards of a return before it is continued by a value."""
    state_width: int = eqx.field(static=True, default=512)
    """Features of a state (z_s)."""
    pair_width: int = eqx.field(static=True, default=512)
    """Features of a state and an action (z_sa)."""
    action_width: int = eqx.field(static=True, default=256)
    """Features of an action (z_a)."""
    hidden: int = eqx.field(static=True, default=512)
    """Width of hidden layers."""
    encoder_rate: float = 1e-4
    """Step size of the encoder."""
    value_rate: float = 3e-4
    """Step size of the critics."""
    policy_rate: float = 3e-4
    """Step size of the policy."""
    weight_decay: float = 1e-4
    """Times the step size, taken off every parameter at every step."""
    grad_clip: float = 20.0
    """Largest norm of the gradient of both critics together."""
    temperature: float = 10.0
    """Of the Gumbel-softmax that makes discrete actions soft."""
    plain_weight: float = 1e-5
    """Of the squared outputs of the policy before they are bent or softened."""
    bins: int = eqx.field(static=True, default=65)
    """Categories of rewards."""
    exponent: float = 10.0
    """They lie from -(e^x - 1) to e^x - 1 for this x."""
    n_step: str = eqx.field(static=True, default="correct")
    """What counts of rewards at and behind a termination: all up to it; all, of the next episode too (the published
    code's first state, closest to the published numbers); those before it, and the next episode's."""
    terminal_obs: str = eqx.field(static=True, default="correct")
    """What the model has to predict after a termination: what was seen then; or what the published code takes."""
    eval_discrete: str = eqx.field(static=True, default="sample")
    """Discrete actions without exploration: drawn from the policy, as published; or its best."""

    def __check_init__(self) -> None:
        """Refuse what cannot be run."""
        wrong = out_of_range(
            self,
            sizes=("batch", "capacity", "num_envs", "period", "encoder_horizon", "value_horizon", "state_width",
                   "pair_width", "action_width", "hidden"),
            positive=("alpha", "least_priority", "encoder_rate", "value_rate", "policy_rate", "grad_clip",
                      "temperature", "exponent"),
            least_0=("warmup", "encoder_updates", "exploration", "target_noise", "noise_clip", "dynamics_weight",
                     "reward_weight", "terminal_weight", "weight_decay", "plain_weight"),
            shares=("gamma",),
        )  # fmt: skip
        if self.exponent > LARGEST_EXPONENT:
            wrong.append(f"exponent must be at most {LARGEST_EXPONENT:g}, as far as 32 bits go; got {self.exponent}")
        if self.bins < 3 or self.bins % 2 == 0:
            wrong.append(f"bins must be odd and at least 3, so that 0 has one; got {self.bins}")
        if self.warmup >= self.capacity:
            wrong.append(f"warmup must be below capacity; got {self.warmup} and {self.capacity}")
        for name, known in SWITCHES.items():
            if getattr(self, name) not in known:
                wrong.append(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")
        if wrong:
            raise ConfigError(f"mrq: {'; '.join(wrong)}.")


LARGEST_EXPONENT = 80.0
"""e to the 88th is the most that 32 bits hold."""
SWITCHES = {"n_step": RETURNS, "terminal_obs": ("correct", "compat"),
            "eval_discrete": ("sample", "greedy")}  # fmt: skip
"""What changes between the paper's definitions and the published code's states."""
PRESETS = {"small": {"state_width": 128, "pair_width": 128, "action_width": 64, "hidden": 128, "batch": 128}}
"""Settings by name; `small` is for small machines: a thirtieth of the computation."""
