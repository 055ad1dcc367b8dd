"""The main job: a goal goes in, an agent that reaches it comes out. Read downwards; each arrow is a function.

goal -> understand -> recall -> choose -> practise -> judge -> prove -> keep
                                  ^                     |
                                  +----- not yet -------+

What differs between goals in words and returns in environments is in their `Task`.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import jax

from rekindle.agents.registry import Loaded, export, load
from rekindle.core.budget import Budget
from rekindle.core.errors import CheckpointError, ConfigError, within
from rekindle.core.stats import Interval
from rekindle.envs.xland import goals
from rekindle.envs.xland.goals import Hide
from rekindle.library import files
from rekindle.library.artefact import save_policy
from rekindle.library.library import Library
from rekindle.library.manifest import Parent
from rekindle.library.records import Prior
from rekindle.library.run import Run
from rekindle.reincarnation.teachers.load import folder_of, is_foreign
from rekindle.strategies import returns, words
from rekindle.strategies.base import OVER, Account, Attempt, Estimate, Proof, Recalled, Situation, Strategy, Task
from rekindle.strategies.returns.task import Returned
from rekindle.strategies.words.task import Worded
from rekindle.train.loop import Progress

STRATEGIES: dict[type, tuple[Strategy, ...]] = {Worded: words.STRATEGIES, Returned: returns.STRATEGIES}
"""By the kind of goal."""

Verdict = Literal["mastered", "improved", "not_mastered", "impossible"]


@dataclass(frozen=True)
class Request:
    """What a person typed."""

    goal: str = ""
    rules: tuple[str, ...] = ()
    hide: Hide = "none"
    world: str = "f0"
    trials: int | None = None
    seed: int = 0
    budget: Budget = field(default_factory=lambda: Budget(seconds=300.0))
    target: float = 0.8
    source: str | None = None
    """Only this prior: an id in the library or the folder of a policy; for a return also a teacher from elsewhere,"""
    trust: bool = False
    """which may be loaded by its own library, which executes what is in its file,"""
    valued: bool = False
    """or whose numbers are action values; else they are logits."""
    reuse: bool = True
    """Whether anything from the library may be used."""
    log: tuple[str, ...] = ()
    """Trackers that the curves go to, too: `tensorboard`, `wandb`, `mlflow`."""
    env: str | None = None
    """Instead of words: an environment,"""
    reach: float | None = None
    """the mean undiscounted return of an episode that is wanted in it,"""
    pool: Mapping[str, Any] = field(default_factory=dict)
    """options of it,"""
    student: str | None = None
    """and who learns there from scratch, such as `mrq`; by default what fits."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        self._check_kind()
        if not 0.0 < self.target < 1.0:
            raise ConfigError(f"--target must lie between 0 and 1 (1 is the planner's best); got {self.target}.")
        within("--seed", self.seed, 0)
        if self.source is not None and not self.reuse:
            raise ConfigError("--from names a prior to use and --no-reuse forbids using any; leave one away.")
        self._check_teacher()

    def _check_kind(self) -> None:
        """A goal is either words or a return in an environment."""
        worded = {"--rule": self.rules, "--hide": self.hide != "none", "--world": self.world != "f0",
                  "--trials": self.trials is not None, "--target": self.target != 0.8}  # fmt: skip
        returned = {"--reach": self.reach is not None, "--pool": bool(self.pool), "--student": self.student is not None}
        if self.env is None and (which := next((option for option, given in returned.items() if given), None)):
            raise ConfigError(
                f"{which} is for a return in an environment; say in which, such as --env minatar/breakout."
            )
        if self.env is None and not self.goal.strip():
            raise ConfigError(
                'give a goal in words, such as "hold yellow sphere", or a return: --env minatar/breakout --reach 10.'
            )
        if self.env is not None and self.goal:
            raise ConfigError(f"a goal is either words or a return in an environment; got {self.goal!r:.80} and --env.")
        if self.env is not None and (self.reach is None or not math.isfinite(self.reach)):
            got = "none" if self.reach is None else f"{self.reach}"
            raise ConfigError(f"--env takes the return to reach beside it, a number, such as --reach 10; got {got}.")
        if self.env is not None and (strange := [option for option, given in worded.items() if given]):
            raise ConfigError(f"{strange[0]} belongs to a goal in words; leave it away with --env.")

    def _check_teacher(self) -> None:
        """How a teacher is read is said of one from elsewhere alone."""
        given = [option for option, on in (("--trust", self.trust), ("--valued", self.valued)) if on]
        source = self.source or ""
        if given and (self.env is None or not is_foreign(source) or folder_of(source) is not None):
            raise ConfigError(
                f"{given[0]} is for a teacher from elsewhere, a zip of Stable-Baselines3, an ONNX file or "
                "module:function; name it with --from, beside --env and --reach."
            )


