"""What value networks share: from an observation to features, by convolutions where it is a picture."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, Key

from rekindle.core.compiling import LARGE
from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.core.spaces import Box, Image
from rekindle.core.types import EnvSpec, Obs
from rekindle.networks.convolution import TORSOS, Convolutional, Dense
from rekindle.networks.encoders import Encoder, make_encoder

TRUNKS = ("auto", "dense", *TORSOS)
"""`dense`: an encoder of numbers and one layer. `auto`: `nature` for large pictures, `minatar` for small planes, else
`dense`."""
SMALL = 3
"""Pixels of the shorter side from which on it is a picture."""


class Flat(eqx.Module):
    """An encoder of networks/encoders.py and a dense layer."""

    encoder: Encoder
    dense: Dense

    def __call__(self, obs: Obs) -> Float[Array, "B D"]:
        """Features."""
        return self.dense(self.encoder(obs)[0])


class Seeing(eqx.Module):
    """Convolutions over the one picture that there is."""

    torso: Convolutional
    name: str = eqx.field(static=True)

    def __call__(self, obs: Obs) -> Float[Array, "B D"]:
        """Features."""
        return self.torso(obs[self.name])


def make_trunk(key: Key[Array, ""], spec: EnvSpec, name: str, width: int) -> Flat | Seeing:
    """The trunk of a value network, of `width` features.

    Raises:
        ConfigError: an unknown name, or convolutions where the observation is no single picture.
    """
    if name not in TRUNKS:
        raise ConfigError(f"no network {name!r}; {did_you_mean(name, list(TRUNKS))}")
    pictures = [(which, s) for which, s in spec.obs.items() if isinstance(s, Box | Image) and len(s.shape) == 3]
    only = pictures[0] if len(spec.obs) == len(pictures) == 1 else None
    if name == "auto":
        side = 0 if only is None else min(only[1].shape[:2])
        name = "dense" if side < SMALL else "nature" if side >= LARGE else "minatar"
    if name == "dense":
        keys = jax.random.split(key)
        return Flat(make_encoder(keys[0], spec, width), Dense(keys[1], width, width))
    if only is None:
        raise ConfigError(
            f"the network {name!r} sees one picture; {spec.id} shows {', '.join(spec.obs)}. Take 'dense'."
        )
    which, space = only
    return Seeing(Convolutional(key, name, space.shape, width, bytes=_is_bytes(space)), which)


def _is_bytes(space: Box | Image) -> bool:
    return isinstance(space, Image) or (space.dtype == "uint8" and space.high > 1)
