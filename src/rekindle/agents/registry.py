"""Agents by name, their configs as JSON, and policies rebuilt from artefacts.

Every folder names its algorithm in `spec.py` (`NAME`, `MODULE`); the module has `Config`, `VERSION` and `make`.
"""

import dataclasses
import math
import pkgutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rekindle import agents
from rekindle.core.errors import CheckpointError, ConfigError, did_you_mean
from rekindle.core.spaces import Box
from rekindle.core.tree import flatten_arrays, unflatten_arrays
from rekindle.core.types import Agent, EnvSpec
from rekindle.library.artefact import PolicyArtefact, read_policy
from rekindle.networks.trunk import TRUNKS


def names() -> dict[str, str]:
    """All agents, each with its module."""
    known: dict[str, str] = {}
    for folder in pkgutil.iter_modules(agents.__path__, prefix=f"{agents.__name__}."):
        if folder.ispkg and find_spec(f"{folder.name}.spec"):
            spec = import_module(f"{folder.name}.spec")
            known[spec.NAME] = spec.MODULE
    return known


def module_of(name: str) -> ModuleType:
    """The module of an algorithm; ConfigError names the nearest if there is none."""
    known = names()
    if name not in known:
        raise ConfigError(f"no agent {name!r}; {did_you_mean(name, known)}")
    return import_module(known[name])


def kinds_of_data() -> dict[str, str]:
    """What kind of data each agent learns from."""
    return {name: make_agent(name, module_of(name).Config()).needs.kind for name in names()}


def of_kind(*kinds: str) -> str:
    """Names of the agents that learn from data of these kinds, for a sentence."""
    *first, last = sorted(name for name, kind in kinds_of_data().items() if kind in kinds)
    return f"{', '.join(first)} or {last}" if first else last


def variant_of(text: str) -> tuple[str, dict[str, Any]]:
    """`mrq:small` or `rainbow:impala`: an agent's name, and the settings that the word behind it stands for.

    Raises:
        ConfigError: an unknown agent, or a word that means nothing to it.
    """
    name, _, word = text.partition(":")
    module = module_of(name)
    presets = getattr(module, "PRESETS", {})
    if not word or word in presets:
        return name, presets.get(word, {})
    networks = TRUNKS if "network" in (field.name for field in dataclasses.fields(module.Config)) else ()
    if word in networks:
        return name, {"network": word}
    if not (known := [*presets, *networks]):
        raise ConfigError(f"{name} has no variants; got {word!r}; take {name} itself.")
    raise ConfigError(f"{name} has no variant {word!r}; {did_you_mean(word, known)}")


def config_to_json(config: Any) -> dict[str, Any]:
    """A config as JSON data; `config_from_json` inverts it."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def config_from_json(name: str, data: dict[str, Any]) -> Any:
    """The config of agent `name`; ConfigError names an unknown field and the nearest known one."""
    cls = module_of(name).Config
    known, defaults = [field.name for field in dataclasses.fields(cls)], cls()
    for field, value in data.items():
        if field not in known:
            raise ConfigError(f"{name} has no setting {field!r}; {did_you_mean(field, known)}")
        kind = type(getattr(defaults, field))
        if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool) != (kind is bool):
            raise ConfigError(f"{name}'s setting {field} takes a {kind.__name__}; got {value!r}.")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


def make_agent(name: str, config: Any) -> Agent:
    """The agent with its config bound."""
    return module_of(name).make(config)


def export(agent: Agent, state: Any, spec: EnvSpec) -> dict[str, Any]:
    """What `library.artefact.save_policy` needs to keep the acting half of an agent."""
    return {
        "agent": agent.name,
        "agent_version": module_of(agent.name).VERSION,
        "config": config_to_json(agent.config),
        "spec": spec.to_json(),
        "arrays": flatten_arrays(eqx.filter(agent.policy(state), eqx.is_array)),
    }


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A policy that can act, and where it comes from."""

    policy: Any
    agent: Agent
    spec: EnvSpec
    artefact: PolicyArtefact

    def state_for(self, agent: Agent, key: jax.Array) -> Any:
        """A state of `agent` (same algorithm and network sizes) that goes on learning from this policy.

        Raises:
            CheckpointError: the network that `agent` would have is another; names the first leaf that differs.
        """
        self.refuse_other_network(agent)
        adopted = module_of(agent.name).adopt(agent.config, key, self.spec, self.policy)
        return jax.tree.map(lambda x: jnp.copy(x) if eqx.is_array(x) else x, adopted)

    def refuse_other_network(self, agent: Agent) -> None:
        """CheckpointError where the network that `agent` would have is another; names the first leaf that differs."""
        like = eqx.filter_eval_shape(lambda: agent.policy(agent.init(jax.random.key(0), self.spec)))
        unflatten_arrays(like, self.artefact.arrays, where=f"the policy of {self.spec.id}")


def load(folder: Path, *, env_spec: EnvSpec | None = None) -> Loaded:
    """Rebuild a policy from its artefact.

    Raises:
        CheckpointError: damaged, made by a newer version, of other shapes than its config says (names the first leaf),
            or, if `env_spec` is given, made for an environment that shows something else.
    """
    artefact = read_policy(folder)
    meta = artefact.meta
    if meta.agent not in names():
        raise CheckpointError(f"{folder} was written by an agent {meta.agent!r} that this version does not have.")
    module = module_of(meta.agent)
    if meta.agent_version > module.VERSION:
        raise CheckpointError(
            f"{folder} was written by {meta.agent} {meta.agent_version}, this is {module.VERSION}; update rekindle."
        )
    spec = EnvSpec.from_json(meta.spec)
    if env_spec is not None and (reason := incompatible(spec, env_spec)):
        raise CheckpointError(f"{folder} cannot act in {env_spec.id}: {reason}.")
    try:
        agent = make_agent(meta.agent, config_from_json(meta.agent, meta.config))
    except ConfigError as error:
        raise CheckpointError(f"{folder} cannot be used: {error}") from None
    like = eqx.filter_eval_shape(lambda: agent.policy(agent.init(jax.random.key(0), spec)))
    policy = unflatten_arrays(like, artefact.arrays, where=str(folder))
    return Loaded(policy, agent, spec, artefact)


def _unbounded(space: Any) -> Any:
    """The same, where a bound is the largest number of 32 bits, without it."""
    if not isinstance(space, Box):
        return space
    most = float(np.finfo(np.float32).max)
    return dataclasses.replace(space, low=-math.inf if space.low <= -most else space.low,
                               high=math.inf if space.high >= most else space.high)  # fmt: skip


def incompatible(made_for: EnvSpec, here: EnvSpec) -> str | None:
    """Why a policy for one spec cannot act in another, or None. The length of a `set_axis` may differ."""
    if made_for.players != here.players:
        return f"it was made for {made_for.players} players, this has {here.players}"
    if made_for.action != here.action:
        return f"its actions are {made_for.action!r}, here they are {here.action!r}"
    for name in sorted({*made_for.obs, *here.obs}):
        there, now = made_for.obs.get(name), here.obs.get(name)
        if isinstance(there, Box) and isinstance(now, Box) and there.set_axis and now.set_axis:
            there, now = (dataclasses.replace(s, shape=(0, *s.shape[1:])) for s in (there, now))
        if _unbounded(there) != _unbounded(now):
            return f"observation {name!r} was {there!r}, here it is {now!r}"
    return None
