"""Teachers of Stable-Baselines3, and one in ONNX's form, become students that are better than they are.

Teachers and students are trained here, from fixed seeds; both are then played on the same fresh episodes.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stable_baselines3

from rekindle.agents.registry import load as load_policy
from rekindle.core.errors import ConfigError
from rekindle.core.stats import bootstrap
from rekindle.envs import registry
from rekindle.evaluate.returns import episodes
from rekindle.reincarnation.teachers import load

ROOT = Path(__file__).parent.parent
CARTPOLE, BREAKOUT = "gymnax/CartPole-v1", "minatar/breakout"
EPISODES = 512
"""For each interval; their key is one that no training uses."""
KEY = 2026
QUICK = ["--budget", "50000steps", "--set", "width=64", "--set", "batch=64", "--set", "warmup=500",
         "--set", "learning_rate=1e-3", "--set", "target_period=100", "--set", "n_step=5", "--set", "update_period=2",
         "--set", "gamma=0.98"]  # fmt: skip
"""A student of CartPole that balances to the end soon after its teacher is silent, and goes on to do so."""


def run(*words, home=None):
    environment = {**os.environ, **({"REKINDLE_HOME": str(home)} if home else {})}
    line = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The folder with what `foreign_tests.teachers` trains and writes."""
    folder = tmp_path_factory.mktemp("teachers")
    done = run("foreign_tests.teachers", folder)
    assert done.returncode == 0, done.stderr
    return folder


def reincarnate(home, teacher, env, *more, code=0):
    """What the command says in its last line."""
    words = ["rekindle", "reincarnate", "--teacher", teacher, "--env", env, "--student", "dqn", *more, "--json"]
    done = run(*words, home=home)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def returned(policy, env):
    """The mean return of acting greedily, with its interval."""
    made = registry.make(env)
    source = jax.tree.map(jnp.asarray, made.pool(split="test"))
    played = episodes(made.env, policy, made.draw, source, jax.random.key(KEY), number=EPISODES, explore=False)
    return bootstrap(played.returns[None])


def student_of(home, teacher, env, *more):
    """The student's return and the teacher's."""
    spec = registry.make(env).spec
    made = reincarnate(home, teacher, env, *more)
    student = load_policy(Path(made["path"]) / "policy", env_spec=spec).policy
    return returned(student, env), returned(load.load(str(teacher), spec), env)


@pytest.mark.parametrize("file", ["cartpole.zip", "cartpole.onnx"])
def test_a_student_balances_longer_than_its_teacher(home, taught, file):
    """The teacher was stopped at half of the best return, 500; students end at 500, by three seeds."""
    student, teacher = student_of(home, taught / file, CARTPOLE, *QUICK)
    assert 150 <= teacher.value <= 300
    assert student.low > teacher.high


def test_a_student_breaks_more_bricks_than_its_teacher_with_an_extractor_of_its_own(home, taught):
    student, teacher = student_of(home, taught / "breakout.zip", BREAKOUT, "--budget", "30000steps",
                                  "--choose", "weight=1.0", "--set", "n_step=3", "--set", "learning_rate=1e-3",
                                  "--set", "width=64")  # fmt: skip
    assert teacher.low > 2
    assert student.low > teacher.high


def test_all_ways_of_reading_a_policy_agree(taught):
    """The network that is rebuilt, what Stable-Baselines3 itself loads, and what was exported."""
    spec = registry.make(CARTPOLE).spec
    x = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)

    def said(file, **how):
        teacher = load.load(str(taught / file), spec, **how)
        return teacher.act(jax.random.key(0), (), {"obs": jnp.asarray(x)}, jnp.ones(200, bool), explore=False)

    rebuilt, exported, theirs = said("cartpole.zip"), said("cartpole.onnx"), said("cartpole.zip", trust=True)
    np.testing.assert_allclose(rebuilt.extras.logits, exported.extras.logits, atol=1e-4)
    assert 20 < int(rebuilt.action.sum()) < 180
    np.testing.assert_array_equal(rebuilt.action, theirs.action)


