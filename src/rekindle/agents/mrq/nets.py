"""MR.Q's networks: features of states, features of states with actions and the model's head, critics, policy."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from rekindle.agents.mrq.actions import Space, size_of
from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, is_picture
from rekindle.core.spaces import Space as AnySpace
from rekindle.core.types import EnvSpec, Obs, Sequences
from rekindle.networks.encoders import flat_size, flatten
from rekindle.networks.normalised import Joint, Layer, Maps, Perceptron, elu, features_of, normalise
from rekindle.networks.shift import random_shift


class Features(eqx.Module):
    """Features of states (f): three layers over numbers, or four convolutions and one over a picture; ELU at last.

    Pictures that are too small for the convolutions, below 31 x 31, are numbers, too.
    """

    net: Perceptron | tuple[Maps, Layer]
    shown: tuple[tuple[str, AnySpace], ...] = eqx.field(static=True)
    stack: int = eqx.field(static=True)
    """Frames that a picture is made of."""

    def __init__(self, key: Key[Array, ""], spec: EnvSpec, hidden: int, size: int):
        self.shown, self.stack, keys = tuple(sorted(spec.obs.items())), spec.stack, jax.random.split(key)
        pictures = [s for s in spec.obs.values() if is_picture(s) and features_of(*s.shape[:2])]
        for name, space in self.shown:
            if isinstance(space, Box) and space.dtype == "uint8" and len(space.shape) in (2, 4):
                raise ConfigError(
                    f"mrq sees pictures as bytes [height, width, channels]; {spec.id} shows {name} as "
                    f"{list(space.shape)}. Gymnasium's GrayscaleObservation(keep_dim=True) keeps the last axis, "
                    "ReshapeObservation makes one of several."
                )
        if not pictures:
            self.net = Perceptron(
                keys[0], sum(flat_size(n, s) for n, s in sorted(spec.obs.items())), hidden, hidden, size
            )
            return
        height, width, channels = pictures[0].shape
        if len(spec.obs) > 1:
            raise ConfigError(
                f"mrq sees numbers, or one picture alone; {spec.id} shows {', '.join(spec.obs)}. Gymnasium's wrapper "
                "FilterObservation leaves the others out."
            )
        self.net = (Maps(keys[0], channels), Layer(keys[1], features_of(height, width), size))

    @property
    def picture(self) -> str | None:
        """The name of the picture that it sees, if it does."""
        return None if isinstance(self.net, Perceptron) else self.shown[0][0]

    def __call__(self, obs: Obs) -> Float[Array, "B D"]:
        """z_s, of which no number is below -1."""
        if isinstance(self.net, Perceptron):
            x = self.net(jnp.concatenate([numbers(obs[name], space) for name, space in self.shown], axis=-1), elu)
        else:
            maps, layer = self.net
            x = layer(maps(first_repeated(obs[self.shown[0][0]], self.stack)))
        return elu(normalise(x))


def numbers(x: Array, space: AnySpace) -> Float[Array, "B n"]:
    """An observation as a vector; bytes, as of small pictures, from 0 to 1."""
    return flatten(x, space) / (max(space.high, 1.0) if isinstance(space, Box) and space.dtype == "uint8" else 1.0)


def first_repeated(picture: UInt8[Array, "B H W C"], stack: int) -> UInt8[Array, "B H W C"]:
    """Frames from before an episode began, which Atari's worlds show black, as the first frame that there is.

    Source: Fujimoto et al. 2025, whose histories begin with the first frame repeated, in acting and in learning.
    """
    if stack == 1:
        return picture
    frames = picture.reshape(*picture.shape[:-1], stack, -1)
    shows = jnp.any(frames != 0, axis=(1, 2, 4))  # [B, stack]
    first = jnp.argmax(shows, axis=1)  # of a stack that is all black the oldest: nothing changes
    place = jnp.maximum(jnp.arange(stack)[None], first[:, None])
    return jnp.take_along_axis(frames, place[:, None, None, :, None], axis=3).reshape(picture.shape)


def shifted(key: Key[Array, ""], features: Features, batch: Sequences) -> Sequences:
    """Every picture of every observation moved on its own; numbers stay."""
    if features.picture is None:
        return batch
    pictures = batch.obs[features.picture]
    moved = random_shift(key, pictures.reshape(-1, *pictures.shape[2:])).reshape(pictures.shape)
    return batch._replace(obs={**batch.obs, features.picture: moved})


class Encoder(eqx.Module):
    """Features of states (f), of states with actions (g), and what the model says of the latter (m)."""

    features: Features
    action: Layer
    first: Joint
    rest: tuple[Layer, Layer]
    model: Layer | Perceptron
    space: Space = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], features: Features, model: Layer | Perceptron, space: Space, state: int,
                 action: int, hidden: int, pair: int):  # fmt: skip
        keys = jax.random.split(key, 4)
        self.features, self.model, self.space = features, model, space
        self.action = Layer(keys[0], size_of(space), action)
        self.first = Joint(keys[1], state, action, hidden)
        self.rest = (Layer(keys[2], hidden, hidden), Layer(keys[3], hidden, pair))

    def read(self, action: Float[Array, "B A"]) -> Float[Array, "B a"]:
        """z_a."""
        return elu(self.action(action))

    def join(self, state: Float[Array, "B D"], read: Float[Array, "B a"]) -> Float[Array, "B D2"]:
        """z_sa, neither normalised nor bent."""
        x = elu(normalise(self.first(state, read)))
        return self.rest[1](elu(normalise(self.rest[0](x))))

    def predict(self, pair: Float[Array, "B D2"]) -> Float[Array, "B n"]:
        """Termination, next features and the reward's categories, side by side."""
        return self.model(pair, elu) if isinstance(self.model, Perceptron) else self.model(pair)


class Actor(eqx.Module):
    """The policy, up to its output before it is bent or softened."""

    net: Perceptron
    space: Space = eqx.field(static=True)

    def __init__(self, key: Key[Array, ""], space: Space, state: int, hidden: int):
        self.net, self.space = Perceptron(key, state, hidden, hidden, size_of(space)), space

    def __call__(self, state: Float[Array, "B D"]) -> Float[Array, "B A"]:
        """From z_s."""
        return self.net(state, jax.nn.relu)


class Nets(eqx.Module):
    """Everything that learns."""

    encoder: Encoder
    values: tuple[Perceptron, ...]
    actor: Actor

    def replace(self, **nets: object) -> "Nets":
        """With other nets in place of some."""
        return dataclasses.replace(self, **nets)
