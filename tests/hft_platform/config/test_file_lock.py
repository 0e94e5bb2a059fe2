"""One holder at a time, and a lock file that stays."""

from __future__ import annotations

import fcntl
import stat
from pathlib import Path

import pytest

from hft_platform.config.file_lock import locked


def is_free(path: Path) -> bool:
    """Whether another holder would get the lock now."""
    with path.open("rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@pytest.mark.parametrize("name", [".lock", ".other.lock"])
def test_it_is_held_inside_and_free_afterwards_also_after_an_error(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "a" / "b"
    with locked(folder, name=name):
        held = (folder / name).stat().st_ino
        assert not is_free(folder / name)
    assert is_free(folder / name)
    with pytest.raises(RuntimeError, match="inside"), locked(folder, name=name):
        raise RuntimeError("inside")
    assert is_free(folder / name)
    # The same file: a removed one would have let two holders in.
    assert (folder / name).stat().st_ino == held


def test_the_lock_of_keys_is_its_owners(tmp_path: Path) -> None:
    with locked(tmp_path / "keys", is_private=True):
        assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "keys" / ".lock").stat().st_mode) == 0o600
