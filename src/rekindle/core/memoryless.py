"""What policies without a memory have in common."""

import equinox as eqx
from jaxtyping import PyTree


class Memoryless(eqx.Module):
    """A policy that remembers nothing."""

    def init_carry(self, batch_size: int) -> PyTree:
        """No memory."""
        del batch_size
        return ()
