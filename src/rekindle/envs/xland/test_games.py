from dataclasses import replace

import numpy as np
import pytest

from rekindle.envs.xland import games, planner, pools, presets
from rekindle.envs.xland.games import C2, C2_F1, F0, F1, FULL, sample_game
from rekindle.envs.xland.level import FORWARD, HOLD, ME, NEAR, PARTNER, PICK
from rekindle.envs.xland.worlds import sample_world

N = 3000


def draw(recipe, n=N, seed=0):
    rng = np.random.default_rng(seed)
    return [sample_game(rng, recipe) for _ in range(n)]


def assert_uniform(values, low, high, expected=None):
    """Within 3.5 standard deviations in every cell: about one false alarm in 2,000 per cell, on a fixed seed none."""
    counts = np.bincount(values, minlength=high + 1)
    assert counts[:low].sum() == 0 and len(counts) == high + 1
    share = 1 / (high - low + 1)
    assert np.abs(counts[low:] - len(values) * share).max() < 3.5 * np.sqrt(len(values) * share * (1 - share))


@pytest.mark.parametrize("recipe", [F0, F1, FULL, C2, C2_F1], ids=["f0", "f1", "full", "c2", "c2-f1"])
def test_lengths_distractors_and_dead_ends_are_uniform(recipe):
    drawn = draw(recipe)
    assert_uniform([len(d.chain) for d in drawn], *recipe.chain)
    assert_uniform([d.dead_ends for d in drawn], *recipe.dead_ends)
    whole = [d.distractors for d in drawn if len(d.chain) < 4]
    assert_uniform(whole, *recipe.distractors)
    goals = np.bincount([d.game.goal[1] for d in drawn], minlength=5)[list(recipe.relations)] / N
    assert np.abs(goals - 1 / len(goals)).max() < 3.5 * np.sqrt(0.25 / N)


def test_firing_the_chain_in_order_yields_the_goal_objects():
    for drawn in draw(FULL, 500):
        have = drawn.game.objects[drawn.game.objects > 0].tolist()
        for row in drawn.chain:
            rule = drawn.game.rules[row].tolist()
            for kind in rule[2:4]:
                if kind != ME:
                    have.remove(kind)
            have += [kind for kind in rule[4:] if kind]
        assert set(drawn.game.goal[2:].tolist()) - {ME} <= set(have)


def test_distractors_occur_neither_in_the_chain_nor_in_the_goal_and_dead_ends_leave_only_such():
    for drawn in draw(FULL, 500):
        rules = drawn.game.rules[drawn.game.rules[:, 1] > 0]
        chain = rules[list(drawn.chain)]
        critical = set(chain[:, 2:].ravel().tolist()) | set(drawn.game.goal[2:].tolist())
        needed = sum(kind in critical for kind in drawn.game.objects.tolist() if kind)
        assert (drawn.game.objects > 0).sum() == needed + drawn.distractors
        for row in set(range(len(rules))) - set(drawn.chain):
            assert not set(rules[row, 4:].tolist()) & (critical - {0})


def test_the_three_ways_of_hiding_are_equally_likely_and_hide_half():
    masks, used = zip(*((d.game.mask, d.game.rules[:, 1] > 0) for d in draw(FULL)), strict=True)
    share = 1 / 3
    for columns in (slice(0, 1), slice(1, 2), slice(2, 7)):
        possible = np.array([(mask[:, columns] > 0).any() for mask in masks])
        assert share * 0.5 < possible.mean() < share + 3 * np.sqrt(share * (1 - share) / N)
    assert sum((mask[:, :1] > 0).any() & (mask[:, 1:] > 0).any() for mask in masks) == 0
    one_rule = [mask[0, 0] for mask, is_used in zip(masks, used, strict=True) if is_used.sum() == 1]
    expected = 1 / 6
    assert abs(np.mean(one_rule) - expected) < 3.5 * np.sqrt(expected * (1 - expected) / len(one_rule))


