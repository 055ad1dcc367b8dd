"""What a student may learn from: steps of its own world, or of one that shows and takes the same."""

import shutil
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rekindle.agents.dqn.dqn import PRESETS
from rekindle.agents.registry import config_from_json, config_to_json, export, make_agent
from rekindle.core.budget import Budget
from rekindle.core.errors import CheckpointError, ConfigError
from rekindle.core.exploration import epsilon
from rekindle.core.spaces import Box, Discrete
from rekindle.core.types import EnvSpec
from rekindle.envs import registry
from rekindle.evaluate.policies import RandomPolicy
from rekindle.evaluate.returns import Episodes
from rekindle.library.artefact import save_policy
from rekindle.library.dataset import read_dataset, save_dataset
from rekindle.library.library import Library
from rekindle.library.run import Run
from rekindle.reincarnation.methods.registry import METHODS
from rekindle.reincarnation.phases import scaled
from rekindle.reincarnation.teachers import load as teachers
from rekindle.train import prepare, session, teaching
from rekindle.train.order import Order, as_student, order_of

ENV = "gymnax/Catch-bsuite"
HOST = {"id": "gymnasium/Catch-v0", "version": 0, "kind": "host"}


@pytest.fixture(scope="module")
def made():
    return registry.make(ENV)


@pytest.fixture
def library(tmp_path):
    return Library(tmp_path / "home", shipped=tmp_path / "none")


def data(library, made, *, options=None, action="int32", shape=None, **changes):
    spec = {**made.spec.to_json(), **changes}
    spec["action"] = {**spec["action"], "dtype": action}
    space = spec["obs"]["obs"]
    spec["obs"] = {"obs": {**space, "shape": list(shape or space["shape"])}}
    no = np.zeros((6, 1), bool)
    steps = {"obs.obs": np.zeros((6, 1, *spec["obs"]["obs"]["shape"]), space["dtype"]), "reward": no.astype(np.float32),
             "action": no.astype(action), "terminated": no, "truncated": no}  # fmt: skip
    run = Run.create(library, "dataset", name="data", config={}, seed=None)
    save_dataset(run.path / "replay", spec=spec, arrays=steps, recipe={} if options is None else {"options": options})
    run.finish("done")
    return run.id


def order(which, **pool):
    return Order(agent="dqn", settings={}, env=ENV, budget="10steps", pool=pool, teacher="a.zip", data=which)


def test_steps_of_the_same_world_and_of_one_that_shows_the_same(library, made):
    for more in ({}, {"options": {}}, {**HOST, "action": "int64"}):
        which = data(library, made, **more)
        run = session.begin(order(which), library, name="student", seed=0)
        (parent,) = run.manifest.parents
        assert (parent.id, parent.role) == (which, "replay") and parent.sha256 is not None
        ring = teaching.kept_steps(library.find(which), order(which), made, run)
        assert ring.slots == 6 and ring.steps.action.dtype == np.int32


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"shape": (9, 5)}, r"has Box\(shape=\(9, 5\).* for 'obs.obs', gymnax/Catch-bsuite has Box"),
        ({**HOST, "shape": (9, 5)}, r"has Box\(shape=\(9, 5\).* for 'obs.obs', gymnax/Catch-bsuite has Box"),
        ({"id": "gymnax/Other"}, "was made for gymnax/Other, version 0; the student is to act in gymnax/Catch-bsuite"),
        ({"options": {"sticky": 0.2}}, "was made with sticky=0.2 of gymnax/Catch-bsuite, the student with no options"),
    ],
)
def test_steps_of_another_world_are_refused_with_both_values(library, made, more, words):
    which = data(library, made, **more)
    run = session.begin(order(which), library, name="student", seed=0)
    with pytest.raises(ConfigError, match=words):
        teaching.kept_steps(library.find(which), order(which), made, run)


def test_data_that_were_replaced_and_runs_without_any(library, made):
    which = data(library, made)
    run = session.begin(order(which), library, name="student", seed=0)
    folder = library.find(which).path / "replay"
    kept = read_dataset(folder)
    better = {**kept.arrays, "reward": np.ones((6, 1), np.float32)}
    save_dataset(folder, spec=kept.meta.spec, arrays=better)
    with pytest.raises(ConfigError, match=f"the replay {which} was replaced since this began; begin anew"):
        teaching.kept_steps(library.find(which), order(which), made, run)
    with pytest.raises(CheckpointError, match="holds no dataset"):
        session.begin(order(run.id), library, name="student", seed=0)


