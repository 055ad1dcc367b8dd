from types import SimpleNamespace

import numpy as np
import pytest
from benchmarks.mrq import __main__ as study
from benchmarks.mrq import ablations, aggregates, peers, published, reuse, speed
from benchmarks.peers.host_env import HostEnv

from rekindle.agents.mrq import mrq
from rekindle.agents.registry import config_to_json
from rekindle.core.stats import pooled_interquartile_mean
from rekindle.envs import registry


@pytest.mark.parametrize(
    ("part", "agent", "mean", "median", "middle"),
    [
        ("gym", "MR.Q", 1.46, 1.53, 1.50),
        ("gym", "TD7", 1.57, 1.55, 1.54),
        ("gym", "TD-MPC2", 1.04, 1.18, 1.05),
        ("gym", "DreamerV3", 0.76, 0.81, 0.72),
        ("gym", "PPO", 0.45, 0.41, 0.41),
        ("dmc", "MR.Q", 0.835, 0.927, 0.907),
        ("dmc", "TD-MPC2", 0.783, 0.896, 0.868),
        ("dmc", "TD7", 0.566, 0.613, 0.612),
        ("dmc", "DreamerV3", 0.530, 0.700, 0.577),
        ("dmc", "PPO", 0.254, 0.127, 0.154),
        ("dmc-visual", "MR.Q", 0.602, 0.813, 0.692),
        ("dmc-visual", "DrQ-v2", 0.510, 0.626, 0.545),
        ("dmc-visual", "TD-MPC2", 0.492, 0.572, 0.501),
        ("dmc-visual", "DreamerV3", 0.463, 0.493, 0.452),
        ("dmc-visual", "PPO", 0.110, 0.049, 0.058),
        ("atari", "MR.Q", 2.54, 0.96, 0.90),
        ("atari", "DreamerV3", 3.74, 1.25, 1.46),
        ("atari", "Rainbow", 1.08, 0.40, 0.61),
        ("atari", "DQN", 0.25, 0.12, 0.17),
        ("atari", "PPO", -0.09, 0.01, 0.02),
    ],
)
def test_the_final_scores_come_to_the_published_aggregates(part, agent, mean, median, middle):
    rows = published.finals(part).values()
    scores = np.array([published.normalised(part, row["task"], row[agent]) for row in rows if row[agent] is not None])
    cut = {"gym": 0.006, "dmc": 0.001, "dmc-visual": 0.001, "atari": 0.035}[part]  # what cutting digits costs
    found = scores.mean(), np.median(scores), pooled_interquartile_mean(scores)
    np.testing.assert_allclose(found, (mean, median, middle), atol=cut)


@pytest.mark.parametrize(("steps", "score"), [(50_000, 0.29), (100_000, 0.61), (200_000, 0.82), (500_000, 1.23)])
def test_the_curves_of_gymnasium_come_to_the_published_aggregates(steps, score):
    known = aggregates.known("gym", dict.fromkeys(published.finals("gym"), steps))
    assert known is not None and known.mean() == pytest.approx(score, abs=0.006)


@pytest.mark.parametrize(
    ("task", "steps", "one", "three"),
    [
        ("HalfCheetah-v4", 20_000, 900, 1400),
        ("HalfCheetah-v4", 25_000, 1225, 1880),
        ("dmc/cartpole-balance", 20_000, 780, 842),
        ("dmc/cartpole-balance_sparse", 20_000, 950, 980),
        ("dmc/walker-stand", 30_000, 750, 812),
        ("HalfCheetah-v4", 100_000, None, 6270),
        ("dmc/walker-stand-visual", 100_000, 945, 945),
        ("ALE/Pong-v5", 100_000, None, -13.7),
        ("ALE/Pong-v5", 500_000, None, None),
    ],
)
def test_gates(task, steps, one, three):
    milestone = next(known for known in published.MILESTONES[task] if known.steps == steps)
    for seeds, least in ((1, one), (3, three)):
        assert milestone.gate(seeds) == (None if least is None else pytest.approx(least, rel=5e-3))


def test_every_milestone_lies_between_its_worst_and_its_best_seed():
    for milestones in published.MILESTONES.values():
        assert [one.steps for one in milestones] == sorted({one.steps for one in milestones})
        for one in milestones:
            assert (one.low is None or one.low <= one.mean) and (one.high is None or one.mean <= one.high)


def test_every_task_of_a_preset_has_a_published_curve_and_a_final_score():
    for preset in study.PRESETS.values():
        for part, (_, tasks) in preset.full.items():
            assert tasks.keys() <= published.MILESTONES.keys() & published.finals(part).keys()