def test_a_hidden_thing_has_one_number_in_all_rules():
    for drawn in draw(FULL, 500):
        rules, mask = drawn.game.rules, drawn.game.mask
        things = {(int(kind), int(n)) for kind, n in zip(rules[:, 2:].ravel(), mask[:, 2:].ravel(), strict=True) if n}
        assert len(things) == len({kind for kind, _ in things}) == len({n for _, n in things})
        assert {n for _, n in things} == set(range(1, len(things) + 1)) and not {ME, 0} & {kind for kind, _ in things}


def test_frozen_things_need_not_move():
    frozen = 0
    for drawn in draw(replace(FULL, frozen_games=1.0, frozen_types=0.5), 500):
        rules = drawn.game.rules[list(drawn.chain)]
        kinds = set(drawn.game.objects[drawn.game.frozen].tolist())
        frozen += len(kinds)
        for relation, a, b in [drawn.game.goal[1:].tolist(), *rules[:, 1:4].tolist()]:
            assert not (relation == HOLD and b in kinds) and not {a, b} <= kinds
    assert frozen > 500
    assert not any(drawn.game.frozen.any() for drawn in draw(FULL, 50))


TWO = replace(FULL, players=2, frozen_games=0.5)


def test_two_players_share_a_game_of_one():
    """With every reference turned back, it is a game that one player's chain solves."""
    named = []
    for drawn in draw(TWO, 1000):
        game = drawn.game
        conditions = np.concatenate([game.goal[None, 2:], game.rules[:, 2:4]])
        named += conditions[conditions >= ME].tolist()
        assert not (game.rules[:, 4:] >= ME).any() and game.mask.shape == (2, 16, 7)
        have = game.objects[game.objects > 0].tolist()
        for rule in game.rules[list(drawn.chain)].tolist():
            for kind in rule[2:4]:
                if kind < ME:
                    have.remove(kind)
            have += [kind for kind in rule[4:] if kind]
        assert set(game.goal[2:].tolist()) - {ME, PARTNER} <= set(have)
    share = np.mean(np.asarray(named) == PARTNER)
    assert len(named) > 1500 and abs(share - 0.5) < 3.5 * np.sqrt(0.25 / len(named))


def test_each_of_two_players_is_told_by_a_mask_drawn_for_it():
    masks = [d.game.mask[:, 0, 0] for d in draw(TWO, 4 * N) if (d.game.rules[:, 1] > 0).sum() == 1]
    hidden, n = np.asarray(masks) > 0, len(masks)
    for share, seen in ((1 / 6, hidden[:, 0]), (1 / 6, hidden[:, 1]), (1 / 36, hidden.all(axis=1))):
        assert abs(seen.mean() - share) < 3.5 * np.sqrt(share * (1 - share) / n)
    for drawn in draw(TWO, 200):
        assert not drawn.game.mask[:, drawn.game.rules[:, 1] == 0].any()
        assert not drawn.game.mask[:, drawn.game.rules >= ME].any(), "players are never hidden"


def test_half_of_the_games_for_two_freeze_a_fifth_of_the_types():
    drawn = [d for d in draw(C2, 2 * N) if d.distractors]
    frozen = []
    for d in drawn:
        critical = {*d.game.goal[2:].tolist(), *d.game.rules[list(d.chain), 2:].ravel().tolist()}
        slot = next(i for i, kind in enumerate(d.game.objects.tolist()) if kind and kind not in critical)
        frozen.append(bool(d.game.frozen[slot]))
    share = 0.5 * 0.2
    assert abs(np.mean(frozen) - share) < 3.5 * np.sqrt(share * (1 - share) / len(frozen))


def test_the_split_does_not_depend_on_the_seats():
    for drawn in draw(TWO, 50):
        seats = [np.where(codes >= ME, ME + PARTNER - codes, codes) for codes in (drawn.game.goal, drawn.game.rules)]
        other = drawn.game._replace(goal=seats[0], rules=seats[1])
        assert games.canonical(drawn.game) == games.canonical(other)
    alone = draw(FULL, 1)[0].game
    assert games.canonical(alone._replace(mask=np.stack([alone.mask] * 2))) == games.canonical(alone)