def test_a_student_does_not_go_on_with_another_function_than_it_began_with(library, made, tmp_path, monkeypatch):
    """Nor with what a path leads to no more; one into the library is the run itself, with its lineage."""
    monkeypatch.syspath_prepend(tmp_path)
    module, given = tmp_path / "began_with.py", replace(order(None), teacher="began_with:q", data=None)
    module.write_text("import numpy as np\n\ndef q(obs):\n    return np.ones((len(obs['obs']), 3))\n")
    run = session.begin(given, library, name="student", seed=0)
    told = order_of(run.manifest.config)
    assert teaching.teacher_of(told, made, library, run)[1:] == (None, None)
    module.write_text(module.read_text() + "# another\n")
    with pytest.raises(ConfigError, match="the teacher began_with:q is another one than when this began; begin anew"):
        teaching.teacher_of(told, made, library, run)
    gone = replace(told, teacher=str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match=r"there is no teacher in .*gone \(any more\); bring it back"):
        teaching.teacher_of(gone, made, library, run)
    (run.path / "policy").mkdir()
    (run.path / "policy" / "policy.json").write_text("{}")
    monkeypatch.chdir(run.path)
    for path in (str(run.path), "./policy", ".", f"../{run.id}"):
        assert teachers.settled(path, library.runs_folder) == run.id
    assert teachers.settled(str(module), library.runs_folder) == str(module)


def test_a_teacher_that_beats_chance_by_luck_is_refused(library, monkeypatch):
    """Two standard errors of 256 episodes are 0.177 here: a smaller difference would make noise of every score."""
    lucky = prepare.Marks(-0.6, -0.45, random_sd=1.0, teacher_sd=1.0, episodes=256)
    prepare.refuse_luck(lucky._replace(teacher=-0.4))
    monkeypatch.setattr(teaching, "taught_by", lambda *given: (None, None, None))
    monkeypatch.setattr(prepare, "marks", lambda *given, number: lucky)
    run = session.begin(Order("dqn", {}, ENV, "9000steps", teacher="a.zip"), library, name="s", seed=0)
    with pytest.raises(ConfigError, match=r"no better than that of acting at random, -0\.6, but by luck; take another"):
        session.carry_out(run, library)


def test_sizes_and_exploration_are_in_the_published_proportions():
    """U8: 1e6 updates offline, silence after 1.5e6 of 2.5e6 steps, and exploration that is over when they begin."""
    scale = scaled(2_500_000, scratch=6.25e-5)
    assert (scale.offline_updates, scale.online_steps, scale.cut_steps) == (1_000_000, 2_500_000, 1_500_000)
    chosen = as_student(2_500_000)
    ahead = {name: as_student(2_500_000, method=name).get("n_step", 1) for name in METHODS}
    assert {name for name, n in ahead.items() if n == 3} == {"qdagger", "kickstarting", "dagger", "dagger+ql"}
    assert set(ahead.values()) == {1, 3}
    shares = [float(epsilon(jnp.int32(clock), last=0.01, steps=chosen["epsilon_steps"],
                            warmup=chosen["epsilon_warmup"])) for clock in (0, 25_000, 50_000, 1_000_000)]  # fmt: skip
    np.testing.assert_allclose(shares, [1.0, 0.505, 0.01, 0.01], rtol=1e-5)


def test_a_budget_that_ends_before_learning_begins_is_refused_of_sequences_too(library):
    settings = config_to_json(config_from_json("mrq", {"warmup": 3_000, "capacity": 4_000}))
    run = session.begin(Order("mrq", settings, ENV, "3000steps"), library, name="s", seed=0)
    with pytest.raises(ConfigError, match="ends with the 3,000 that fill the replay"):
        session.carry_out(run, library)
    with pytest.raises(ConfigError, match="warmup must be below capacity"):
        config_from_json("mrq", {"warmup": 3_000, "capacity": 3_000})


def test_usual_options_are_the_same_given_or_not(made):
    teaching.refuse_other_world(made.spec, {}, order("x", sticky=0.0), made, "the teacher")
    with pytest.raises(ConfigError, match=r"made with sticky=0.5 of .*, the student with no options"):
        teaching.refuse_other_world(made.spec, {"sticky": 0.5}, order("x"), made, "the teacher")


