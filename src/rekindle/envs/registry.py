"""Environments by id. Every folder of worlds lists its ids in `spec.py`; nothing is imported before it is asked for.

`spec.py` holds `ENVS: dict[str, str]`, from an id such as `xland/f0-v1` to the place `module:factory` of a function
`factory(id, **options) -> Made`; a folder that opens another library's worlds also holds `OPEN: dict[str, str]`, from
the beginning of its ids, such as `gymnax/`, to such a place, or `HOSTED`, the same for worlds that are not written in
JAX, whose factories return `Hosted`; and `SHORT`, from other names of such worlds to their ids. It imports nothing
heavy.
"""

import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from types import ModuleType
from typing import Any, NamedTuple

from rekindle import envs
from rekindle.core.errors import ConfigError, did_you_mean
from rekindle.core.types import EnvSpec
from rekindle.envs.base import Env


class Made(NamedTuple):
    """An environment ready for agents: k trials per episode, and where its tasks come from."""

    env: Env
    """Where the world knows trials, with the `Trials` wrapper around it."""
    pool: Callable[..., Any]
    """`pool(split="train" | "test", seed=0, **options)`: the source of tasks, as `params` of `wrappers.AutoReset`."""
    draw: Callable[..., Any]
    """`draw(key, pool, min_trials=1, max_trials=k) -> params`: one task of such a source; for jit and vmap."""
    trials: int
    """Trials per episode when nothing else is said."""

    @property
    def spec(self) -> EnvSpec:
        """What the environment shows and takes."""
        return self.env.spec


class Hosted(NamedTuple):
    """An environment that a process steps."""

    spec: EnvSpec
    open: Callable[..., Any]
    """`open(rows, seen=False) -> HostWorlds`: so many worlds of it side by side; with `seen`, such as have pictures."""


def make(id: str, **options: Any) -> Made:
    """The environment of that name; without `-vN` its newest version. `options` go to the folder's factory.

    Raises:
        ConfigError: there is none of that name, or it has no such option; the nearest ones are named. Or it is not
            written in JAX.
    """
    known = ids()
    id = resolve(id, known)
    if id not in known and is_hosted(id):
        raise ConfigError(f"{id} is not written in JAX; only agents that learn from a replay, such as mrq, act in it.")
    factory = _factory(id)
    taken = signature(factory).parameters
    named = [option for option, one in taken.items() if one.kind is one.KEYWORD_ONLY]
    if (strange := sorted(options.keys() - named)) and not any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        hint = did_you_mean(strange[0], named) if named else "it takes none."
        raise ConfigError(f"{id} has no option {strange[0]!r}; {hint}")
    return factory(id, **options)


def defaults(id: str) -> dict[str, Any]:
    """The options of an environment where none are given, as far as its factory or its module says."""
    id = resolve(id, ids())
    if is_hosted(id):
        place = next(place for prefix, place in _merged("HOSTED").items() if _full(id).startswith(prefix))
        return dict(getattr(import_module(place.partition(":")[0]), "DEFAULTS", {}))
    taken = signature(_factory(id)).parameters.items()
    return {name: one.default for name, one in taken if one.kind is one.KEYWORD_ONLY and one.default is not one.empty}


def _factory(id: str) -> Callable[..., Made]:
    known = ids()
    place = known[id] if id in known else next(place for prefix, place in opened().items() if id.startswith(prefix))
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def host(id: str, **options: Any) -> Hosted:
    """An environment that is not written in JAX; `options` go to the folder's factory.

    Raises:
        ConfigError: the library that it is from is not installed, or has none of that name.
    """
    id = _full(id)
    place = next(place for prefix, place in _merged("HOSTED").items() if id.startswith(prefix))
    module, _, factory = place.partition(":")
    try:
        made = import_module(module)
    except ImportError as error:
        raise ConfigError(f"{id} takes {error.name}, which is not installed; pip install -e '.[gym]'.") from error
    return getattr(made, factory)(id, **options)


def world(id: str, **options: Any) -> Made | Hosted:
    """An environment of either kind, by its full id; see `make` and `host`."""
    return host(id, **options) if is_hosted(id) else make(id, **options)


def last_of(id: str) -> str:
    """What names of runs have of an id, such as CartPole-v1."""
    return id.rpartition("/")[2].rpartition(":")[2]


def is_hosted(id: str) -> bool:
    """Whether an id is of such an environment."""
    return _full(id).startswith(tuple(_merged("HOSTED")))


def is_atari(id: str) -> bool:
    """Whether an id is of one of Atari's games, which have rules of their own for scores and step sizes."""
    return _full(id).startswith("ALE/")


def ids() -> dict[str, str]:
    """All ids, each with the place of its factory."""
    return {id: place for spec in _specs() for id, place in spec.ENVS.items()}


def opened() -> dict[str, str]:
    """How the ids of other libraries' worlds begin, each with the place of its factory."""
    return _merged("OPEN")


def _full(id: str) -> str:
    """Of what Gymnasium knows by a name without a folder, ours."""
    short = _merged("SHORT")
    if id in short or not re.fullmatch(r"([\w.]+:[\w./-]+|[\w.-]+)-v\d+", id) or find_spec("gymnasium") is None:
        return short.get(id, id)
    import gymnasium

    return f"gymnasium/{id}" if ":" in id or id in gymnasium.registry else id


def _merged(table: str) -> dict[str, str]:
    return {name: place for spec in _specs() for name, place in getattr(spec, table, {}).items()}


def _specs() -> Iterator[ModuleType]:
    for folder in pkgutil.iter_modules(envs.__path__, prefix=f"{envs.__name__}."):
        if folder.ispkg and find_spec(f"{folder.name}.spec"):
            yield import_module(f"{folder.name}.spec")


def resolve(id: str, known: Iterable[str]) -> str:
    """The full id of a known environment, with the newest version where `id` names none."""
    known, id = list(known), _full(id)
    if id in known or is_hosted(id) or any(id.startswith(prefix) for prefix in opened()):
        return id
    versions = [name for name in known if re.fullmatch(re.escape(id) + r"-v\d+", name)]
    if not versions:
        raise ConfigError(f"no environment {id!r}; {_instead(id, known)}")
    return max(versions, key=lambda name: int(name.rpartition("-v")[2]))


def _names(module: str) -> list[str]:
    """Of the worlds that a module opens, where it can tell at once and its library is installed."""
    try:
        made = import_module(module)
    except ImportError:
        return []
    return made.names() if hasattr(made, "names") else []


def _instead(id: str, known: Iterable[str]) -> str:
    """The end of a sentence about an environment that there is not: the nearest, or else how ids begin."""
    theirs = [name for place in _merged("HOSTED").values() for name in _names(place.partition(":")[0])]
    names = {name.rpartition("/")[2].lower(): name for name in [*known, *theirs, *_merged("SHORT")]}
    names |= {name.lower(): name for name in names.values()}
    if close := get_close_matches(id.lower(), names, n=3, cutoff=0.6):
        return did_you_mean(names[close[0]], list(dict.fromkeys(names[one] for one in close)))
    begin = sorted({f"{name.partition('/')[0]}/" for name in [*known, *opened(), *_merged("HOSTED")]})
    return (
        f"ids begin with {', '.join(begin)}, or are Gymnasium's, such as CartPole-v1 or HalfCheetah-v5; one of your "
        "own is gymnasium/MODULE:ID, where importing MODULE registers it."
    )
