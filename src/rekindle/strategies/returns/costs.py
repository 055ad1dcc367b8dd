"""What practice costs in an environment: as the library's runs measured it, else as a short calibration does."""

from typing import Any, NamedTuple

import jax
import numpy as np

from rekindle.agents.registry import config_from_json, make_agent
from rekindle.core.budget import Budget
from rekindle.library import files
from rekindle.library.library import Library
from rekindle.library.records import Record
from rekindle.library.verify import DECISIONS, METRICS, read_metrics
from rekindle.strategies.base import Say, Situation
from rekindle.train import session
from rekindle.train.forecast import RATE, typical_rate
from rekindle.train.loop import Plan, Progress, train
from rekindle.train.order import AnyMade, Order

WORK = ("network", "width", "hidden", "state_width", "batch", "num_envs", "update_period")
"""Settings of a student that decide what a step costs."""
LOOKED_AT = 20
"""The newest runs in the environment, among which one that measured is looked for."""
MOST_WARMUP = 1_000
"""Of the calibration: more makes no step dearer."""
CALIBRATION_STEPS = 500
"""Of a chunk of the calibration; the last of four, without any compilation, is what counts."""
USUAL_STEPS = {"mrq": 100_000}
MANY_STEPS = 1_000_000
"""What it takes from scratch where nothing was ever learnt before: of MR.Q, and of others in games like MinAtar's."""
MEASURED = f"measured over {CALIBRATION_STEPS} steps"
START_S = 15.0
"""Compilation, and looking round."""


class Costs(NamedTuple):
    """Of practice, each with where it is from."""

    steps_per_s: float
    """Of a fresh student that acts and learns."""
    rate_from: str
    scratch_steps: int
    """From nothing to the target."""
    steps_from: str

    def seconds(self, steps: float) -> float:
        """Wall time of so many steps."""
        return START_S + steps / self.steps_per_s

    @property
    def rate(self) -> str:
        """In words."""
        return f"at {self.steps_per_s:,.0f} steps/s, {self.rate_from}"


def costs(order: Order, made: AnyMade, target: float, now: Situation[Any], say: Say) -> Costs:
    """By the newest runs of the same student in the same world on the same device; a calibration is booked."""
    told = noted(now)
    if told is not None:
        return told
    found = looked_up(order, target, now)
    if found.steps_per_s <= 0:
        say("plan", "how fast practice is here")
        rate, spent = calibrated(order, made, now)
        now.account.env_steps += spent
        found = found._replace(steps_per_s=rate, rate_from=MEASURED)
    now.run.decide(costs=found._asdict(), env_steps=now.account.env_steps)
    return found


def are_known(order: Order, target: float, now: Situation[Any]) -> bool:
    """Whether `costs` can tell without practising."""
    return noted(now) is not None or looked_up(order, target, now).steps_per_s > 0


def noted(now: Situation[Any]) -> Costs | None:
    """As the job's journal has them."""
    told = next((event["costs"] for event in now.run.decisions() if "costs" in event), None)
    return None if told is None else Costs(**told)


def looked_up(order: Order, target: float, now: Situation[Any]) -> Costs:
    """As the library has them; no steps per second where no run of it measured any."""
    seen = [(record.id, rows_of(record)) for record in like(order, now.library, now.run.manifest.device)]
    rates = {id: rate for id, rows in seen if (rate := typical_rate(rows)) is not None}
    reached = {id: first for id, rows in seen if (first := steps_to(target, rows)) is not None}
    usual = (usual_steps(order.agent), "as is usual")
    steps, steps_from = next(((n, f"as {id} took") for id, n in reached.items()), usual)
    known = [*rates.items(), *earlier(order, now.library, now.run.manifest.device)]
    id, rate = known[0] if known else ("", 0.0)
    return Costs(rate, f"as {id} measured", steps, steps_from)


def usual_steps(agent: str) -> int:
    """From scratch."""
    return USUAL_STEPS.get(agent, MANY_STEPS)


def like(order: Order, library: Library, device: str) -> list[Record]:
    """The newest trainings of the same student, without a teacher."""
    runs = here(order, library.runs(kind="train", env_id=order.env, status="done", limit=LOOKED_AT), device)
    own = [run for run in runs if run.manifest.config.get("agent") == order.agent and as_large(run, order)]
    return [run for run in own if run.manifest.config.get("teacher") is None]


def as_large(run: Record, order: Order) -> bool:
    """Whether a step took the same work."""
    theirs = run.manifest.config.get("settings")
    return isinstance(theirs, dict) and all(theirs.get(name) == order.settings.get(name) for name in WORK)


def earlier(order: Order, library: Library, device: str) -> list[tuple[str, float]]:
    """What the newest jobs calibrated, each with its id."""
    jobs = here(order, library.runs(kind="master", env_id=order.env, limit=LOOKED_AT), device)
    events = [(job.id, event["costs"]) for job in jobs for event in files.read_lines(job.fetch(DECISIONS))
              if "costs" in event]  # fmt: skip
    return [(id, float(told["steps_per_s"])) for id, told in events if told["rate_from"] == MEASURED]


def here(order: Order, runs: list[Record], device: str) -> list[Record]:
    """Those in the same world, with the same options, on the same device."""
    same = (order.pool, device)
    return [run for run in runs if (run.manifest.config.get("pool"), run.manifest.device) == same]


def rows_of(record: Record) -> list[dict[str, Any]]:
    """Its curves; none where they cannot be read."""
    path = record.fetch(METRICS)
    return read_metrics(path) if path.is_file() else []


def steps_to(target: float, rows: list[dict[str, Any]]) -> int | None:
    """After how many steps a curve reached a return, by its evaluations or else by the episodes of training."""
    evaluated = any("score/low" in row for row in rows)
    name = "score/low" if evaluated else "episode/return"
    return next((int(row["env_steps"]) for row in rows if float(row.get(name, -np.inf)) >= target), None)


def calibrated(order: Order, made: AnyMade, now: Situation[Any]) -> tuple[float, int]:
    """Steps per second of a few chunks, and how many steps they were; nothing of it is kept.

    Raises:
        KeyboardInterrupt: Ctrl-C came.
    """
    warmup = {"warmup": min(int(order.settings["warmup"]), MOST_WARMUP)}
    agent = make_agent(order.agent, config_from_json(order.agent, order.settings | warmup))
    steps = agent.needs.warmup + 3 * CALIBRATION_STEPS
    engine = session.from_replay(order, made, agent, steps=steps)
    rates: list[float] = []

    def note(progress: Progress) -> None:
        rates.append(progress.metrics[RATE])

    plan = Plan(Budget(env_steps=steps), chunk_updates=max(CALIBRATION_STEPS // engine.steps_per_update, 1))
    trained = train(engine, jax.random.fold_in(now.key, 51), plan, show=note)
    if trained.status == "interrupted":
        raise KeyboardInterrupt
    return rates[-1], trained.env_steps
