"""What an operator excuses: one fault of one session, with a reason, and nothing by default."""

import pytest

from hft_platform.errors import PlatformError, ReasonCode
from research.data.exceptions import NO_EXCEPTIONS, load_exceptions

GOOD = """
schema: 1
exceptions:
  - {kind: not_recorded, symbol: TXFD6, session_id: 2026-04-10/night, reason: the host was moved}
"""


def load(tmp_path, text: str):
    (tmp_path / "data_exceptions.yaml").write_text(text)
    return load_exceptions(tmp_path)


def test_without_a_file_nothing_is_excused(tmp_path):
    assert load_exceptions(tmp_path) == NO_EXCEPTIONS
    assert not NO_EXCEPTIONS.excuses("not_recorded", "TXFD6", "2026-04-10/night")


def test_an_entry_excuses_one_fault_of_one_session(tmp_path):
    found = load(tmp_path, GOOD)
    assert found.excuses("not_recorded", "TXFD6", "2026-04-10/night")
    assert not found.excuses("restated", "TXFD6", "2026-04-10/night")
    assert not found.excuses("not_recorded", "TXFD6", "2026-04-10/day")
    assert not found.excuses("not_recorded", "TXFE6", "2026-04-10/night")
    assert found.of(frozenset({"TXFE6"})) == []


@pytest.mark.parametrize(
    "change",
    [
        ("the host was moved", "gone"),
        ("not_recorded", "bad_luck"),
        ("session_id: 2026-04-10/night, ", ""),
        ("schema: 1", "schema: 2"),
        ("symbol: TXFD6", "symbol: TXFD6, until: tomorrow"),
    ],
)
def test_an_entry_that_does_not_say_what_and_why_is_refused(tmp_path, change):
    with pytest.raises(PlatformError) as caught:
        load(tmp_path, GOOD.replace(*change))
    assert caught.value.code == ReasonCode.SETTINGS_INVALID
