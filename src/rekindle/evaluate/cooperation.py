"""Do two play better together? Self-play, a random partner, and who of them makes the rules fire.

AdA's protocol for two players (Adaptive Agents Team 2023, section 4 and appendix D): the agent plays with itself, and
with a partner that acts at random, once in each seat, of which the better is taken per task.

Differs: what is best for two is known only for short solutions (planner.py), so scores are not normalised by it: a
trial counts as a success, or the reward is taken as a share of the trial's steps.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from rekindle.core.errors import ConfigError, GoalError
from rekindle.core.spaces import Discrete
from rekindle.core.types import Policy
from rekindle.envs.wrappers import Trials
from rekindle.envs.xland import planner
from rekindle.envs.xland.credit import TRIGGERED, with_credit
from rekindle.envs.xland.env import XLand
from rekindle.envs.xland.level import Task
from rekindle.envs.xland.pools import TaskPool
from rekindle.evaluate.evaluation_set import choose_tasks
from rekindle.evaluate.policies import RandomPolicy
from rekindle.evaluate.rollout import Played, play
from rekindle.evaluate.scores import Normaliser, ScoreRecord, Summary, summarise

SELF_PLAY, RANDOM_PARTNER, RANDOM = "self-play", "random partner, best seat", "both random"


class PairEvaluationSet(NamedTuple):
    """Tasks for two (stacked) that are not known to be impossible, and what one player can do there alone."""

    env: Trials
    tasks: Task
    alone: Float[np.ndarray, "n 2"]
    """Best reward of a trial if only player 1, or only player 2, acts; 0 where no way to the goal was found."""
    left_out: int
    """Tasks that are impossible whatever the two do."""

    @property
    def needs_both(self) -> Bool[np.ndarray, " n"]:
        """Where no way was found for either player alone."""
        return np.asarray(self.alone.max(axis=1) == 0)

    def take(self, chosen: Bool[np.ndarray, " n"]) -> "PairEvaluationSet":
        """Some of its tasks."""
        return self._replace(tasks=jax.tree.map(lambda leaf: leaf[chosen], self.tasks), alone=self.alone[chosen])


class Division(NamedTuple):
    """How labour was divided in self-play, by task, over all trials and repetitions."""

    successes: Int[np.ndarray, " n"]
    """Trials in which anything was earned."""
    both: Int[np.ndarray, " n"]
    """Of those, trials in which each player triggered a rule (xland/credit.py) before or with the first reward."""

    @property
    def share(self) -> float:
        """Share of the successes in which both players triggered rules; 0 if there were none."""
        return float(self.both.sum()) / max(int(self.successes.sum()), 1)


class Cooperation(NamedTuple):
    """Records and division of labour by number of trials, and what they took."""

    records: dict[tuple[str, int], ScoreRecord]
    division: dict[int, Division]
    env_steps: int

    def summaries(self) -> list[Summary]:
        """One row per pair of players and number of trials."""
        return [summarise(name, [record]) for (name, _), record in self.records.items()]


def make_pair_evaluation_set(env: Trials, pool: TaskPool, *, tasks: int, max_states: int = 20_000,
                             cache: Path | None = None, seed: int = 0,
                             progress: Callable[[int, int], None] | None = None) -> PairEvaluationSet:  # fmt: skip
    """A set of `tasks` tasks of a pool (all, if it has fewer), less those that are impossible.

    Args:
        env: `Trials` around an `XLand` for two players.
        pool: where the tasks come from.
        tasks: how many to draw.
        max_states: of the planner's searches, of which there are two per task.
        cache: folder of the planner's results.
        seed: of the draw.
        progress: called with (searches done, all).

    Raises:
        ConfigError: an environment for another number of players.
        GoalError: all tasks are impossible.
    """
    world = env.env
    if not isinstance(world, XLand) or world.players != 2:
        raise ConfigError(f"cooperation is measured in worlds of xland for two players; got {env.spec.id}.")
    chosen, each = choose_tasks(pool, tasks, seed)
    plans = [planner.plan_many(world, each, acting=(player,), max_states=max_states, cache=cache,
                               progress=_half(progress, player)) for player in (0, 1)]  # fmt: skip
    alone = np.asarray([[plan.optimum if plan.solvable else 0.0 for plan in one] for one in plans]).T
    good = np.flatnonzero([not planner.unreachable(task, (0, 1)) for task in each])
    if not len(good):
        raise GoalError(f"none of {len(each)} tasks can be solved: no rule makes what the goals ask for.")
    kept = jax.tree.map(lambda leaf: leaf[good], chosen)
    return PairEvaluationSet(env, kept, alone[good], len(each) - len(good))


def _half(progress: Callable[[int, int], None] | None, second: int) -> Callable[[int, int], None] | None:
    """Progress of the first or second of two equal halves."""
    return progress and (lambda done, total: progress(second * total + done, 2 * total))


def cooperate(
    held_out: PairEvaluationSet,
    policy: Policy,
    key: Key[Array, ""],
    *,
    trials: Sequence[int],
    repetitions: int,
    kind: Literal["success", "return"] = "success",
    explore: bool = True,
    progress: Callable[[str, int], None] | None = None,
) -> Cooperation:
    """Let a policy play both seats, and each seat beside a random partner, with every number of trials.

    Two random players do not depend on the number of trials and play one. Taking the better seat per task favours the
    random partner a little where repetitions are few; what self-play is ahead by is, if anything, more.

    Args:
        held_out: the tasks.
        policy: made for a seat (`seats.seat_spec`); in self-play it takes both, with two memories.
        key: of starts and actions.
        trials: numbers of trials per episode.
        repetitions: episodes per task.
        kind: `success` counts a trial in which anything was earned as 1; `return` is the share of the steps of a trial.
        explore: sample the policy's actions, else they are greedy; the random partner is always random.
        progress: called with the name and the number of trials before each.
    """
    assert isinstance(held_out.env.spec.action, Discrete)
    random = RandomPolicy(held_out.env.spec.action.n)
    length = np.asarray(held_out.tasks.trial_length, np.float64)
    normaliser = Normaliser(np.zeros_like(length), length, "steps of a trial")
    credited = with_credit(held_out.env)
    records: dict[tuple[str, int], ScoreRecord] = {}
    division: dict[int, Division] = {}
    played = 0

    def run(name: str, seats: list[Policy], k: int, stream: int) -> Played:
        if progress:
            progress(name, k)
        run_key = jax.random.fold_in(jax.random.fold_in(key, stream), k)
        return play(credited, seats, held_out.tasks, run_key, trials=k, repetitions=repetitions, explore=explore,
                    metrics=(TRIGGERED,), most_trials=max(trials))  # fmt: skip

    for k in trials:
        together = run(SELF_PLAY, [policy, policy], k, 0)
        seats = [run(RANDOM_PARTNER, [policy, random], k, 1), run(RANDOM_PARTNER, [random, policy], k, 2)]
        division[k] = divide(together)
        records[SELF_PLAY, k] = ScoreRecord(together.reward, kind, normaliser)
        records[RANDOM_PARTNER, k] = best_seat(*(ScoreRecord(one.reward, kind, normaliser) for one in seats))
        played += 3 * k
    records[RANDOM, 1] = ScoreRecord(run(RANDOM, [random, random], 1, 3).reward, kind, normaliser)
    return Cooperation(records, division, int(length.sum()) * (played + 1) * repetitions)


def best_seat(first: ScoreRecord, second: ScoreRecord) -> ScoreRecord:
    """Of two records of the same tasks, the better one per task, by the score of the last trial."""
    better = first.scores() >= second.scores()
    return ScoreRecord(np.where(better[:, None, None], first.values, second.values), first.kind, first.normaliser)


def divide(played: Played) -> Division:
    """The division of labour, from rewards and the metric `triggered`."""
    success = played.reward > 0
    both = success & (played.metrics[TRIGGERED] > 0).all(axis=-1)
    return Division(success.sum(axis=(1, 2)), both.sum(axis=(1, 2)))
