"""A return in an environment, measured by whole episodes: who can act there, validation, proofs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Key

from rekindle.agents.registry import (
    config_from_json,
    config_to_json,
    incompatible,
    load,
    make_agent,
    module_of,
    of_kind,
    variant_of,
)
from rekindle.core.budget import Budget
from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Discrete, is_picture
from rekindle.core.stats import Interval, bootstrap
from rekindle.core.types import Agent, EnvSpec, given
from rekindle.envs import registry
from rekindle.evaluate.policies import as_evaluated, random_policy
from rekindle.evaluate.returns import Episodes, whole_episodes
from rekindle.library.library import Library
from rekindle.library.records import Prior
from rekindle.networks.normalised import features_of
from rekindle.reincarnation.teachers import load as teachers
from rekindle.strategies.base import Asked, Attempt, Proof, Recalled, Say, Situation, named, proved
from rekindle.strategies.returns.costs import Costs, are_known, costs
from rekindle.train import teaching
from rekindle.train.order import AnyMade, Order, in_world, rows_of

CHEAP, GENERAL = "dqn", "mrq"
"""What learns, unless a prior goes on itself: of those that learn from a replay the cheapest per step, for choices in
worlds that cost little or show pictures; what needs the fewest steps, for everything else."""
CHECKPOINT_SECONDS = 30.0
PRACTICE_EPISODES = 64
PROOF_EPISODES = (256, 1024, 4096)
"""The least, and what the least would hardly decide is given."""
MOST_RECALLED, MOST_BY_SCORE = 6, 3
"""Priors that are asked to show what they can do, and how many of them because of the return that is on record."""


class Chance(NamedTuple):
    """What acting at random comes to."""

    score: Interval
    length: float
    """Environment steps of an episode."""


@dataclass(frozen=True, eq=False)
class Returned:
    """A mean undiscounted return to reach, by a policy that is greedy but for one action in a thousand."""

    order: Order
    """A fresh student's, of which strategies change what they have to."""
    made: AnyMade
    target: float
    seed: int
    teacher: tuple[str, Any] | None
    """From elsewhere: by what it was named, and its policy."""
    chance: Chance | None = None
    measured: Callable[[], Costs] | None = None

    @classmethod
    def of(
        cls, env: str, pool: Mapping[str, Any], target: float, *, seed: int, source: str | None, trust: bool = False,
        valued: bool = False, student: str | None = None,
    ) -> "Returned":  # fmt: skip
        """From what a person typed.

        Raises:
            ConfigError, CheckpointError: an unknown environment, one that no student can learn, or a foreign teacher
                that cannot be used.
        """
        id = registry.resolve(env, registry.ids())
        made = registry.world(id, **pool)
        agent, chosen = variant_of(student or student_for(made.spec, jax.default_backend()))
        kind = make_agent(agent, module_of(agent).Config()).needs.kind
        if kind == "rollout":
            able = of_kind("transition", "sequence")
            raise ConfigError(f"--student takes what learns from a replay ({able}); got {student}.")
        usual = {"eval_discrete": "greedy"} if kind == "sequence" else in_world(id)  # greedy: as all scores are here
        config = config_from_json(agent, usual | chosen)
        order = Order(agent, config_to_json(config), id, str(Budget(env_steps=1)), pool=dict(pool),
                      checkpoint_seconds=CHECKPOINT_SECONDS, trust=trust, valued=valued)  # fmt: skip
        able = make_agent(agent, config)
        rows_of(order, made, able)  # refuses worlds for two
        jax.eval_shape(lambda key: able.init(key, made.spec), jax.random.key(0))  # and what it cannot learn in
        foreign = None
        if source is not None and teachers.is_foreign(source):
            foreign = (source, teaching.foreign(source, order, made)[0])
        return cls(order, made, target, seed, foreign)

    @property
    def text(self) -> str:
        """Without the environment's options."""
        return f"return {self.target:g} in {self.env_id}"

    @property
    def words(self) -> str:
        """With them."""
        return "; ".join([self.text, *(f"{name}={value}" for name, value in sorted(self.order.pool.items()))])

    @property
    def unit(self) -> str:
        """A return's."""
        return "mean return"

    @property
    def env_id(self) -> str:
        """The environment's."""
        return self.order.env

    @property
    def spec(self) -> EnvSpec:
        """What is seen and done in it."""
        return self.made.spec

    @property
    def trials(self) -> int:
        """An episode is one."""
        return 1

    @property
    def caveat(self) -> str:
        """None."""
        return ""

    @property
    def at_random(self) -> Chance:
        """What acting at random comes to."""
        return given(self.chance)

    @property
    def costs(self) -> Costs:
        """What practice costs here; measured when it is first asked for, in the worst case by practising."""
        return given(self.measured)()

    def is_priced(self, now: Situation[Any]) -> bool:
        """Whether what practice costs can be told without practising."""
        return are_known(self.order, self.target, now)

    @property
    def student_name(self) -> str:
        """With what tells it from others of its name."""
        name, settings = self.order.agent, self.order.settings
        small = name == GENERAL and settings["hidden"] < config_to_json(config_from_json(name, {}))["hidden"]
        return f"{name}:small, of reduced size; --student {name} takes the full one" if small else name

    @cached_property
    def student(self) -> Agent:
        """A fresh one."""
        return make_agent(self.order.agent, config_from_json(self.order.agent, self.order.settings))

    def normalised(self, value: float) -> float:
        """A return on the scale where 0 is acting at random and 1 the target."""
        return (value - self.at_random.score.value) / max(self.target - self.at_random.score.value, 1e-8)

    def impossible(self) -> str:
        """Nobody can tell."""
        return ""

    def nominate(self, library: Library, source: str | None) -> list[Prior]:
        """What was made for this very environment, version and options; a teacher from elsewhere is a guest."""
        if self.teacher is not None:
            return []
        if source is not None:
            prior = named(source, library)
            if library.row(prior.id) is None:
                raise ConfigError(f"--from takes an agent of the library here, or a foreign teacher; got {source!r}.")
            loaded = load(prior.path, env_spec=self.spec)
            pool = library.find(prior.id).manifest.config.get("pool", {})
            teaching.refuse_other_world(loaded.spec, pool, self.order, self.made, "the agent")
            return [prior]

        def fits(made_for: dict[str, Any]) -> bool:
            spec = EnvSpec.from_json(made_for)
            same = (spec.id, spec.version) == (self.spec.id, self.spec.version)
            return same and not incompatible(spec, self.spec)

        newest = sorted(library.priors(fits), key=lambda prior: prior.begun, reverse=True)
        manifests = {prior.id: _manifest(prior, library) for prior in newest}
        ours = [prior for prior in newest if manifests[prior.id].get("config", {}).get("pool", {}) == self.order.pool]
        known = {prior.id: score for prior in once(ours) if (score := _return(prior, manifests[prior.id])) is not None}
        best = sorted(known, key=lambda id: known[id], reverse=True)[:MOST_BY_SCORE]
        return sorted(ours, key=lambda prior: best.index(prior.id) if prior.id in best else len(best))

    def likeliest(self, priors: list[Prior]) -> list[Prior]:
        """Some that had the highest return here when they were last scored, then the newest.

        Of an answer and the practice that led to it, which kept its replay, the latter.
        """
        return once(priors)[:MOST_RECALLED]

    def is_answer(self, prior: Prior) -> bool:
        """Whether it was proved to reach as much here."""
        return prior.card.get("normaliser") == "none" and proved(prior.card, self.target)

    def prepared(self, now: Situation[Any], say: Say) -> "Returned":
        """With what acting at random comes to, and later what practice costs; both are in the journal."""
        told = next((event["chance"] for event in now.run.decisions() if "chance" in event), None)
        if told is None:
            played = self.play(random_policy(self.spec.action), jax.random.fold_in(now.key, 50), PRACTICE_EPISODES)
            chance = Chance(bootstrap(played.returns[None]), float(played.lengths.mean()))
            now.account.env_steps += played.env_steps
            now.run.decide(chance={"score": chance.score._asdict(), "length": chance.length},
                           env_steps=now.account.env_steps)  # fmt: skip
        else:
            chance = Chance(Interval(**told["score"]), float(told["length"]))
        say("recall", f"acting at random comes to {chance.score.value:.3f}")
        say("plan", f"practice from scratch would be by {self.student_name}")
        return replace(self, chance=chance,
                       measured=cache(lambda: costs(self.order, self.made, self.target, now, say)))  # fmt: skip

    def guests(self, now: Situation[Any], say: Say) -> list[Recalled]:
        """The teacher from elsewhere, after its evaluation."""
        if self.teacher is None:
            return []
        name, policy = self.teacher
        told = next((event for event in now.run.decisions() if event.get("recalled") == name), None)
        if told is None:
            asked = now.ask(policy, stream=1000)
            score, length = asked.trials[0], asked.length
            now.run.decide(recalled=name, last=score._asdict(), length=length, env_steps=now.account.env_steps)
        else:
            score, length = Interval(**told["last"]), float(told["length"])
        say("recall", f"{name}: {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]")
        return [Recalled(name, policy, None, {}, score, score, answered=False, length=length)]

    def ask(self, policy: Any, key: Key[Array, ""], target: float) -> Asked:
        """Some episodes are enough for what passes or fails them clearly; else more are played."""
        played = self.play(policy, jax.random.fold_in(key, 0), PRACTICE_EPISODES)
        score, env_steps = bootstrap(played.returns[None]), played.env_steps
        if not score.low < target <= score.high:
            return Asked([score], env_steps, PRACTICE_EPISODES)
        more = self.play(policy, jax.random.fold_in(key, 1), PROOF_EPISODES[0])
        env_steps += more.env_steps
        return Asked([bootstrap(more.returns[None])], env_steps, PRACTICE_EPISODES + PROOF_EPISODES[0])

    def prove(self, attempt: Attempt, number: int, key: Key[Array, ""]) -> Proof:
        """Fresh episodes; how many, validation says beforehand."""
        count = enough(attempt.score, self.target)
        played = self.play(attempt.policy, key, count, split="test", seed=self.seed + 1000 * number)
        return Proof(bootstrap(played.returns[None]), count, played.env_steps, played)

    def card(self, proof: Proof) -> dict[str, Any]:
        """A score is the return itself."""
        return {"normaliser": "none", "episode_length": proof.env_steps / proof.episodes}

    def play(self, policy: Any, key: Key[Array, ""], number: int, *, split: str = "train", seed: int = 0) -> Episodes:
        """Whole episodes, as all scores here are measured: choices are greedy but for one in a thousand."""
        return whole_episodes(
            self.made, as_evaluated(policy, self.spec.action), key, number=number, split=split, seed=seed
        )


