"""Arms of `dqn_speed` in processes of their own."""

import pytest
from benchmarks.dqn_speed import __main__ as study
from benchmarks.dqn_speed.turns import working


def test_an_arm_that_ends_by_itself_is_named():
    with pytest.raises(SystemExit, match="the arm nobody ended by itself"), working("nobody", 8):
        pass


def line(arm, ratio, low):
    return {"arm": arm, "ratio": ratio, "ratio_low": low, "ratio_high": 9.0}


def test_a_promise_is_kept_in_the_slowest_pair_of_all_peers_or_not_at_all():
    bar, *_ = study.bars([line("sb3", 7.0, 5.0), line("sb3-2-threads", 6.9, 6.2)])
    assert (bar.name, bar.value, bar.low, bar.ok) == ("S3.sb3", 6.9, 5.0, False)
    assert study.bars([line("sb3", 7.0, 6.5)]) == []
