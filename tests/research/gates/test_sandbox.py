"""The sandbox of gate B: what an alpha's own tests may do, and what happens when they do more."""

import shutil

from research import registry
from research.gates.sandbox import run_alpha_tests
from research.gates.thresholds import load_thresholds

LIMITS = load_thresholds().gate_b.model_copy(update={"seconds_max": 20})


def outcome(tmp_path, body: str, limits=LIMITS):
    folder = tmp_path / "txf_ofi_taker"
    shutil.copytree(registry.bundled_folder() / "txf_ofi_taker", folder)
    (folder / "test_alpha.py").write_text(body)
    return run_alpha_tests(registry.load_alpha(folder), limits)[0]


def test_outcomes_are_counted(tmp_path):
    run = outcome(
        tmp_path,
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): assert False\n"
        "def test_c(): pytest.skip('later')\n"
        "@pytest.mark.xfail\ndef test_d(): assert False\n",
    )
    assert (run.passed, run.failed, run.skipped, run.ended) == (1, 1, 2, "finished")


def test_a_test_file_that_cannot_be_imported_is_an_error(tmp_path):
    assert outcome(tmp_path, "import no_such_module\n").errors == 1


def test_an_alpha_without_tests_has_none_that_passed(tmp_path):
    assert outcome(tmp_path, "").passed == 0


def test_an_endless_test_ends_at_its_time_limit(tmp_path):
    limits = LIMITS.model_copy(update={"seconds_max": 3})
    run = outcome(tmp_path, "def test_a():\n    while True: pass\n", limits)
    assert run.ended == "time_limit"


def test_a_test_that_runs_out_of_memory_is_told_from_one_that_fails(tmp_path):
    run = outcome(tmp_path, "def test_a():\n    bytearray(8 << 30)\n")
    assert (run.passed, run.ended) == (0, "memory_limit")


REACH = """
import os, resource, socket, subprocess, pytest

def test_network():
    with pytest.raises(PermissionError):
        socket.create_connection(("127.0.0.1", 9))

def test_process():
    with pytest.raises(PermissionError):
        subprocess.run(["true"])

def test_writing_elsewhere(tmp_path):
    with pytest.raises(PermissionError):
        open("/tmp/escaped", "w")
    with pytest.raises(PermissionError):
        os.remove("/tmp/escaped")
    (tmp_path / "x").write_text("y")

def test_secret():
    assert "BROKER_SECRET" not in os.environ

def test_memory():
    with pytest.raises(MemoryError):
        bytearray(8 << 30)

def test_ways_around(tmp_path):
    inside = tmp_path / "x"
    inside.write_text("y")
    for act in (
        lambda: os.rename(inside, "/tmp/escaped"),
        lambda: os.link("/etc/hostname", tmp_path / "link"),
        lambda: os.symlink(inside, "/tmp/escaped"),
        lambda: os.symlink("/tmp", tmp_path / "out"),
        lambda: os.mkdir("/tmp/escaped"),
        lambda: os.chmod("/tmp", 0o777),
        lambda: os.open("/tmp", os.O_RDONLY),
        lambda: os.kill(os.getppid(), 0),
        lambda: resource.setrlimit(resource.RLIMIT_CPU, (9999, 9999)),
    ):
        with pytest.raises(PermissionError):
            act()

def test_surroundings():
    assert os.environ["PYTHONHASHSEED"] == "0"
    assert os.environ["OMP_NUM_THREADS"] == "1"
"""


def test_network_processes_files_elsewhere_secrets_and_memory_are_out_of_reach(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("BROKER_SECRET", "x")
    run = outcome(tmp_path, REACH)
    assert (run.passed, run.failed, run.errors, run.ended) == (7, 0, 0, "finished")


def test_a_forbidden_reach_fails_the_test_that_tries(tmp_path):
    run = outcome(tmp_path, "def test_a():\n    open('/tmp/escaped', 'w')\n")
    assert (run.passed, run.failed) == (0, 1)