def student_for(spec: EnvSpec, backend: str) -> str:
    """Who is to learn there: MR.Q, or DQN for choices where that is faster: in JAX, or of pictures on a processor."""
    pictures = [space.shape for space in spec.obs.values() if is_picture(space)]
    dear = pictures and (backend == "cpu" or any(features_of(*shape[:2]) == 0 for shape in pictures))  # or too small
    if isinstance(spec.action, Discrete) and (spec.kind == "jax" or dear):
        return CHEAP
    return f"{GENERAL}:small" if backend == "cpu" else GENERAL


def enough(score: Interval, target: float) -> int:
    """Episodes after which the proof's interval is expected to lie above the target, if the practice score is true."""
    above, half = score.value - target, (score.high - score.low) / 2
    wanted = PRACTICE_EPISODES * (1.5 * half / above) ** 2 if above > 0 else 0.0
    return next((count for count in PROOF_EPISODES if count >= wanted), PROOF_EPISODES[-1])


def once(priors: list[Prior]) -> list[Prior]:
    """The first of those that have the same weights."""
    found: dict[str, Prior] = {}
    for prior in priors:
        found.setdefault(prior.sha256, prior)
    return list(found.values())


def _manifest(prior: Prior, library: Library) -> dict[str, Any]:
    row = library.row(prior.id)
    return json.loads(row.manifest) if row is not None and row.manifest else {}


def _return(prior: Prior, manifest: Mapping[str, Any]) -> float | None:
    """What it last came to, if that is on record: in its card as an answer, or in its run."""
    if prior.card.get("normaliser") == "none" and "score" in prior.card:
        return float(prior.card["score"])
    scores = {score["name"]: score["value"] for score in manifest.get("scores", ())}
    return None if "return" not in scores else float(scores["return"])