def kept(run, agent, spec, what):
    """A policy as a training leaves it."""
    state = agent.init(jax.random.key(0), spec)
    save_policy(run.path / "policy", **export(agent, state, spec), provenance=session.provenance_of(run, what))


def test_a_policy_says_with_which_options_it_was_made_wherever_it_is_taken(library, made, tmp_path):
    agent = make_agent("dqn", config_from_json("dqn", {"width": 8}))
    trained = replace(order("x", sticky=0.5), teacher=None, data=None)
    run = session.begin(trained, library, name="t", seed=0)
    kept(run, agent, made.spec, trained)
    copy = shutil.copytree(run.path / "policy", tmp_path / "copy")
    with pytest.raises(ConfigError, match=r"made with sticky=0.5 of .*, the student with no options"):
        teaching.foreign(str(copy), order("x"), made)
    assert teaching.foreign(str(copy), order("x", sticky=0.5), made)[1] is not None


def test_a_student_that_goes_on_has_its_teachers_network(library, made, tmp_path):
    agent = make_agent("dqn", config_from_json("dqn", {"width": 8}))
    run = session.begin(replace(order("x"), teacher=None, data=None), library, name="t", seed=0)
    kept(run, agent, made.spec, order("x"))
    copy = shutil.copytree(run.path / "policy", tmp_path / "copy")
    for which in (run.id, str(run.path), str(copy)):
        assert teaching.settings_of(which, "dqn", library)["width"] == 8
        assert teaching.settings_of(which, "rainbow", library) == {}
    assert teaching.settings_of("somewhere:f", "dqn", library) == {}


def test_going_on_takes_a_replay_and_the_network_before_there_is_a_run(library, made, tmp_path):
    agent = make_agent("dqn", config_from_json("dqn", {"width": 8}))
    trained = replace(order("x"), teacher=None, data=None)
    run = session.begin(trained, library, name="t", seed=0)
    kept(run, agent, made.spec, trained)
    what = replace(order("x"), agent="dqn", teacher=str(run.path / "policy"), data=None, method="fine-tuning")
    for width, message in (
        (8, "it kept none; give one by --data, or .* --choose keeps_replay=false"),
        (16, r"leave out what --set says of the network.*float32\[.*8\] there, float32\[.*16\] here"),
    ):
        with pytest.raises(ConfigError, match=message):
            session.check(replace(what, settings={"width": width}), library)


def test_on_atari_step_sizes_are_the_published_ones():
    agent = make_agent("dqn", config_from_json("dqn", dict(PRESETS["atari"])))
    scales = [session.taught(Order("dqn", {}, env, "2500000steps"), agent)[1] for env in ("ALE/Breakout-v5", ENV)]
    assert [(scale.guided, scale.alone) for scale in scales] == [
        (pytest.approx(1e-4), pytest.approx(1e-5)), (pytest.approx(7.5e-5), pytest.approx(1.25e-5))
    ]  # fmt: skip


def test_room_is_made_for_the_steps_that_fit_into_a_time():
    most = partial(session.most_steps, warmup=10_000, pictures=False)
    assert most(Budget(env_steps=7)) == 7 and most(Budget(learnt_steps=7)) == 20_007
    assert most(Budget(seconds=300.0)) == 170_000 and most(Budget(seconds=300.0, env_steps=7)) == 7
    assert session.most_steps(Budget(seconds=300.0), 10_000, pictures=True) == 35_000  # on a processor


def test_evaluations_in_atari_take_a_random_action_in_a_thousand(monkeypatch):
    seen = []

    def played(worlds, policy, key, *, number, explore):
        seen.append(policy)
        return Episodes(np.ones(number), np.ones(number, int), number)

    monkeypatch.setattr(session, "host_episodes", played)
    spec = EnvSpec("test/any", 1, {"obs": Box((2,), -1, 1)}, Discrete(4), kind="host")
    made = registry.Hosted(spec, lambda rows: ...)
    for env in ("ALE/Pong-v5", "gymnasium/CartPole-v1"):
        session.evaluation(Order("mrq", {}, env, "1steps"), made)(RandomPolicy(4), 0, jax.random.key(0))
    greedy, plays = seen
    assert greedy.share == 0.001 and isinstance(greedy.policy, RandomPolicy) and isinstance(plays, RandomPolicy)
