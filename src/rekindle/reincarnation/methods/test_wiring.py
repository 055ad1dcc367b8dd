"""What the phases of a method add to a loss, beside the formulas of the specification (2.1 to 2.3)."""

import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.core.types import Transitions
from rekindle.reincarnation.methods.registry import DISTILS, METHODS, make_method
from rekindle.reincarnation.phases import OutputKinds, Scale

SCALE = Scale(10, 100, 10, guided=1e-4, alone=1e-5, scratch=6e-5)
Q = np.float32([[0.3, -0.2, 0.5, 0.1], [1.0, 0.4, -0.6, 0.2], [-0.1, 0.2, 0.0, 0.6]])
SAID = np.float32([[0.9, 0.1, -0.4, 0.3], [0.2, 0.7, -0.3, 0.0], [0.1, -0.5, 0.6, 0.4]])
"""By the teacher. In no row is the action of the data its best or its worst one, or the best of Q."""
ROWS, ACTION = np.arange(3), np.array([1, 3, 0])
NONE = jnp.zeros(3)
BATCH = Transitions({}, jnp.int32(ACTION), NONE, NONE, {}, jnp.asarray(SAID), NONE + 1, jnp.arange(3))


def phases(name, kinds, **settings):
    return make_method(name, settings).phases(SCALE, kinds)


def added(phase):
    return phase.adds(jnp.asarray(Q), BATCH)


def log_policy(logits):
    return logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))


@pytest.mark.parametrize("name", ["qdagger", "kickstarting", "dagger", "dagger+ql"])
@pytest.mark.parametrize("teacher", ["values", "logits"])
@pytest.mark.parametrize("student", ["values", "policy"])
def test_action_values_have_a_temperature_in_a_distillation_and_logits_have_none(name, teacher, student):
    theirs = log_policy(SAID / 0.5 if teacher == "values" else SAID)
    own = log_policy(Q / 0.5 if student == "values" else Q)
    for phase in phases(name, OutputKinds(teacher, student), tau=0.5):
        np.testing.assert_allclose(added(phase), np.sum(np.exp(theirs) * (theirs - own), axis=-1), rtol=1e-4)


def test_vectors_are_distilled_by_the_mean_square_of_their_difference():
    for phase in phases("qdagger", OutputKinds("actions", "policy")):
        np.testing.assert_allclose(added(phase), np.mean((Q - SAID) ** 2, axis=-1), rtol=1e-5)


@pytest.mark.parametrize("form", ["soft", "hard"])
def test_the_margin_is_over_the_action_that_the_teacher_says_most_of(form):
    expert = np.argmax(SAID, axis=-1)
    short = Q + 0.4 * (np.arange(4) != expert[:, None]) - Q[ROWS, expert][:, None]
    wanted = np.mean(np.maximum(short, 0), axis=-1) if form == "soft" else np.max(short, axis=-1)
    for phase in phases("dqfd", OutputKinds("values"), form=form, margin=0.4):
        np.testing.assert_allclose(added(phase), wanted, rtol=1e-5)


@pytest.mark.parametrize(("settings", "tau"), [({}, 0.1), ({"tau": 0.5}, 0.5)])
def test_pretraining_is_conservative_about_the_action_of_the_data(settings, tau):
    wanted = np.log(np.sum(np.exp(Q / tau), axis=-1)) - Q[ROWS, ACTION] / tau
    offline, online = phases("pretraining", OutputKinds("values"), **settings)
    np.testing.assert_allclose(added(offline), wanted, rtol=1e-5)
    assert online.adds is None


def test_pretraining_goes_on_with_a_small_step_and_alone_forgets_its_moments():
    begun = [phase.dials(phase.begin()) for phase in phases("pretraining", OutputKinds("values"))]
    assert [float(dials.learning_rate) for dials in begun] == pytest.approx([1e-4, 1e-5])
    assert [float(dials.weight) for dials in begun] == [1.0, 0.0] and all(dials.own == 1.0 for dials in begun)
    forgets = {(name, phase.name) for name in METHODS for phase in phases(name, OutputKinds("values"))
               if phase.fresh_optimiser}  # fmt: skip
    assert forgets == {("pretraining", "online")}


TAUGHT_AND_ALONE = {
    "qdagger": ((3.0, 1.0, 1e-4, None), (3.0, 1.0, 1e-4, 1e-5)),
    "kickstarting": ((3.0, 1.0, 1e-4, 1e-5),),
    "pretraining": ((1.0, 1.0, 1e-4, None), (0.0, 1.0, 1e-5, None)),
    "dqfd": ((1.0, 1.0, 1e-4, None), (1.0, 1.0, 1e-4, None)),
    "jsrl": ((0.0, 1.0, 6.25e-5, None),),
    "rehearsal": ((0.0, 1.0, 6.25e-5, None),),
    "tabula-rasa": ((0.0, 1.0, 6.25e-5, None),),
    "dagger": ((3.0, 0.0, 1e-4, None), (3.0, 0.0, 1e-4, None)),
    "dagger+ql": ((3.0, 1.0, 1e-4, None), (3.0, 1.0, 1e-4, None)),
    "fine-tuning": ((0.0, 1.0, pytest.approx(6.25e-5 / 6), None),),
}
"""3.2: of every phase, the weight of what is added (DQN), that of the agent's own loss, and the step sizes."""


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_the_published_weights_and_step_sizes(name):
    phases = make_method(name).phases(Scale(100, 250, 10, 1e-4, 1e-5, 6.25e-5), OutputKinds("values"))
    assert [(p.weight, p.own, p.learning_rate, p.alone) for p in phases] == list(TAUGHT_AND_ALONE[name])


@pytest.mark.parametrize(("student", "weight"), [("dqn", 3.0), ("rainbow", 1.0), ("mrq", 0.4)])
def test_a_distillation_weighs_by_its_student_unless_one_says_otherwise(student, weight):
    for name in DISTILS:
        assert make_method(name, student=student).weight == weight
        assert make_method(name, {"weight": 2.0}, student=student).weight == 2.0
