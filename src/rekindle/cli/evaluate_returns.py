"""`rekindle evaluate AGENT --env ID`: the mean return of whole episodes, beside what acting at random comes to."""

from typing import Any

import jax
import numpy as np
from rich.table import Table

from rekindle.agents.registry import Loaded, incompatible
from rekindle.cli import io as cli
from rekindle.cli.live import Live
from rekindle.core.errors import ConfigError
from rekindle.core.stats import Interval, bootstrap
from rekindle.envs import registry
from rekindle.evaluate.policies import as_evaluated, random_policy, samples
from rekindle.evaluate.returns import Episodes, whole_episodes
from rekindle.evaluate.rollout import evaluation_key
from rekindle.library.run import Run
from rekindle.train.order import AnyMade

NAMES = {"agent": "return", "random": "return of acting at random"}


def refuse_other(loaded: Loaded, agent: str, made: AnyMade) -> None:
    """ConfigError where the agent cannot act there."""
    if made.spec.players != 1:
        raise ConfigError(f"{made.spec.id} has {made.spec.players} players; --env takes worlds for one.")
    if reason := incompatible(loaded.spec, made.spec):
        raise ConfigError(f"{agent} cannot act in {made.spec.id}: {reason}.")


def carry_out(run: Run, loaded: Loaded, env: str, number: int, seed: int, live: Live, *, json: bool) -> None:
    """Play, show, and keep the returns of every episode in the run."""
    pool: Any = run.manifest.config["pool"]
    made = registry.world(env, **pool)
    explores = samples(loaded.agent)
    policies = {"agent": loaded.policy if explores else as_evaluated(loaded.policy, made.spec.action),
                "random": random_policy(made.spec.action)}  # fmt: skip
    played: dict[str, Episodes] = {}
    for stream, (name, policy) in enumerate(policies.items()):
        live.stage("roll out", f"{name}, {number} episodes of {made.spec.id} or a few more")
        key = jax.random.fold_in(evaluation_key(seed), stream)
        played[name] = whole_episodes(made, policy, key, number=number, seed=seed, explore=explores)
    found = {name: bootstrap(one.returns[None]) for name, one in played.items()}
    env_steps = sum(one.env_steps for one in played.values())
    run.save_checkpoint(env_steps, {f"{name}/{what}": np.asarray(getattr(one, what)) for name, one in played.items()
                                    for what in ("returns", "lengths")}, {})  # fmt: skip
    run.update(scores=[{"name": NAMES[name], **score._asdict(), "episodes": len(played[name].returns)}
                       for name, score in found.items()])  # fmt: skip
    run.finish("done", env_steps=env_steps)
    show(played, found, made.spec.id)
    live.stage("done", run.location)
    if json:
        rows = {name: {**score._asdict(), "sd": float(np.std(played[name].returns)),
                       "median": float(np.median(played[name].returns)),
                       "mean_length": float(np.mean(played[name].lengths)),
                       "episodes": len(played[name].returns)} for name, score in found.items()}  # fmt: skip
        cli.emit_json({"run": run.id, "env": made.spec.id, "pool": pool, **rows, "env_steps": env_steps,
                       "path": run.location})  # fmt: skip


def show(played: dict[str, Episodes], found: dict[str, Interval], env: str) -> None:
    """The table."""
    table = Table(title=f"{env}: undiscounted return of {len(played['agent'].returns)} episodes")
    for column in ("policy", "mean", "95 % interval", "median", "lowest", "highest", "mean length"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, one in played.items():
        score, returns = found[name], one.returns
        numbers = (score.value, np.median(returns), returns.min(), returns.max())
        mean, median, lowest, highest = (f"{number:,.4g}" for number in numbers)
        table.add_row(name, mean, f"{score.low:,.4g} to {score.high:,.4g}", median, lowest, highest,
                      f"{np.mean(one.lengths):,.0f}")  # fmt: skip
    cli.console().print(table)