def test_the_split_does_not_depend_on_the_order_of_rules_or_arguments():
    game = draw(FULL, 1)[0].game
    swapped = game.rules[::-1].copy()
    swapped[:, [2, 3]] = swapped[:, [3, 2]]
    assert games.canonical(game) == games.canonical(game._replace(rules=swapped))
    assert games.canonical(game) != games.canonical(game._replace(goal=game.goal ^ np.int8([1, 0, 0, 0])))
    sides = [games.split_of(games.canonical(d.game)) for d in draw(FULL, 1000)]
    share = 1 / games.TEST_SHARE
    assert abs(np.mean([s == "test" for s in sides]) - share) < 3.5 * np.sqrt(share * (1 - share) / 1000)


def pool_of(recipe, n, seed):
    rng = np.random.default_rng(seed)
    drawn = [sample_game(rng, recipe) for _ in range(n)]
    worlds = [sample_world(rng, "R1", 7, max_objects=12) for _ in range(n)]
    pairs = np.stack([np.arange(n)] * 2, axis=1)
    pool = pools.make_pool(worlds, [d.game for d in drawn], trial_length=20, pairs=pairs, random_heading=0.0)
    return drawn, pool._replace(trial_length=np.full(n, 20, np.int16))


def test_chains_can_be_solved_and_few_are_blocked_by_geometry():
    """The search proves it; what remains is in corners, or in each other's way."""
    alone = replace(F0, chain=(1, 1), dead_ends=(0, 0), distractors=(0, 0))
    plans = planner.plan_many(presets.SMALL, pool_of(alone, 64, seed=0)[1], max_states=30_000)
    blocked = np.mean([not found.solvable for found in plans if found.exact])
    assert blocked <= 0.02, f"{blocked:.0%} of the chains are blocked by geometry"


def test_chains_for_two_can_be_solved_by_two():
    """Joint search in the smallest room."""
    recipe = replace(C2, chain=(1, 1), dead_ends=(0, 0), distractors=(0, 0), frozen_games=0.0, max_objects=5)
    rng = np.random.default_rng(0)
    drawn = [sample_game(rng, recipe).game for _ in range(12)]
    worlds = [sample_world(rng, "R1", 5, max_objects=5, players=2) for _ in drawn]
    pairs = np.stack([np.arange(12)] * 2, axis=1)
    pool = pools.make_pool(worlds, drawn, trial_length=20, pairs=pairs, random_heading=0.0)
    plans = planner.plan_many(presets.PAIR, pool, max_states=30_000)
    assert any((game.goal == PARTNER).any() or (game.rules == PARTNER).any() for game in drawn)
    assert sum(found.solvable for found in plans) >= 11 and all(found.exact for found in plans if found.solvable)


def test_dead_ends_make_some_situations_unsolvable():
    """Where an object that the goal needs lies beside a distractor that destroys it, the search finds no way."""
    game = games.make_game([0, HOLD, ME, 1], [[0, NEAR, 1, 2, 3]], [1, 2], max_rules=4, max_objects=12)
    rng = np.random.default_rng(0)
    worlds = [sample_world(rng, "R1", 7, max_objects=12) for _ in range(40)]
    beside = [np.abs(w.places[0, 0].astype(int) - w.places[0, 1]).max() <= 1 for w in worlds]
    pool = pools.make_pool(worlds, [game], trial_length=20, random_heading=0.0)
    plans = planner.plan_many(presets.SMALL, pool, max_states=30_000)
    assert all(found.solvable for found, near in zip(plans, beside, strict=True) if not near)
    doomed = [found for found, near in zip(plans, beside, strict=True) if near]
    saved = [found.actions[0] for found in doomed if found.solvable]
    assert len(doomed) > 4 and set(saved) <= {PICK, FORWARD}, "only who takes or pushes it at once is in time"
    assert sum(not found.solvable for found in doomed) > len(doomed) / 2
