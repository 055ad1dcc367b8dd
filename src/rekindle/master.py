"""The main job: a goal in words goes in, an agent that reaches it comes out. Read downwards; each arrow is a function.

goal -> understand -> recall -> choose -> practise -> judge -> prove -> keep
                                  ^                     |
                                  +----- not yet -------+
"""

import heapq
import os
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from rekindle.agents.registry import Loaded, export, incompatible, load
from rekindle.core.budget import Budget
from rekindle.core.errors import CheckpointError, ConfigError, within
from rekindle.core.stats import Interval
from rekindle.core.types import EnvSpec
from rekindle.envs.xland import goals, planner, pools
from rekindle.envs.xland.goals import Goal, Hide
from rekindle.evaluate.exam import Exam, Result, make_exam, sit
from rekindle.library import files
from rekindle.library.artefact import read_meta, save_policy
from rekindle.library.library import Library
from rekindle.library.manifest import Parent
from rekindle.library.records import Prior, prior_in
from rekindle.library.run import Run
from rekindle.strategies import adapt, fine_tune, from_scratch, reuse
from rekindle.strategies.base import Account, Attempt, Estimate, Recalled, Situation, Strategy
from rekindle.train.loop import Progress

STRATEGIES: tuple[Strategy, ...] = (reuse, adapt, fine_tune, from_scratch)
"""Cheapest first."""
PRACTICE_TASKS, PROOF_TASKS = 128, 128
"""Tasks of the exams, less those the planner leaves out. Scores differ more between tasks than between episodes."""
MIN_PROOF_EPISODES = 256
MOST_RECALLED = 6
"""Priors that are asked to show what they can do."""

Verdict = Literal["mastered", "improved", "not_mastered", "impossible"]


@dataclass(frozen=True)
class Request:
    """What a person typed."""

    goal: str
    rules: tuple[str, ...] = ()
    hide: Hide = "none"
    world: str = "f0"
    trials: int | None = None
    seed: int = 0
    budget: Budget = field(default_factory=lambda: Budget(seconds=300.0))
    target: float = 0.8
    source: str | None = None
    """Only this prior: an id in the library or the folder of a policy."""
    reuse: bool = True
    """Whether anything from the library may be used."""
    log: tuple[str, ...] = ()
    """Trackers that the curves go to, too: `tensorboard`, `wandb`, `mlflow`."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not 0.0 < self.target < 1.0:
            raise ConfigError(f"--target must lie between 0 and 1 (1 is the planner's best); got {self.target}.")
        within("--seed", self.seed, 0)
        if self.source is not None and not self.reuse:
            raise ConfigError("--from names a prior to use and --no-reuse forbids using any; leave one away.")


@runtime_checkable
class Watcher(Protocol):
    """Who looks on."""

    def stage(self, name: str, text: str) -> None:
        """A stage begins or has something to say."""
        ...

    def progress(self, strategy: str, now: Progress) -> None:
        """Practice went on."""
        ...


class Proof(NamedTuple):
    """Fresh episodes in worlds that practice did not have."""

    score: Interval
    result: Result
    exam: Exam


@dataclass
class Outcome:
    """What came of it."""

    goal: Goal
    verdict: Verdict
    reason: str
    target: float
    account: Account
    run: Run
    tried: list[str]
    strategy: str = ""
    proof: Proof | None = None
    attempt: Attempt | None = None
    agent: str = ""
    """Id under which the policy is in the library: this run's, or the prior's if it was used as it is."""
    recalled: list[Recalled] = field(default_factory=list)

    @property
    def is_mastered(self) -> bool:
        """Whether the best attempt's proof reaches the target."""
        return self.proof is not None and self.proof.score.low >= self.target

    def to_json(self, report: Path) -> dict[str, Any]:
        """The line that `rekindle master --json` ends with."""
        score = self.proof.score if self.proof else None
        return {
            "goal": self.goal.words,
            "verdict": self.verdict,
            "score": score.value if score else None,
            "score_low": score.low if score else None,
            "score_high": score.high if score else None,
            "target": self.target,
            "strategy": self.strategy,
            "strategies_tried": self.tried,
            "env_steps": self.account.env_steps,
            "wall_s": round(self.account.seconds(), 3),
            "agent": self.agent,
            "parents": list(self.attempt.parents) if self.attempt else [],
            "report": str(report),
        }