@runtime_checkable
class Watcher(Protocol):
    """Who looks on."""

    def stage(self, name: str, text: str) -> None:
        """A stage begins or has something to say."""
        ...

    def progress(self, strategy: str, now: Progress) -> None:
        """Practice went on."""
        ...


@dataclass
class Outcome:
    """What came of it."""

    task: Task
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
            "goal": self.task.words,
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
            "parents": [parent.id for parent in self.attempt.parents] if self.attempt else [],
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
        request: the goal in words, or all that `rekindle master` takes.
        library: by default the user's own.
        watch: who is told how it goes; by default nobody.
        run: an interrupted run of this request, to go on with.

    Raises:
        GoalError, ConfigError: words or settings that cannot be used.
        KeyboardInterrupt: after Ctrl-C, when everything is saved.
    """
    request = Request(request) if isinstance(request, str) else request
    library, watch = library or Library.open(), watch or Silent()
    task = understand(request, library)
    watch.stage("understand", task.words)
    candidates = task.nominate(library, request.source) if request.reuse else []
    run = run or begin(request, task, library)
    ours = {run.id, *(event["child"] for event in run.decisions() if "child" in event)}
    candidates = [prior for prior in candidates if prior.id not in ours]
    with run.held():
        try:
            run.log_to(request.log)
            return pursue(request, task, candidates, library, run, watch)
        except KeyboardInterrupt:
            run.update(status="interrupted")
            raise KeyboardInterrupt(run.how_to_go_on()) from None
        except Exception as error:
            run.fail(str(error))
            raise


def pursue(request: Request, task: Task, candidates: list[Prior], library: Library, run: Run, watch: Watcher
           ) -> Outcome:  # fmt: skip
    """One strategy after the other, until a proof reaches the target, none is left or the budget is spent."""
    account = Account(request.budget, before_s=run.manifest.wall_s, env_steps=booked(run))
    outcome = Outcome(task, "not_mastered", "", task.target, account, run, [])
    if why := task.impossible():
        run.decide(choice="stop", reason=why)
        outcome.verdict, outcome.reason = "impossible", f"no behaviour reaches it: {why}"
        return finish(outcome)

    now = prepare(request, task, library, run, account, watch)
    now = replace(now, priors=[*recall(candidates, now, watch), *now.task.guests(now, watch.stage)])
    outcome.task, outcome.recalled = now.task, list(now.priors)
    now, given_up = pick_up(outcome, now, watch)
    while not outcome.is_mastered and (offers := choose(now, given_up, outcome)):
        (strategy, estimate), others = offers[0], offers[1:]
        left = account.left().seconds
        scarce = "" if left is None or estimate.seconds <= left else f"; {max(left, 0.0):.0f} s are left of the budget"
        watch.stage("choose", f"{strategy.name}: {estimate.reason}{scarce}")
        alternatives = [{"choice": s.name, **e._asdict()} for s, e in others]
        if not is_chosen(run, strategy.name):
            run.decide(choice=strategy.name, reason=estimate.reason, expected=estimate._asdict(),
                       alternatives=alternatives, env_steps=account.env_steps)  # fmt: skip
        attempt = strategy.carry_out(now)
        watch.stage("judge", f"{strategy.name}: {attempt.verdict}, validation {shown(attempt.score)}")
        run.decide(outcome=strategy.name, verdict=attempt.verdict, score=attempt.score._asdict(),
                   at_s=account.seconds(), env_steps=account.env_steps)  # fmt: skip
        run.update(env_steps=account.env_steps, wall_s=account.seconds())
        if attempt.verdict == "interrupted":
            raise KeyboardInterrupt
        proof = prove(now, attempt, len(outcome.tried), watch)
        if is_over := attempt.state is None or attempt.verdict in OVER:
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


def pick_up(outcome: Outcome, now: Situation[Any], watch: Watcher) -> tuple[Situation[Any], set[str]]:
    """Where an interrupted job stood: what was tried, the best policy so far with its proof, what was given up.

    The proof is played again as it was, and its steps count once.
    """
    earlier = [event for event in outcome.run.decisions() if "proved" in event]
    outcome.tried = [event["proved"] for event in earlier]
    given_up = {event["proved"] for event in earlier if event["given_up"]}
    folder = outcome.run.path / "policy"
    if not earlier or not folder.is_dir():
        return now, given_up
    loaded = load(folder, env_spec=now.task.spec)
    card: dict[str, Any] = dict(loaded.artefact.meta.card)
    number = int(card.get("proof", len(earlier) - 1))
    score = Interval(*(float(card[name]) for name in ("practice", "practice_low", "practice_high")))
    state = loaded.state_for(loaded.agent, jax.random.fold_in(now.key, 8)) if card["trained"] else None
    parents = tuple(outcome.run.manifest.parents)
    kept = Attempt(card["strategy"], loaded.agent, state, loaded.policy, score, "improving", parents, 0, [])
    if not earlier[-1]["given_up"]:
        now = replace(now, ongoing=kept._replace(strategy=earlier[-1]["proved"]))
    if number < len(earlier):  # otherwise its proof is not in the journal: it comes again, and is counted then
        spent = now.account.env_steps
        outcome.proof = prove(now, kept, number, watch)
        now.account.env_steps = spent
        outcome.attempt, outcome.strategy = kept, kept.strategy
    return now, given_up


def understand(request: Request, library: Library) -> Task:
    """Words to a task family, or an environment with a return; what is unknown is refused with the nearest known."""
    if request.env is not None and request.reach is not None:
        return Returned.of(request.env, dict(request.pool), request.reach, seed=request.seed, source=request.source,
                           trust=request.trust, valued=request.valued, student=request.student)  # fmt: skip
    goal = goals.parse(request.goal, request.rules, hide=request.hide, world=request.world, trials=request.trials)
    return Worded(goal, request.target, request.seed, library.folder / "planned")


def begin(request: Request, task: Task, library: Library) -> Run:
    """Open the run's folder: from here on nothing is lost."""
    config = {**asdict(request), "budget": str(request.budget)}
    name = task.text.replace(" ", "-").replace("(", "-").replace(")", "").replace(",", "")
    parents: list[Parent] = []
    if request.source is not None and not os.path.isdir(request.source) and not is_foreign(request.source):
        record = library.find(request.source)
        parents = [Parent(id=record.id, role="init", sha256=record.row.weights)]
    return Run.create(library, "master", name=name, config=config, seed=request.seed, env_id=task.env_id,
                      parents=parents)  # fmt: skip


