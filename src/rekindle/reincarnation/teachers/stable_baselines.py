"""Stable-Baselines3's files as policies: spaces from the JSON, weights by torch's safe loader, nothing executed.

What a zip of it holds as serialised code is never looked at; the network is rebuilt from the names and shapes of its
weights: convolutions without padding, then dense layers. `--trust` hands the file to Stable-Baselines3's own loader
instead, which executes what is in it. Needs the extra: `pip install -e '.[teachers]'`.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

from rekindle.core.errors import CheckpointError, ConfigError
from rekindle.core.exploration import greedy
from rekindle.core.extras import optional
from rekindle.core.memoryless import Memoryless
from rekindle.core.types import ActOutput, Extras, Obs

MAX_BYTES = 2**30
"""Largest member that is read."""
STRIDES = {(8, 4, 3): (4, 2, 1)}
"""Of convolutions by their kernels: the Nature network's; all others have 1."""
ACTIVATIONS = {"Tanh": jnp.tanh, "ReLU": jax.nn.relu, "ELU": jax.nn.elu, "GELU": jax.nn.gelu, "SiLU": jax.nn.silu,
               "LeakyReLU": jax.nn.leaky_relu}  # fmt: skip


class Facts(NamedTuple):
    """What the JSON says."""

    shape: tuple[int, ...]
    """Of an observation."""
    bytes: bool
    """Whether it is a picture, whose bytes are divided by 255."""
    actions: int
    """How many there are, or how many numbers one has."""
    activation: str | None
    """Of the dense layers, where it is not the algorithm's own."""
    bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Least and largest numbers of an action, where actions are vectors."""

    @property
    def vectors(self) -> bool:
        """Whether actions are vectors."""
        return self.bounds is not None


class Layer(eqx.Module):
    """A convolution (weights `[out, in, k, k]`) or a dense layer (`[out, in]`)."""

    weight: Array
    bias: Array
    stride: int = eqx.field(static=True, default=1)


class StableBaselinesPolicy(Memoryless):
    """A feed-forward policy: action values, logits, or actions that are vectors."""

    features: tuple[Layer, ...]
    dense: tuple[Layer, ...]
    """The last gives a number for each action, or for each of an action's numbers."""
    facts: Facts = eqx.field(static=True)
    activation: str = eqx.field(static=True)
    valued: bool = eqx.field(static=True)
    squashed: bool = eqx.field(static=True, default=False)
    """Whether tanh brings vectors to [-1, 1]; else they are cut off where its world's actions ended."""
    reach: float = eqx.field(static=True, default=1.0)
    """The largest number in a vector that the world takes now."""
    turned: bool = eqx.field(static=True, default=False)
    """Whether it takes the channels of pictures first, and the world shows them last."""

    def act(
        self, key: Key[Array, ""], carry: PyTree, obs: Obs, start: Bool[Array, " B"], *, explore: bool
    ) -> ActOutput:
        """The best action; with exploration, one that is drawn, where it gives probabilities."""
        del start
        scores = self.scores(next(iter(obs.values())))
        if self.facts.bounds is not None:
            low, high = map(jnp.array, self.facts.bounds)
            within = 2.0 * (scores - low[None]) / (high - low)[None] - 1.0
            mean = jnp.tanh(scores) if self.squashed else jnp.clip(within, -1.0, 1.0)
            return ActOutput(mean * self.reach, carry, Extras(mean=mean))
        extras = Extras(q=scores) if self.valued else Extras(logits=scores)
        drawn = explore and not self.valued
        action = jax.random.categorical(key, scores).astype(jnp.int32) if drawn else greedy(scores)
        return ActOutput(action, carry, extras)

    def scores(self, x: Array) -> Float[Array, "B A"]:
        """A number for each action."""
        x = x.astype(jnp.float32) / (255.0 if self.facts.bytes else 1.0)
        convolutions = [layer for layer in self.features if layer.weight.ndim == 4]
        if self.turned:
            x = jnp.moveaxis(x, -1, 1)
        for layer in convolutions:
            x = jax.lax.conv_general_dilated(x, layer.weight, (layer.stride, layer.stride), "VALID",
                                             dimension_numbers=("NCHW", "OIHW", "NCHW"))  # fmt: skip
            x = jax.nn.relu(x + layer.bias[None, :, None, None])
        x = x.reshape(x.shape[0], -1)
        for layer in self.features[len(convolutions) :]:
            x = jax.nn.relu(x @ layer.weight.T + layer.bias[None])
        for layer in self.dense[:-1]:
            x = ACTIVATIONS[self.activation](x @ layer.weight.T + layer.bias[None])
        last = self.dense[-1]
        return x @ last.weight.T + last.bias[None]

    def facing(self, shown: tuple[int, ...]) -> "StableBaselinesPolicy":
        """The same for a world that shows pictures of this shape.

        Stable-Baselines3 turns pictures of bytes, whatever network they are for, and says so by the shape of its space;
        other pictures an extractor may have turned by itself, which the channels of its first convolution tell.
        Where height and channels are as many, channels are last, as in the worlds here.
        """
        first = next((layer.weight.shape[1] for layer in self.features if layer.weight.ndim == 4), None)
        turned = len(shown) == 3 and self.facts.shape != shown and self.facts.shape == (*shown[-1:], *shown[:-1])
        if first is not None and first in (shown[0], shown[-1]):
            as_shown = self.facts.bytes and self.facts.shape == shown
            turned = not as_shown if shown[0] == shown[-1] else first == shown[-1]
        return replace(self, turned=turned)


