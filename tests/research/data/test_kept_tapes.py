"""Tapes kept for one purpose: read and verified once, bounded, and forgotten afterwards."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from research.data import catalog


@dataclass(frozen=True)
class Session:
    path: Path
    tape_sha256: str


@pytest.fixture
def read(monkeypatch):
    """Sessions that were read from disk, in order."""
    done = []

    def load(session):
        done.append(session.path.name)
        return session.path.name.encode() * 100

    monkeypatch.setattr(catalog, "_load_tape", load)
    return done


A, B, C = (Session(Path(name), "ab" * 32) for name in "abc")


def test_a_tape_is_read_once_inside_and_again_afterwards(read):
    with catalog.tapes_kept():
        assert catalog.load_tape(A) == catalog.load_tape(A) == b"a" * 100
        with catalog.tapes_kept():
            catalog.load_tape(A)
        catalog.load_tape(A)
    assert read == ["a"]
    catalog.load_tape(A)
    with catalog.tapes_kept():
        catalog.load_tape(A)
    assert read == ["a", "a", "a"]


def test_the_least_recently_used_tape_makes_room(read, monkeypatch):
    monkeypatch.setattr(catalog, "TAPE_BYTES_KEPT_MAX", 250)
    with catalog.tapes_kept():
        for session in (A, B, A, C, A, B):
            catalog.load_tape(session)
    assert read == ["a", "b", "c", "b"]


def test_a_tape_larger_than_the_bound_is_not_kept(read, monkeypatch):
    monkeypatch.setattr(catalog, "TAPE_BYTES_KEPT_MAX", 50)
    with catalog.tapes_kept():
        catalog.load_tape(A)
        catalog.load_tape(A)
    assert read == ["a", "a"]


def test_another_hash_is_another_tape(read):
    with catalog.tapes_kept():
        catalog.load_tape(A)
        catalog.load_tape(Session(A.path, "cd" * 32))
    assert read == ["a", "a"]


def test_the_scope_ends_when_what_is_inside_raises(read):
    with pytest.raises(ValueError, match="inside"), catalog.tapes_kept():
        catalog.load_tape(A)
        raise ValueError("inside")
    catalog.load_tape(A)
    assert read == ["a", "a"]