def prepare(request: Request, task: Task, library: Library, run: Run, account: Account, watch: Watcher
            ) -> Situation[Any]:  # fmt: skip
    """What strategies look at, but for the priors."""
    now = Situation(task, task.target, (), jax.random.key(request.seed), run, library, account, watch.progress)
    return replace(now, task=task.prepared(now, watch.stage))


def recall(candidates: list[Prior], now: Situation[Any], watch: Watcher) -> list[Recalled]:
    """The candidates with evidence, best first: a kept answer to this goal, or their validation.

    The likeliest are asked first, the same weights only once, and no more once one passes.
    """
    answers = [prior for prior in candidates if now.task.is_answer(prior)]
    for best in sorted(answers, key=lambda p: (float(p.card["score"]), p.begun), reverse=True):
        if (loaded := usable(best, now, watch)) is not None:
            watch.stage("recall", f"{best.id} answered this goal before")
            length = float(best.card.get("episode_length", 0.0))
            return [Recalled(best.id, loaded.policy, loaded, best.card, None, None, answered=True, length=length)]
    recalled: list[Recalled] = []
    asked: set[str] = set()
    known = {event["recalled"]: event for event in now.run.decisions() if "recalled" in event}
    for stream, prior in enumerate(now.task.likeliest(candidates)):
        loaded = usable(prior, now, watch)
        if loaded is None or (weights := loaded.artefact.meta.weights.sha256) in asked:
            continue
        asked.add(weights)
        if (told := known.get(prior.id)) is not None and told["sha256"] == weights:
            first, last = Interval(**told["first"]), Interval(**told["last"])
            length = float(told.get("length", 0.0))
        else:
            asked_now = now.ask(loaded.policy, stream=1000 + stream)
            first, last, length = asked_now.trials[0], asked_now.trials[-1], asked_now.length
            now.run.decide(recalled=prior.id, sha256=weights, first=first._asdict(), last=last._asdict(),
                           length=length, env_steps=now.account.env_steps)  # fmt: skip
        watch.stage("recall", f"{prior.id}: {shown(last)}")
        recalled.append(Recalled(prior.id, loaded.policy, loaded, prior.card, first, last, answered=False,
                                 length=length))  # fmt: skip
        if last.low >= now.target:
            break
    return sorted(recalled, key=lambda r: r.last.value if r.last else 0.0, reverse=True)


def usable(prior: Prior, now: Situation[Any], watch: Watcher) -> Loaded | None:
    """The policy of a prior, or None if it is damaged or made for something else; that is said, and stops nothing."""
    try:
        return load(prior.path, env_spec=now.task.spec)
    except CheckpointError as error:
        watch.stage("recall", f"{prior.id} is left out: {error}")
        return None


