import subprocess
import sys

import jax
import pytest

from rekindle.core.errors import ConfigError
from rekindle.core.spaces import Box, Discrete

gymnasium = pytest.importorskip("gymnasium")
from gymnasium.utils.env_checker import check_env as gymnasium_check  # noqa: E402

from rekindle.envs.gymnasium import from_gymnasium, to_gymnasium  # noqa: E402


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(("id", "options"), [("probe/identity", {}), ("xland/doors-2", {"worlds": 4, "games": 8})])
def test_passes_the_checker_of_gymnasium(id, options):
    with jax.debug_key_reuse(False):
        gymnasium_check(to_gymnasium(id, **options), skip_render_check=True)


def play(seed: int) -> list:
    env = to_gymnasium("probe/bandit-trials")
    obs, _ = env.reset(seed=seed)
    seen, over = [obs["trial"].tolist()], False
    while not over:
        obs, reward, terminated, truncated, info = env.step(1)
        over = terminated or truncated
        seen.append((obs["trial"].tolist(), reward, terminated, truncated, info["trial_end"]))
    return seen


def test_a_seed_decides_the_task_and_an_episode_is_its_trials():
    assert play(3) == play(3)
    episodes = [play(seed) for seed in range(6)]
    assert len({len(episode) for episode in episodes}) > 1  # one to four trials of one step
    for first, *steps in episodes:
        assert first[9] == 1 and [step[2] for step in steps] == [False] * (len(steps) - 1) + [True]
        assert all(trial_end and not truncated for _, _, _, truncated, trial_end in steps)
        assert len({reward for _, reward, *_ in steps}) == 1


def test_stepping_before_reset_is_refused():
    with pytest.raises(ConfigError, match="call reset first"):
        to_gymnasium("probe/constant").step(0)


def test_a_foreign_world_has_our_spec():
    worlds = from_gymnasium("CartPole-v1")
    assert worlds.spec.kind == "host" and worlds.spec.id == "gymnasium/CartPole-v1" and worlds.spec.version == 1
    assert worlds.spec.action == Discrete(2, "int32")
    assert isinstance(worlds.spec.obs["obs"], Box) and worlds.spec.obs["obs"].shape == (4,)
    worlds.close()


def test_unknown_worlds_are_refused():
    with pytest.raises(ConfigError, match="'CartPool-v1'"):
        from_gymnasium("CartPool-v1")


def test_two_players_are_refused_in_one_sentence():
    with pytest.raises(ConfigError, match=r"one player; xland/c2-v1 has 2\. Use the JAX environment"):
        to_gymnasium("xland/c2", worlds=2, games=2)


def test_a_missing_extra_names_the_mend():
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "from rekindle.core.errors import ConfigError\n"
        "try: import rekindle.envs.gymnasium\n"
        "except ConfigError as error: sys.exit('.[gym]' not in str(error))\n"
        "sys.exit(2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
