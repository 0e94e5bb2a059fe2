"""The wall clock that remembers: a permit that has ended does not come back to life."""

from __future__ import annotations

from pathlib import Path

import pytest

from hft_platform.config.wall_clock import BACK_NS_MAX, checked_time_ns, mark_path
from hft_platform.errors import PlatformError, ReasonCode

NOW_NS = 1_775_781_900_000_000_000


def refused(workspace: Path, now_ns: int) -> bool:
    with pytest.raises(PlatformError) as caught:
        checked_time_ns(workspace, now_ns)
    return caught.value.code == ReasonCode.CLOCK_WENT_BACK


def test_time_only_grows_and_a_small_step_back_is_judged_by_the_later_time(tmp_path: Path) -> None:
    assert checked_time_ns(tmp_path, NOW_NS) == NOW_NS
    assert checked_time_ns(tmp_path, NOW_NS + 7) == NOW_NS + 7
    assert checked_time_ns(tmp_path, NOW_NS + 7 - BACK_NS_MAX) == NOW_NS + 7
    assert refused(tmp_path, NOW_NS + 6 - BACK_NS_MAX)


def test_a_clock_set_back_is_refused_until_it_is_right_again(tmp_path: Path) -> None:
    checked_time_ns(tmp_path, NOW_NS)
    assert refused(tmp_path, NOW_NS - 10 * BACK_NS_MAX)
    assert checked_time_ns(tmp_path, NOW_NS + 1) == NOW_NS + 1


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"highest_ns": "soon"}'])
def test_a_mark_that_cannot_be_read_refuses(tmp_path: Path, content: str) -> None:
    checked_time_ns(tmp_path, NOW_NS)
    mark_path(tmp_path).write_text(content)
    assert refused(tmp_path, NOW_NS + 1)