class Silent:
    """A watcher that says nothing."""

    def stage(self, name: str, text: str) -> None:
        """Heard and forgotten."""
        del name, text

    def progress(self, strategy: str, now: Progress) -> None:
        """Seen and forgotten."""
        del strategy, now


def master(
    request: Request | str,
    library: Library | None = None,
    watch: Watcher | None = None,
    *,
    run: Run | None = None,
) -> Outcome:
    """Reach a goal by reusing the library.

    Args:
        request: the goal in words, or with everything else that `rekindle master` takes.
        library: by default the user's own.
        watch: who is told how it goes; by default nobody.
        run: an interrupted run of this request, to go on with.

    Raises:
        GoalError, ConfigError: words or settings that cannot be used.
        KeyboardInterrupt: after Ctrl-C, when everything is saved.
    """
    request = Request(request) if isinstance(request, str) else request
    library, watch = library or Library.open(), watch or Silent()
    goal = understand(request)
    watch.stage("understand", goal.words)
    candidates = nominate(request, library, goal)
    run = run or begin(request, goal, library)
    candidates = [prior for prior in candidates if prior.id != run.id]
    with run.held():
        try:
            run.log_to(request.log)
            return pursue(request, goal, candidates, library, run, watch)
        except KeyboardInterrupt:
            run.update(status="interrupted")
            raise KeyboardInterrupt(run.how_to_go_on()) from None
        except Exception as error:
            run.fail(str(error))
            raise


def pursue(request: Request, goal: Goal, candidates: list[Prior], library: Library, run: Run, watch: Watcher
           ) -> Outcome:  # fmt: skip
    """One strategy after the other, until a proof reaches the target, none is left or the budget is spent."""
    account = Account(request.budget, before_s=run.manifest.wall_s, env_steps=booked(run))
    outcome = Outcome(goal, "not_mastered", "", request.target, account, run, [])
    if why := impossible(goal, request.seed, library):
        run.decide(choice="stop", reason=why)
        outcome.verdict, outcome.reason = "impossible", f"no behaviour reaches it: {why}"
        return finish(outcome)

    now = prepare(request, goal, library, run, account, watch)
    now = replace(now, priors=recall(candidates, now, watch))
    outcome.recalled = list(now.priors)
    now, given_up = pick_up(outcome, now, library, watch)
    while not outcome.is_mastered and (offers := choose(now, given_up, outcome)):
        (strategy, estimate), others = offers[0], offers[1:]
        watch.stage("choose", f"{strategy.name}: {estimate.reason}")
        alternatives = [{"choice": s.name, **e._asdict()} for s, e in others]
        run.decide(choice=strategy.name, reason=estimate.reason, expected=estimate._asdict(), alternatives=alternatives,
                   env_steps=account.env_steps)  # fmt: skip
        attempt = strategy.carry_out(now)
        watch.stage("judge", f"{strategy.name}: {attempt.verdict}, practice exam {shown(attempt.score)}")
        run.decide(outcome=strategy.name, verdict=attempt.verdict, score=attempt.score._asdict(),
                   at_s=account.seconds(), env_steps=account.env_steps)  # fmt: skip
        run.update(env_steps=account.env_steps, wall_s=account.seconds())
        if attempt.verdict == "interrupted":
            raise KeyboardInterrupt
        proof = prove(now, attempt, len(outcome.tried), library, watch)
        if is_over := attempt.state is None or attempt.verdict in ("stalled", "diverged", "converged"):
            given_up.add(strategy.name)
        else:
            now = replace(now, ongoing=attempt)
        outcome.tried.append(strategy.name)
        best_yet = outcome.attempt is None or attempt.score.value >= outcome.attempt.score.value
        if best_yet or proof.score.low >= now.target:
            outcome.proof, outcome.attempt, outcome.strategy = proof, attempt, strategy.name
            save(outcome, now)
        run.decide(proved=strategy.name, score=proof.score._asdict(), given_up=is_over, at_s=account.seconds(),
                   env_steps=account.env_steps)  # fmt: skip
    return finish(keep(outcome, now))


def booked(run: Run) -> int:
    """The environment steps of a job up to its last decision; what a crash cut off is done again and counts once."""
    return next((int(event["env_steps"]) for event in reversed(run.decisions()) if "env_steps" in event), 0)


