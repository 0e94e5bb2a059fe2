"""The registry: manifests are read without guessing, identity is content, trials are declared."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from hft_platform.errors import PlatformError, ReasonCode
from research import registry
from research.registry.manifest import DataRoles

BUNDLED = registry.bundled_folder()
TXF = BUNDLED / "txf_ofi_taker"


def edited(tmp_path: Path, **changes) -> Path:
    """A copy of a bundled alpha with changed fields; None removes a field."""
    folder = tmp_path / "txf_ofi_taker"
    shutil.copytree(TXF, folder)
    content = yaml.safe_load((folder / "manifest.yaml").read_text())
    for name, value in changes.items():
        if value is None:
            del content[name]
        else:
            content[name] = value
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content))
    return folder


def refusal(call, *arguments, **named) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        call(*arguments, **named)
    return caught.value


def test_every_bundled_alpha_loads_compiles_and_has_tests():
    found = registry.bundled_alphas()
    assert [a.alpha_id for a in found] == sorted(a.alpha_id for a in found)
    assert len(found) >= 9
    for alpha in found:
        assert registry.check_expression(alpha)["features"]
        assert (alpha.folder / "test_alpha.py").is_file()
        assert len(alpha.manifest.grid()) <= 4


def test_the_hash_is_of_content_and_not_of_spelling(tmp_path):
    assert registry.load_alpha(edited(tmp_path)).key == registry.load_alpha(TXF).key


def test_any_changed_field_is_another_alpha(tmp_path):
    changed = registry.load_alpha(edited(tmp_path, ttl_ms=999))
    assert changed.alpha_hash != registry.load_alpha(TXF).alpha_hash


def test_renaming_or_rewording_an_alpha_leaves_its_program(tmp_path):
    same = registry.load_alpha(edited(tmp_path, owner="somebody else"))
    assert same.program_sha256 == registry.load_alpha(TXF).program_sha256
    other = registry.load_alpha(edited(tmp_path / "b", expression="0.6 * ofi_l1_1s"))
    assert other.program_sha256 != same.program_sha256


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"limits": None}, "limits"),
        ({"surprise": 1}, "surprise"),
        ({"expected_sign": 0}, "expected_sign"),
        ({"hypothesis": "short"}, "hypothesis"),
        ({"ttl_ms": "500"}, "ttl_ms"),
        ({"parameters": {"entry": {"default": 9.0, "grid": [1.0]}}}, "default 9.0"),
        ({"data_roles": {"in_sample": 0.5, "out_of_sample": 0.6, "frozen": 0.2}}, "sum to"),
        ({"order_qty_lots": 1}, "below one lot"),
        ({"expression": "ofi_l1_1s", "template": {"kind": "taker"}}, "template"),
    ],
)
def test_a_manifest_that_does_not_fit_names_the_field(tmp_path, changes, field):
    error = refusal(registry.load_alpha, edited(tmp_path, **changes))
    assert error.code == ReasonCode.MANIFEST_INVALID
    assert field in error.message


def test_a_parameter_that_is_used_nowhere_is_refused(tmp_path):
    parameters = {"entry": {"default": 1.0, "grid": [1.0]}, "idle": {"default": 1.0, "grid": [1.0]}}
    assert "idle" in refusal(registry.load_alpha, edited(tmp_path, parameters=parameters)).message


def test_a_template_that_names_an_undeclared_parameter_is_refused(tmp_path):
    error = refusal(
        registry.load_alpha,
        edited(tmp_path, parameters={}, expression="0.5 * ofi_l1_1s"),
    )
    assert "$entry" in error.message


def test_a_key_written_twice_is_refused(tmp_path):
    folder = edited(tmp_path)
    with (folder / "manifest.yaml").open("a") as file:
        file.write("ttl_ms: 1\n")
    assert refusal(registry.load_alpha, folder).code == ReasonCode.MANIFEST_INVALID


def test_a_manifest_in_the_wrong_folder_is_refused(tmp_path):
    shutil.copytree(TXF, tmp_path / "other_name")
    assert "other_name" in refusal(registry.load_alpha, tmp_path / "other_name").message


def test_an_unknown_feature_is_refused_with_a_suggestion(tmp_path):
    alpha = registry.load_alpha(edited(tmp_path, expression="0.5 * ofi_l1_2s"))
    error = refusal(registry.check_expression, alpha)
    assert error.code == ReasonCode.UNKNOWN_FEATURE
    assert error.facts["suggestion"] == "ofi_l1_1s"
    assert "ofi_l1_1s" in error.next_step


def test_an_expression_that_does_not_parse_is_refused_with_its_position(tmp_path):
    alpha = registry.load_alpha(edited(tmp_path, expression="0.5 * (ofi_l1_1s"))
    error = refusal(registry.check_expression, alpha)
    assert error.code == ReasonCode.EXPRESSION_INVALID
    assert error.facts["position"] == len("0.5 * (ofi_l1_1s")
    lines = error.render().splitlines()
    assert lines[1:3] == ["    0.5 * (ofi_l1_1s", "                    ^"]


def test_a_window_is_no_use_of_a_parameter(tmp_path):
    """The s of 30s once counted as a use of a parameter named s."""
    changes = {
        "expression": "gain * ema(ofi_l1_1s, 30s)",
        "parameters": {name: {"default": 1.0, "grid": [1.0, 2.0]} for name in ("gain", "s")},
    }
    template = {"kind": "taker", "entry_ticks": 1.0, "exit_ticks": 0.0, "hold_ns": 10**9,
                "slippage_ticks": 1}  # fmt: skip
    folder = edited(tmp_path, template=template, **changes)
    assert "parameter s is used nowhere" in refusal(registry.load_alpha, folder).message


def test_a_key_of_an_edited_alpha_is_stale():
    alpha = registry.find_alpha("txf_ofi_taker")
    assert registry.find_alpha(alpha.key) == alpha
    error = refusal(registry.find_alpha, "txf_ofi_taker@000000000000")
    assert error.code == ReasonCode.VERDICT_STALE


def test_an_unknown_alpha_is_refused_with_the_known_ones():
    assert "txf_ofi_taker" in refusal(registry.find_alpha, "txf_ofi_taker2").message


def sessions(count: int) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(session_id=f"s{i}", start_ns=i, symbol="X") for i in reversed(range(count))
    ]


@pytest.mark.parametrize(
    ("count", "shares", "expected"),
    [
        (4, (0.5, 0.25, 0.25), (2, 1, 1)),
        (60, (0.35, 0.35, 0.3), (21, 21, 18)),
        (5, (0.5, 0.25, 0.25), (2, 1, 2)),
        (1, (0.5, 0.25, 0.25), (0, 0, 1)),
        (0, (0.5, 0.25, 0.25), (0, 0, 0)),
    ],
)
def test_roles_follow_each_other_in_time_and_cover_every_session(count, shares, expected):
    roles = DataRoles(in_sample=shares[0], out_of_sample=shares[1], frozen=shares[2])
    made = registry.assign_roles(sessions(count), roles)
    assert (len(made.in_sample), len(made.out_of_sample), len(made.frozen)) == expected
    assert [s.start_ns for s in made.judged + made.frozen] == list(range(count))


def test_another_split_of_the_same_days_is_another_trial():
    splits = [(0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.5, 0.5, 0.0)]
    windows = {
        registry.assign_roles(
            sessions(20), DataRoles(in_sample=a, out_of_sample=b, frozen=c)
        ).window
        for a, b, c in splits
    }
    assert len(windows) == 3
    assert "in sample s0..s9 (10), out of sample s10..s14 (5)" in windows


def test_the_grid_is_the_product_of_all_grids_in_a_fixed_order(tmp_path):
    alpha = registry.load_alpha(
        edited(
            tmp_path,
            expression="gain * ofi_l1_1s",
            parameters={
                "gain": {"default": 1.0, "grid": [1.0, 2.0]},
                "entry": {"default": 0.5, "grid": [0.5, 1.5]},
            },
        )
    )
    assert alpha.manifest.grid() == [
        {"entry": 0.5, "gain": 1.0},
        {"entry": 0.5, "gain": 2.0},
        {"entry": 1.5, "gain": 1.0},
        {"entry": 1.5, "gain": 2.0},
    ]