def test_what_a_processor_trains_is_judged_at_its_end():
    for _, tasks in study.PRESETS["cpu"].full.values():
        for task, steps in tasks.items():
            assert [one.steps for one in published.MILESTONES[task] if one.gate(1) and one.steps <= steps] == [steps]


def test_an_accelerator_trains_for_every_gate_that_is_stated():
    trained = {task: steps for _, tasks in study.PRESETS["gpu"].full.values() for task, steps in tasks.items()}
    left = {row["task"] for row in published.table("gates") if trained.get(row["task"], 0) < row["steps"]}
    assert left == {"dmc/cartpole-balance_sparse"}


def test_aggregates_are_normalised_and_stand_beside_the_published_ones():
    found = {"dmc/cartpole-balance": (900, 800), "dmc/walker-stand": (500, 600)}
    cells = {task: [{"curve": [{"steps": 25_000, "return": score}]} for score in of] for task, of in found.items()}
    mean, middle = aggregates.rows("dmc", cells)
    assert mean["score"] == pytest.approx(0.7) and mean["score_low"] < 0.7 < mean["score_high"]
    assert mean["published, same tasks and steps"] == pytest.approx((980 + 745) / 2000)
    assert middle["score"] == pytest.approx(0.7)  # of 0.5, 0.6, 0.8, 0.9
    alone = aggregates.rows("dmc", {task: of[:1] for task, of in cells.items()})[0]
    assert alone["score_low"] is None and alone["score"] == pytest.approx(0.7)


def test_rows_of_curves_show_what_was_published_at_those_steps():
    cell = {"curve": [{"steps": steps, "return": 100.0} for steps in (10_000, 15_000, 20_000)]}
    shown = [(row["published"], row["published_low"], row["published_high"], row["its sd over seeds"])
             for row in study.rows({"HalfCheetah-v4": [cell]})]  # fmt: skip
    assert shown == [(None, None, None, None), (902, 294, 1412, None), (2237, 1426, 3148, 636)]


def test_one_seed_has_no_interval():
    cells = [{"curve": [{"steps": 20_000, "return": score}]} for score in (1.0, 3.0)]
    ends = [(row["return_low"], row["return_high"]) for n in (1, 2) for row in study.rows({"any": cells[:n]})]
    assert ends == [(None, None), (1.0, 3.0)]


def test_the_last_evaluation_of_every_seed_is_shown():
    cells = [{"curve": [{"steps": 0, "return": 0.0}, {"steps": 9, "return": score}]} for score in (1.0, 3.0)]
    assert study.lasts({"any": cells}) == [{"task": "any", "seed 0": 1.0, "seed 1": 3.0}]


def test_the_design_study_shows_the_first_seeds_and_is_judged_by_all(monkeypatch):
    """One whole agent of the first three is poor, so that they do not tell; eight do."""
    whole, without = [2500, 2100, 900, 2300, 2200, 2400, 2100, 2300], [1700, 1400, 1300, 1000, 1200, 1100, 1000, 1300]

    def cell(study, variant, task, settings, steps, seed):
        if task == ablations.SWINGUP:
            return {"return": 800.0 + seed if variant == "whole" else 100.0}
        return {"return": float((whole if variant in ("whole", "no_model") else without)[seed])}

    monkeypatch.setattr(ablations, "cell", cell)
    tables, bars, number = ablations.run(SimpleNamespace(preset="cpu"), {}, 50_000, 3)  # pyright: ignore[reportArgumentType]
    lines = [(row["without"], row["seeds"], row["difference"]) for row in tables["scores"]]
    assert lines[:4] == [("linear_value", "0 to 2", pytest.approx(-701.0)), ("no_model", "0 to 2", 0.0),
                         ("no_model", "3 to 7", 0.0), ("no_model", "0 to 7", 0.0)]  # fmt: skip
    assert lines[4:] == [("one_step", "0 to 2", pytest.approx(-1100 / 3)), ("one_step", "3 to 7", pytest.approx(-1140)),
                         ("one_step", "0 to 7", pytest.approx(-850))]  # fmt: skip
    assert tables["scores"][4]["difference_high"] > 0
    assert [(bar.name, bar.ok) for bar in bars] == [("ablation.linear_value", True), ("ablation.no_model", False),
                                                    ("ablation.one_step", True)]  # fmt: skip
    assert number == 8


def test_what_a_training_took_is_counted_with_its_evaluations():
    cells = [{"curve": [{"steps": 20_000, "return": 0.0}], "wall_s": wall} for wall in (3_000.0, 5_000.0)]
    assert study.costs({"any": cells}) == [{"task": "any", "steps": 20_000, "wall_s": 4_000.0, "steps/s": 5.0}]