def choose(now: Situation[Any], given_up: set[str], outcome: Outcome) -> list[tuple[Strategy, Estimate]]:
    """The strategies that still apply, what was begun and then cheapest first; none once the budget is spent."""
    if outcome.attempt is not None and now.account.is_spent():
        return []
    offers: list[tuple[Strategy, Estimate]] = []
    begun = under_way(now.run)
    for strategy in STRATEGIES[type(now.task)]:
        if strategy.name not in given_up and (estimate := strategy.estimate(now)) is not None:
            offers.append((strategy, estimate))
            if estimate.env_steps == 0 and begun in ("", strategy.name) and not now.task.is_priced(now):
                break  # what needs no practice is cheapest; others would have to practise to say what they cost
    return sorted(offers, key=lambda offer: (offer[0].name != begun, offer[1].seconds))


def under_way(run: Run) -> str:
    """The strategy that was chosen last, if no proof came after it or that one did not end it; else empty."""
    last = next((e for e in reversed(run.decisions()) if "proved" in e or "expected" in e), {})
    return str(last.get("choice") or ("" if last.get("given_up", True) else last["proved"]))


def is_chosen(run: Run, strategy: str) -> bool:
    """Whether an interrupted job was carrying out this one: its choice is in the journal, and no outcome of it."""
    told = [e for e in run.decisions() if "outcome" in e or "expected" in e]
    return bool(told) and "expected" in told[-1] and told[-1]["choice"] == strategy


def prove(now: Situation[Any], attempt: Attempt, number: int, watch: Watcher) -> Proof:
    """Fresh worlds, starts and random numbers, other ones for every attempt."""
    watch.stage("prove", "fresh episodes that practice did not have")
    key = jax.random.fold_in(jax.random.fold_in(now.key, 10_000 + number), hash_of(now.run.id))
    proof: Proof = now.task.prove(attempt, number, key)
    now.account.env_steps += proof.env_steps
    watch.stage("prove", f"{shown(proof.score)} over {proof.episodes} episodes")
    return proof


def hash_of(text: str) -> int:
    """A number from a text, the same in every process."""
    return int.from_bytes(text.encode()[-6:], "big") % (1 << 31)


def save(outcome: Outcome, now: Situation[Any]) -> None:
    """Policy, score card and lineage into the run's folder: the best so far is never lost."""
    assert outcome.proof is not None and outcome.attempt is not None
    score, attempt, run = outcome.proof.score, outcome.attempt, outcome.run
    run.update(parents=[parent.model_dump() for parent in attempt.parents])
    if attempt.state is None and now.priors[0].answered:
        return
    card = {
        "goal": outcome.task.words,
        "score": score.value,
        "score_low": score.low,
        "score_high": score.high,
        "episodes": outcome.proof.episodes,
        **outcome.task.card(outcome.proof),
        "practice": attempt.score.value,
        "practice_low": attempt.score.low,
        "practice_high": attempt.score.high,
        "strategy": outcome.strategy,
        "trained": attempt.state is not None,
        "proof": len(outcome.tried) - 1,
        "env_steps": outcome.account.env_steps,
    }
    facts = policy_facts(now) if attempt.state is None else export(attempt.agent, attempt.state, now.task.spec)
    save_policy(
        run.path / "policy",
        **facts,
        card=card,
        provenance={"run": run.id, "parents": [parent.id for parent in attempt.parents]},
    )


def policy_facts(now: Situation[Any]) -> dict[str, Any]:
    """The facts of a prior that was used as it is, to keep it as the answer to this goal too."""
    artefact = now.priors[0].own.artefact
    meta = artefact.meta
    return {"agent": meta.agent, "agent_version": meta.agent_version, "config": meta.config, "spec": meta.spec,
            "arrays": artefact.arrays}  # fmt: skip


def keep(outcome: Outcome, now: Situation[Any]) -> Outcome:
    """The verdict; a policy that was trained, or that masters the goal, stays in the library under this run."""
    assert outcome.proof is not None and outcome.attempt is not None
    score, attempt, folder = outcome.proof.score, outcome.attempt, outcome.run.path / "policy"
    before = max((r.last.high for r in now.priors if r.last is not None), default=None)
    best = max(
        (r for r in now.priors if r.last is not None), key=lambda r: r.last.value if r.last else 0.0, default=None
    )
    if outcome.is_mastered:
        outcome.verdict, outcome.reason = "mastered", f"the interval's lower end {score.low:.3f} reaches the target"
    elif before is not None and attempt.state is not None and score.low > before:
        outcome.verdict, outcome.reason = "improved", f"better than anything in the library before ({before:.3f})"
    else:
        outcome.reason = f"the interval's lower end {score.low:.3f} misses the target {outcome.target:g}"
        if best is not None and best.last is not None and best.last.low > score.high:
            outcome.reason += f"; {best.id}, which was there before, is better ({shown(best.last)})"
    if outcome.task.caveat:
        outcome.reason += f"; {outcome.task.caveat}"
    if attempt.state is None and outcome.verdict != "mastered" and folder.is_dir():
        files.remove(folder)
    outcome.agent = outcome.run.id if folder.is_dir() else attempt.parents[0].id
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
