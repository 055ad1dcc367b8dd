"""What a run is repeated by, and what a person's words come to: orders, without a training."""

import dataclasses

import jax.numpy as jnp
import pytest

from rekindle.agents.registry import variant_of
from rekindle.cli import reincarnate, reproduce, train
from rekindle.core.exploration import epsilon
from rekindle.train import session


class Ordered(Exception):
    """Instead of a training."""


@pytest.fixture
def ordered(monkeypatch, tmp_path):
    """From a command's words to its order."""
    monkeypatch.setenv("REKINDLE_HOME", str(tmp_path))

    def refuse(order, library):
        raise Ordered(order)

    monkeypatch.setattr(session, "check", refuse)

    def order_of(command, *words):
        with pytest.raises(Ordered) as asked:
            command.run(list(words))
        return asked.value.args[0]

    return order_of


TRAININGS = [
    ["mrq:small", "--env", "gymnax/Pendulum-v1", "--budget", "900steps", "--evaluate-every", "0", "--set", "warmup=50"],
    ["mrq", "--env", "gymnax/Pendulum-v1", "--evaluate-every", "300", "--episodes", "4", "--checkpoint-every", "9"],
    ["dqn", "--env", "minatar/breakout", "--pool", "sticky=0.0", "--seed", "3", "--log", "tensorboard"],
    ["dqn:atari", "--env", "ALE/Pong-v5", "--budget", "1e6steps"],
    ["ppo", "--env", "xland/doors-4", "--trials", "1-3", "--curriculum", "plr", "--choose", "capacity=50"],
]
STUDENTS = [
    ["--student", "rainbow:impala", "--env", "ALE/Pong-v5", "--episodes", "3", "--choose", "tau=0.3"],
    ["--student", "dqn", "--env", "minatar/breakout", "--method", "rehearsal", "--checkpoint-every", "7", "--valued"],
]


@pytest.mark.parametrize("words", TRAININGS, ids=" ".join)
def test_a_training_is_ordered_by_its_recipe_as_it_was(ordered, words):
    order = ordered(train, *words)
    told = reproduce._words("train", dataclasses.asdict(order), 5)
    assert told is not None and told[0] == "train" and ordered(train, *told[1:]) == order


@pytest.mark.parametrize("words", STUDENTS, ids=" ".join)
def test_a_reincarnation_is_ordered_by_its_recipe_as_it_was(ordered, words):
    order = ordered(reincarnate, "--teacher", "any", *words)
    told = reproduce._words("train", dataclasses.asdict(order), 5)
    assert told is not None and told[0] == "reincarnate" and ordered(reincarnate, *told[1:]) == order


@pytest.mark.parametrize("student", ["dqn:atari", "dqn:atari-impala", "rainbow:atari", "rainbow:atari-impala"])
def test_a_student_with_published_settings_explores_as_a_student(ordered, student):
    """U8, 3.1: of 250,000 steps exploration takes 5,000; the offline updates have moved its clock on."""
    order = ordered(reincarnate, "--teacher", "any", "--student", student, "--env", "ALE/Pong-v5", "--budget",
                    "250000steps")  # fmt: skip
    chosen = order.settings
    assert (chosen["epsilon_steps"], chosen["epsilon_warmup"], chosen["n_step"]) == (5_000, 0, 3)
    assert float(epsilon(jnp.int32(100_000), last=chosen["epsilon"], steps=5_000, warmup=0)) == pytest.approx(0.01)
    assert chosen["learning_rate"] == 6.25e-5 and chosen["reward_clip"] == 1.0 and chosen["width"] == 512
    assert chosen["network"] == ("impala" if student.endswith("impala") else "nature")
    asked = ordered(reincarnate, "--teacher", "any", "--student", student, "--env", "ALE/Pong-v5", "--set", "n_step=1")
    assert asked.settings["n_step"] == 1


def test_rewards_of_atari_are_clipped_in_learning_whatever_the_size(ordered):
    for words in (["--env", "ALE/Pong-v5"], ["--env", "ALE/Pong-v5", "--set", "reward_clip=0.0"]):
        clip = 0.0 if "--set" in words else 1.0
        assert ordered(train, "dqn", *words).settings["reward_clip"] == clip
        assert ordered(reincarnate, "--teacher", "any", *words).settings["reward_clip"] == clip
    assert ordered(train, "dqn", "--env", "minatar/breakout").settings["reward_clip"] == 0.0


def test_published_settings_of_one_algorithm_replace_each_other_whole():
    """Fine-tuning goes on with Adam where RMSProp trained (2.4), so that `dqn:atari` has to name what it undoes."""
    names = [set(variant_of(f"dqn:{preset}")[1]) for preset in ("atari", "atari-impala", "atari-rmsprop")]
    assert names[0] == names[1] == names[2]
    assert variant_of("dqn:atari")[1]["optimiser"] == "adam"
