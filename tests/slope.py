"""A world that is learnt at once: it pays the action, and shows noise."""

import gymnasium
import numpy as np
from gymnasium import spaces

LENGTH = 20


class Slope(gymnasium.Env):
    """Twenty steps, each of which pays what was done, in [-1, 1]."""

    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.taken = 0
        return self.seen(), {}

    def step(self, action):
        self.taken += 1
        return self.seen(), float(action[0]), False, self.taken == LENGTH, {}

    def seen(self):
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


gymnasium.register("Slope-v0", Slope)