@pytest.mark.parametrize("algorithm", ["TD3", "SAC", "PPO"])
def test_vectors_are_those_of_stable_baselines(tmp_path, algorithm):
    """Actors that nothing has been taught yet, rebuilt and asked."""
    model = getattr(stable_baselines3, algorithm)("MlpPolicy", "Pendulum-v1", seed=0, device="cpu")
    model.save(tmp_path / "actor.zip")
    spec = registry.make("gymnax/Pendulum-v1").spec
    x = 3 * np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    for trust in (False, True):
        teacher = load.load(str(tmp_path / "actor.zip"), spec, trust=trust)
        out = teacher.act(jax.random.key(0), (), {"obs": jnp.asarray(x)}, jnp.ones(100, bool), explore=False)
        np.testing.assert_allclose(2.0 * out.action, model.predict(x, deterministic=True)[0], atol=1e-5)
        np.testing.assert_allclose(out.extras.mean, out.action, atol=1e-6)


def test_a_trusted_file_teaches(home, taught):
    """Its own extractor is code inside the file, so that it takes Stable-Baselines3 and trust."""
    told = reincarnate(home, taught / "breakout.zip", BREAKOUT, "--budget", "1500steps", "--trust",
                       "--set", "warmup=200")  # fmt: skip
    assert told["status"] == "done" and 1400 < told["env_steps"] <= 1500


def with_code(file, to):
    """The same zip, whose serialised class would leave a trace if it were ever loaded."""
    trace = to.with_suffix(".trace")
    code = b"cos\nsystem\n(S'touch " + str(trace).encode() + b"'\ntR."
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "data":
                facts = json.loads(data)
                for entry in facts.values():
                    if isinstance(entry, dict) and ":serialized:" in entry:
                        entry[":serialized:"] = base64.b64encode(code).decode()
                data = json.dumps(facts).encode()
            new.writestr(name, data)
    return trace


def test_serialised_code_is_executed_by_trust_alone(taught, tmp_path):
    trace = with_code(taught / "breakout.zip", tmp_path / "armed.zip")
    spec = registry.make(BREAKOUT).spec
    load.load(str(tmp_path / "armed.zip"), spec)
    assert not trace.exists()
    with pytest.raises(ConfigError, match="Stable-Baselines3 cannot load"):
        load.load(str(tmp_path / "armed.zip"), spec, trust=True)
    assert trace.exists()


def cut(file, to):
    to.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return to


@pytest.mark.parametrize(
    ("file", "env", "message"),
    [
        ("cut.zip", CARTPOLE, "cut.zip is no zip of Stable-Baselines3, or damaged"),
        ("cut.onnx", CARTPOLE, "cut.onnx is no file of ONNX, or it is damaged"),
        ("breakout.zip", CARTPOLE, "has 3 actions, gymnax/CartPole-v1 has 2"),
        ("cartpole.zip", "gymnax/Acrobot-v1", "has 2 actions, gymnax/Acrobot-v1 has 3"),
        ("cartpole.onnx", "gymnax/Acrobot-v1", "fails on a batch of observations"),
        ("backwards.zip", CARTPOLE, "is no better than that of acting at random"),
    ],
)
def test_wrong_teachers_are_one_sentence(home, taught, tmp_path, file, env, message):
    shutil.copytree(taught, tmp_path, dirs_exist_ok=True)
    for kind in ("zip", "onnx"):
        cut(tmp_path / f"cartpole.{kind}", tmp_path / f"cut.{kind}")
    told = reincarnate(home, tmp_path / file, env, code=2)
    assert message in told["error"] and "Traceback" not in told["error"]


@pytest.mark.parametrize(("file", "module"), [("cartpole.zip", "torch"), ("cartpole.onnx", "onnxruntime")])
def test_a_missing_extra_is_named(taught, monkeypatch, file, module):
    spec = registry.make(CARTPOLE).spec
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"takes {module}, which is not installed; pip install -e '\.\[teachers\]'"):
        load.load(str(taught / file), spec)
