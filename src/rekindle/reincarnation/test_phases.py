"""What a method says, as the numbers that learning and acting go by."""

import jax.numpy as jnp
import pytest

from rekindle.reincarnation.methods.registry import make_method
from rekindle.reincarnation.phases import OutputKinds, Phase, Progress, Scale

SCALE = Scale(10, 100, 10, guided=1e-4, alone=1e-5, scratch=6e-5)


def last(name, **settings) -> Phase:
    return make_method(name, settings).phases(SCALE, OutputKinds("values"))[-1]


@pytest.mark.parametrize(
    ("name", "weight", "rate"),
    [("qdagger", 3.0, 1e-5 + 9e-5 * 0.25), ("kickstarting", 3.0, 1e-5 + 9e-5 * 0.25), ("dqfd", 1.0, 1e-4)],
)
def test_the_weight_falls_with_the_multiplier_and_not_with_its_square(name, weight, rate):
    dials = last(name).dials(Progress(jnp.float32(0.25), jnp.zeros(())))
    assert float(dials.weight) == pytest.approx(0.25 * weight) and float(dials.own) == 1.0
    assert float(dials.learning_rate) == pytest.approx(rate)


def test_first_steps_of_a_teacher_fall_to_none():
    phase, seen = last("jsrl", most=5, decay=0.5), []
    progress = phase.begin()
    for turn in range(5):
        seen.append(int(phase.dials(progress).roll_in))
        progress = phase.after(progress, 0.0, turn)
    assert seen == [5, 2, 1, 0, 0]


def test_going_on_with_a_teachers_weights_is_slow_and_keeps_its_replay():
    phase = last("fine-tuning")
    assert phase.keeps_replay and phase.needs_state
    assert float(phase.dials(phase.begin()).learning_rate) == pytest.approx(1e-5)