def pick_up(outcome: Outcome, now: Situation, library: Library, watch: Watcher) -> tuple[Situation, set[str]]:
    """Where an interrupted job stood: what was tried, the best policy so far with its proof, what was given up.

    The proof is played again as it was, and its steps count once.
    """
    earlier = [event for event in outcome.run.decisions() if "proved" in event]
    outcome.tried = [event["proved"] for event in earlier]
    given_up = {event["proved"] for event in earlier if event["given_up"]}
    folder = outcome.run.path / "policy"
    if not earlier or not folder.is_dir():
        return now, given_up
    loaded = load(folder, env_spec=now.env.spec)
    card: dict[str, Any] = dict(loaded.artefact.meta.card)
    number = int(card.get("proof", len(earlier) - 1))
    score = Interval(*(float(card[name]) for name in ("practice", "practice_low", "practice_high")))
    state = loaded.state_for(loaded.agent, jax.random.fold_in(now.key, 8)) if card["trained"] else None
    parents = tuple(parent.id for parent in outcome.run.manifest.parents)
    kept = Attempt(card["strategy"], loaded.agent, state, loaded.policy, score, "improving", parents, 0, [])
    if not earlier[-1]["given_up"]:
        now = replace(now, ongoing=kept._replace(strategy=earlier[-1]["proved"]))
    if number < len(earlier):  # otherwise its proof is not in the journal: it comes again, and is counted then
        spent = now.account.env_steps
        outcome.proof = prove(now, kept, number, library, watch)
        now.account.env_steps = spent
        outcome.attempt, outcome.strategy = kept, kept.strategy
    return now, given_up


def understand(request: Request) -> Goal:
    """Words to a task family; an unknown word is refused with its place and the nearest known ones."""
    return goals.parse(request.goal, request.rules, hide=request.hide, world=request.world, trials=request.trials)


def begin(request: Request, goal: Goal, library: Library) -> Run:
    """Open the run's folder: from here on nothing is lost."""
    config = {**asdict(request), "budget": str(request.budget)}
    name = goal.text.replace(" ", "-").replace("(", "-").replace(")", "").replace(",", "")
    parents: list[Parent] = []
    if request.source is not None and not os.path.isdir(request.source):
        record = library.find(request.source)
        parents = [Parent(id=record.id, role="init", sha256=record.row.weights)]
    return Run.create(library, "master", name=name, config=config, seed=request.seed, env_id="xland/goal-v1",
                      parents=parents)  # fmt: skip


def impossible(goal: Goal, seed: int, library: Library) -> str:
    """Why no behaviour reaches the goal in any of a few worlds without distractors, by proof; else empty."""
    reason = ""
    pool = goals.pool(goal, split="train", seed=seed, worlds=4, distractors=False)
    plans = planner.plan_many(goals.world_of(goal), pool, cache=planned(library))
    for plan in plans:
        if plan.solvable or not plan.exact:
            return ""
        reason = plan.reason
    return reason


def planned(library: Library) -> Path:
    """Where the planner keeps what it found."""
    return library.folder / "planned"


def prepare(request: Request, goal: Goal, library: Library, run: Run, account: Account, watch: Watcher) -> Situation:
    """Practice worlds and their exam."""
    env = goals.env_of(goal)

    def pool(*, neighbours: float, worlds: int) -> pools.TaskPool:
        return goals.pool(goal, split="train", seed=request.seed, worlds=worlds, neighbours=neighbours)

    watch.stage("plan", "the best possible reward in the practice worlds")
    practice = make_exam(env, pool(neighbours=0.0, worlds=PRACTICE_TASKS + 16), tasks=PRACTICE_TASKS,
                         cache=planned(library))  # fmt: skip
    return Situation(goal, env, pool, practice, (), request.target, jax.random.key(request.seed), run, account,
                     watch.progress)  # fmt: skip


def nominate(request: Request, library: Library, goal: Goal) -> list[Prior]:
    """Everything that could act in the goal's worlds; nothing with `--no-reuse`, one prior with `--from`.

    Raises:
        LibraryError, ConfigError, CheckpointError: there is no such prior, or it cannot act here.
    """
    if not request.reuse:
        return []
    spec = goals.env_of(goal).spec
    if request.source is not None:
        prior = named(request.source, library)
        load(prior.path, env_spec=spec)
        return [prior]
    return library.priors(lambda made_for: not incompatible(EnvSpec.from_json(made_for), spec))