def test_both_protocols_of_discrete_actions_are_reported():
    cells = [{"curve": [{"steps": 9, "return": drawn}], "greedily": best} for drawn, best in ((1.0, 2.0), (3.0, 8.0))]
    wanted = {"task": "ALE/Pong-v5", "drawn, as published": 2.0, "greedy": 5.0, "seeds": 2}
    assert study.protocols({"ALE/Pong-v5": cells}) == [wanted]


def test_operations_are_those_that_were_counted():
    """Full size: 11.5 and 8.4 GFLOP, the reduced agent 0.70, of layers with 17 numbers to see."""
    full, small = (speed.operations(config_to_json(mrq.Config(**more))) for more in ({}, mrq.PRESETS["small"]))
    assert full == pytest.approx(19.9e9, rel=0.02) and small == pytest.approx(0.70e9, rel=0.1)


def test_evaluations_are_timed_by_the_chunks_before_them():
    rows = [{"env_steps": 0, "score/return": 1.0}, {"env_steps": 100, "time/env_steps_per_s": 50.0},
            {"env_steps": 200, "time/env_steps_per_s": 10.0, "score/return": 5.0},
            {"env_steps": 300, "time/env_steps_per_s": 100.0, "score/return": 7.0}]  # fmt: skip
    assert peers.timed(rows) == [{"steps": 200, "seconds": 12.0, "return": 5.0},
                                 {"steps": 300, "seconds": 13.0, "return": 7.0}]  # fmt: skip


def test_a_return_that_a_seed_does_not_reach_is_said():
    def cell(*returns):
        curve = [{"steps": 10 * n, "seconds": 2.0 * n, "return": r} for n, r in enumerate(returns, start=1)]
        return {"curve": curve, "cores": 1}

    size = peers.Size(steps=30, every=10, seeds=2)
    both = peers.line("dmc/cartpole-swingup", "mrq", [cell(0, 700, 0), cell(0, 0, 800)], size)
    assert (both["seconds"], both["steps"], both["note"]) == (5.0, 25.0, "")
    one = peers.line("dmc/cartpole-swingup", "mrq", [cell(0, 0, 0), cell(0, 0, 800)], size)
    assert one["seconds"] is None and one["note"] == "not reached within 30 steps by 1 of 2"
    assert peers.line("dmc/cartpole-swingup", "sb3-sac", [], size)["note"] == peers.MISSING


def test_curves_of_peers_are_means_over_seeds_and_ours_stand_beside_what_was_published():
    curve = [{"steps": 15_000, "seconds": 4.0, "return": 100.0}]
    other = [{"steps": 15_000, "seconds": 8.0, "return": 300.0}]
    found = {"HalfCheetah-v4": {"sb3-td3": [{"curve": curve}], "mrq": [{"curve": curve}, {"curve": other}]}}
    rows = [tuple(row.values()) for row in peers.curves(found | {"dmc/any": {"sb3-sac": []}})]
    assert rows == [("HalfCheetah-v4", "sb3-td3", 15_000, 100.0, 4.0, None),
                    ("HalfCheetah-v4", "mrq", 15_000, 200.0, 6.0, 902)]  # fmt: skip


def test_others_see_the_world_that_ours_do():
    made = registry.host("gymnasium/Pendulum-v1")
    ours, theirs = made.open(1), HostEnv(made.open(1), seed=7)
    first, action = ours.reset(7)["obs"][0], np.full(1, 0.5, np.float32)
    np.testing.assert_array_equal(theirs.reset()[0], first)
    for _ in range(200):
        step, (obs, reward, terminated, truncated, _) = ours.step(action[None]), theirs.step(action)
        np.testing.assert_array_equal(obs, step.final_obs["obs"][0])
        assert (reward, terminated, truncated) == (step.reward[0], step.terminated[0], step.truncated[0])
    assert truncated
    np.testing.assert_array_equal(theirs.reset()[0], step.obs["obs"][0])
    theirs.step(action)
    assert not np.array_equal(theirs.reset()[0], first)  # in the midst of an episode: another one
    np.testing.assert_array_equal(theirs.reset(seed=7)[0], first)


def test_reuse_is_counted_on_the_grid_of_the_curves_from_scratch():
    curve = [{"steps": 2_000 * n, "return": 100.0 * n} for n in range(1, 6)]
    assert [reuse.first_at(curve, goal, 5_000) for goal in (100, 300, 500, 501)] == [5_000, 10_000, 10_000, None]
    kept = reuse.judged([30_000, 40_000, None], [10_000, 10_000, 15_000], 50_000)
    assert kept.ok and kept.value == pytest.approx((1 / 3 + 1 / 4 + 0.3) / 3)
    assert not reuse.judged([15_000, 15_000, 15_000], [10_000, 10_000, 10_000], 50_000).ok
    assert not reuse.judged([30_000, 30_000, 30_000], [5_000, None, 5_000], 50_000).ok