def read(path: Path) -> StableBaselinesPolicy:
    """The policy in a zip that Stable-Baselines3 wrote.

    Raises:
        ConfigError: torch is not installed, or the network is of a kind that is not known.
        CheckpointError: the file is no such zip, is cut off, or its weights and spaces do not go together.
    """
    damaged = f"{path} is no zip of Stable-Baselines3, or damaged"
    try:
        with zipfile.ZipFile(path) as file:
            facts, stored = _facts(json.loads(_member(file, "data")), path), _member(file, "policy.pth")
    except (zipfile.BadZipFile, KeyError, AttributeError, TypeError, ValueError, OSError, EOFError,
            RuntimeError) as error:  # fmt: skip
        raise CheckpointError(f"{damaged} ({str(error)[:120]}).") from None
    torch = optional("torch", what=f"reading {path}", extra="teachers")
    try:
        weights = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
    except (KeyError, ValueError, OSError, EOFError, RuntimeError) as error:
        raise CheckpointError(f"{damaged} ({str(error)[:120]}).") from None
    except Exception as error:  # the safe loader refuses what is no plain weight, with an error of its own
        raise CheckpointError(f"{path} holds weights that cannot be read safely ({str(error)[:120]!r}).") from None
    if not isinstance(weights, Mapping) or not all(hasattr(x, "numpy") for x in weights.values()):
        raise CheckpointError(f"{path} holds weights of an unknown form.")
    return rebuilt({name: x.numpy() for name, x in weights.items()}, facts, path)


def _member(file: zipfile.ZipFile, name: str) -> bytes:
    if file.getinfo(name).file_size > MAX_BYTES:
        raise ValueError(f"{name} is larger than {MAX_BYTES} bytes")
    return file.read(name)


def _facts(data: Any, path: Path) -> Facts:
    space, action, kwargs = (data.get(name) for name in ("observation_space", "action_space", "policy_kwargs"))
    if not isinstance(space, dict) or not isinstance(action, dict) or "_shape" not in space or not (
        "n" in action or len(action.get("_shape", ())) == 1
    ):  # fmt: skip
        raise ConfigError(
            f"{path} has other spaces than a box of observations, and discrete actions or vectors; take --trust."
        )
    if int(action.get("start") or 0) != 0:
        raise ConfigError(f"{path} has actions that begin at {action['start']}; known are those from 0.")
    if data.get("use_sde") and "n" not in action:
        raise ConfigError(f"{path} explores by gSDE, whose network is not known; take --trust.")
    bounds = None if "n" in action else _bounds(action, path)
    number = int(action["n"]) if bounds is None else len(bounds[0])
    shape = tuple(int(n) for n in space["_shape"])
    named = re.search(r"activation\.(\w+)'", str((kwargs or {}).get("activation_fn", "")))
    picture = space.get("dtype") == "uint8" and len(shape) == 3 and "255" in str(space.get("high"))
    picture &= (kwargs or {}).get("normalize_images", True) is not False
    return Facts(shape, picture, number, named[1] if named else None, bounds)