def recall(candidates: list[Prior], now: Situation, watch: Watcher) -> list[Recalled]:
    """The candidates with evidence, best first: a kept answer to this goal, or their practice exams.

    The likeliest are asked first, the same weights only once, and no more once one passes.
    """
    answers = [prior for prior in candidates if is_answer(prior, now.goal, now.target)]
    for best in sorted(answers, key=lambda p: (float(p.card["score"]), p.begun), reverse=True):
        if (loaded := usable(best, now, watch)) is not None:
            watch.stage("recall", f"{best.id} answered this goal before")
            return [Recalled(best.id, loaded, best.card, None, None, answered=True)]
    recalled: list[Recalled] = []
    asked: set[str] = set()
    known = {event["recalled"]: event for event in now.run.decisions() if "recalled" in event}
    for stream, prior in enumerate(likeliest(candidates, now.goal)):
        loaded = usable(prior, now, watch)
        if loaded is None or (weights := loaded.artefact.meta.weights.sha256) in asked:
            continue
        asked.add(weights)
        if (told := known.get(prior.id)) is not None and told["sha256"] == weights:
            first, last = Interval(**told["first"]), Interval(**told["last"])
        else:
            trials = now.ask(loaded.policy, stream=1000 + stream)
            first, last = trials[0], trials[-1]
            now.run.decide(recalled=prior.id, sha256=weights, first=first._asdict(), last=last._asdict(),
                           env_steps=now.account.env_steps)  # fmt: skip
        watch.stage("recall", f"{prior.id}: {shown(last)}")
        recalled.append(Recalled(prior.id, loaded, prior.card, first, last, answered=False))
        if last.low >= now.target:
            break
    return sorted(recalled, key=lambda r: r.last.value if r.last else 0.0, reverse=True)


def usable(prior: Prior, now: Situation, watch: Watcher) -> Loaded | None:
    """The policy of a prior, or None if it is damaged or made for something else; that is said, and stops nothing."""
    try:
        return load(prior.path, env_spec=now.env.spec)
    except CheckpointError as error:
        watch.stage("recall", f"{prior.id} is left out: {error}")
        return None


def named(source: str, library: Library) -> Prior:
    """The prior that `--from` names: an id, the start of one, or a folder with a policy."""
    folder = Path(source)
    if os.path.isfile(folder / "policy.json"):
        return prior_in(folder)
    if folder.is_dir():
        raise ConfigError(
            f"--from takes a run's id or a folder with a policy.json; {source} has none (try {source}/policy)."
        )
    record = library.find(source)
    if record.policy is None and record.fetch("policy").is_dir():
        read_meta(record.fetch("policy"))  # says what is wrong with it
    if record.policy is None:
        raise ConfigError(f"--from takes a run with a policy; {record.id} has none. See `rekindle library ls`.")
    return library.prior(record)


def is_answer(prior: Prior, goal: Goal, target: float) -> bool:
    """Whether a prior was kept as the proved answer to this very goal; a card without its numbers proves nothing."""
    if prior.goal != goal.words:
        return False
    figures = [prior.card.get(name) for name in ("score", "score_low", "score_high")]
    proved = all(isinstance(figure, int | float) and -1e9 < figure < 1e9 for figure in figures)
    return proved and float(prior.card["score_low"]) >= target


def likeliest(priors: list[Prior], goal: Goal) -> list[Prior]:
    """Those most worth asking: foundation agents, then the nearest goals, then the newest."""
    words = set(goal.words.replace(";", " ").split())

    @cache
    def shared(asked: str) -> int:
        return len(set(asked.replace(";", " ").split()) & words)

    return heapq.nlargest(MOST_RECALLED, priors, key=lambda p: (p.is_foundation, shared(p.goal), p.begun))


def choose(now: Situation, given_up: set[str], outcome: Outcome) -> list[tuple[Strategy, Estimate]]:
    """The strategies that still apply, cheapest first; none once the budget is spent on at least one attempt."""
    if outcome.attempt is not None and now.account.is_spent():
        return []
    offers = [(s, e) for s in STRATEGIES if s.name not in given_up and (e := s.estimate(now)) is not None]
    return sorted(offers, key=lambda offer: offer[1].seconds)