def _bounds(action: Mapping[str, Any], path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of a box of actions, which the JSON has as NumPy prints them."""
    size, found = int(action["_shape"][0]), []
    for name in ("low", "high"):
        numbers = tuple(map(float, re.findall(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?", str(action.get(name)))))
        if len(numbers) != size:
            raise ConfigError(f"{path} does not say all {size} bounds of its actions ({name}); take --trust.")
        found.append(numbers)
    if not all(low < high for low, high in zip(*found, strict=True)):
        raise ConfigError(f"{path} has actions without an end; take --trust.")
    return found[0], found[1]


def rebuilt(weights: Mapping[str, np.ndarray], facts: Facts, path: Path) -> StableBaselinesPolicy:
    """The network of these weights: names say which layers follow each other, shapes what they are."""
    valued, has_actor = (any(name.startswith(start) for name in weights) for start in ("q_net.", "actor."))
    start = "q_net." if valued else "actor." if has_actor else ""
    extractors = [f"{start}features_extractor.", f"{start}pi_features_extractor."]
    extractor = next((p for p in extractors if any(name.startswith(p) for name in weights)), extractors[0])
    on_policy = ["mlp_extractor.policy_net.", "action_net."]
    towers = ["q_net.q_net."] if valued else ["actor.latent_pi.", "actor.mu."] if has_actor else on_policy
    features = _layers(weights, [extractor], path)
    dense = _layers(weights, towers, path)
    activation = facts.activation or ("ReLU" if valued or has_actor else "Tanh")
    if activation not in ACTIVATIONS:
        raise ConfigError(f"{path} uses {activation}; known are {', '.join(ACTIVATIONS)}. Take --trust.")
    known = len(features) + len(dense)
    others = [name for name in weights if "lstm" in name or "quantile" in name]
    if not dense or others or any(layer.weight.ndim == 4 for layer in dense):
        raise ConfigError(f"{path} holds a network of a kind that is not known ({known} layers); take --trust.")
    policy = StableBaselinesPolicy(features, dense, facts, activation, valued, squashed=has_actor).facing(facts.shape)
    try:
        out = jax.eval_shape(policy.scores, jax.ShapeDtypeStruct((1, *facts.shape), jnp.float32))
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its weights do not fit observations of {list(facts.shape)}, if convolutions have no padding and "
            f"a stride of 1 (or are the Nature network's); take --trust. {str(error).partition(chr(10))[0][:120]}"
        ) from None
    if out.shape[1] != facts.actions:
        raise CheckpointError(f"{path}: its weights are for {out.shape[1]} actions, its space has {facts.actions}.")
    return policy


def _layers(weights: Mapping[str, np.ndarray], prefixes: list[str], path: Path) -> tuple[Layer, ...]:
    """Weights and biases under some names, in their order."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for name, weight in weights.items():
        if not any(name.startswith(prefix) for prefix in prefixes) or name.endswith(".bias"):
            continue
        bias = weights.get(name.removesuffix("weight") + "bias")
        if not name.endswith(".weight") or bias is None or weight.ndim not in (2, 4):
            raise ConfigError(f"{path} holds {name!r}, of a kind of layer that is not known; take --trust.")
        found.append((weight, bias))
    kernels = tuple(weight.shape[-1] for weight, _ in found if weight.ndim == 4)
    strides = STRIDES.get(kernels, (1,) * len(kernels))
    every = [*strides, *[1] * (len(found) - len(strides))]
    return tuple(Layer(jnp.asarray(w), jnp.asarray(b), s) for (w, b), s in zip(found, every, strict=True))