def prove(now: Situation, attempt: Attempt, number: int, library: Library, watch: Watcher) -> Proof:
    """Fresh worlds, starts and random numbers; the score is the last trial's reward over the planner's."""
    watch.stage("prove", "fresh episodes in worlds that practice did not have")
    seed = now.run.manifest.seed or 0
    pool = goals.pool(now.goal, split="test", seed=seed + 1000 * number, worlds=PROOF_TASKS + 16)
    exam = make_exam(now.env, pool, tasks=PROOF_TASKS, cache=planned(library))
    repetitions = -(-MIN_PROOF_EPISODES // len(exam.optimum))
    key = jax.random.fold_in(jax.random.fold_in(now.key, 10_000 + number), hash_of(now.run.id))
    result = sit(exam, attempt.policy, key, trials=now.goal.trials, repetitions=repetitions)
    now.account.env_steps += result.env_steps
    watch.stage("prove", f"{shown(result.last)} over {result.scores.shape[0] * repetitions} episodes")
    return Proof(result.last, result, exam)


def hash_of(text: str) -> int:
    """A number from a text, the same in every process."""
    return int.from_bytes(text.encode()[-6:], "big") % (1 << 31)


def save(outcome: Outcome, now: Situation) -> None:
    """Policy, score card and lineage into the run's folder: the best so far is never lost."""
    assert outcome.proof is not None and outcome.attempt is not None
    score, attempt, run = outcome.proof.score, outcome.attempt, outcome.run
    role = "policy" if attempt.state is None else "init"
    hashes = {prior.id: prior.loaded.artefact.meta.weights.sha256 for prior in now.priors}
    run.update(parents=[{"id": id, "role": role, "sha256": hashes.get(id)} for id in attempt.parents])
    if attempt.state is None and now.priors[0].answered:
        return
    card = {
        "goal": outcome.goal.words,
        "score": score.value,
        "score_low": score.low,
        "score_high": score.high,
        "episodes": int(np.prod(outcome.proof.result.scores.shape[:2])),
        "normaliser": "planner",
        "practice": attempt.score.value,
        "practice_low": attempt.score.low,
        "practice_high": attempt.score.high,
        "strategy": outcome.strategy,
        "trained": attempt.state is not None,
        "proof": len(outcome.tried) - 1,
        "env_steps": outcome.account.env_steps,
    }
    facts = policy_facts(now) if attempt.state is None else export(attempt.agent, attempt.state, now.env.spec)
    save_policy(run.path / "policy", **facts, card=card, provenance={"run": run.id, "parents": attempt.parents})


def policy_facts(now: Situation) -> dict[str, Any]:
    """The facts of a prior that was used as it is, to keep it as the answer to this goal too."""
    artefact = now.priors[0].loaded.artefact
    meta = artefact.meta
    return {"agent": meta.agent, "agent_version": meta.agent_version, "config": meta.config, "spec": meta.spec,
            "arrays": artefact.arrays}  # fmt: skip


def keep(outcome: Outcome, now: Situation) -> Outcome:
    """The verdict; a policy that was trained, or that masters the goal, stays in the library under this run."""
    assert outcome.proof is not None and outcome.attempt is not None
    score, attempt, folder = outcome.proof.score, outcome.attempt, outcome.run.path / "policy"
    before = max((r.last.high for r in now.priors if r.last is not None), default=None)
    if outcome.is_mastered:
        outcome.verdict, outcome.reason = "mastered", f"the interval's lower end {score.low:.3f} reaches the target"
    elif before is not None and attempt.state is not None and score.low > before:
        outcome.verdict, outcome.reason = "improved", f"better than anything in the library before ({before:.3f})"
    else:
        outcome.reason = f"the interval's lower end {score.low:.3f} misses the target {outcome.target:g}"
    if not goals.can_hold_out(outcome.goal):
        outcome.reason += "; the map is too small to keep the worlds of practice and proof apart"
    if attempt.state is None and outcome.verdict != "mastered" and folder.is_dir():
        files.remove(folder)
    outcome.agent = outcome.run.id if folder.is_dir() else attempt.parents[0]
    return outcome


def finish(outcome: Outcome) -> Outcome:
    """Close the run's books."""
    score = outcome.proof.score if outcome.proof else None
    scores = [] if score is None else [{"name": "proof", **score._asdict()}]
    outcome.run.update(scores=scores, notes=f"{outcome.verdict}: {outcome.reason}")
    outcome.run.finish("done", env_steps=outcome.account.env_steps, wall_s=outcome.account.seconds())
    return outcome


def shown(score: Interval) -> str:
    """A score as people read it."""
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
