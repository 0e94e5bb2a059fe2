"""Start an alpha: a manifest that explains itself and a test to fill in."""

from __future__ import annotations

from pathlib import Path

from hft_platform.config.canonical import write_once
from hft_platform.config.promotion_folder import ALPHA_ID
from hft_platform.errors import PlatformError, ReasonCode
from research.registry import bundled_folder

MANIFEST_TEXT = """\
# What this alpha claims, and everything it may do. docs/alphas.md explains every field.
# Any later change is another alpha: it gets a new hash and inherits no verdict.
alpha_id: {alpha_id}
owner: {owner}
hypothesis: >-
  Say in two sentences who is on the other side of these trades, and why they keep paying.
references: ["a paper, a page, or 'own idea' with the date"]
expected_sign: 1
instruments: [TXFD6]
label_horizon_s: 10.0
# Ticks of expected move. hft-research gates {alpha_id} names the features when one is unknown.
expression: k * imbalance_l1
# Every value of every grid counts as a trial, whether or not you look at it.
parameters:
  k: {{default: 2.0, grid: [1.0, 2.0, 4.0]}}
# What is done about the signal; docs/strategies.md explains every number.
template:
  kind: {kind}
{template}
order_qty_lots: 10
ttl_ms: 500
limits:
  order_qty_lots_max: 10
  position_qty_lots_max: 10
  daily_loss_max: 200000
  drawdown_max: 200000
  loss_speed_max: 100000
  order_rate_max: 60
gate_weight_ppm: 100000
latency_profile: shioaji_live_2026_04
queue_model: power_prob3
data_roles: {{in_sample: 0.4, out_of_sample: 0.4, frozen: 0.2}}
on_withdrawal: {{action: flatten, deadline_ms: 10000}}
"""

TAKER_TEXT = """\
  entry_ticks: 2.5
  exit_ticks: 0.0
  hold_ns: 10000000000
  slippage_ticks: 1"""
FIXED_TEXT = """\
  half_spread_ticks: 2.0
  inventory_skew_ticks: 0.5
  signal_skew: 1.0
  requote_ticks: 1.0"""
QUEUE_TEXT = """\
  requote_gain_ticks: 0.1
  queue_lots: 10.0
  edge_ticks_min: 0.25"""
MODEL_TEXT = """\
  gamma: 0.05
  k: 0.5
  sigma_source: measured
  sigma_ticks: 0.1
  signal_skew: 1.0
  requote_ticks: 1.0"""
TARGET_TEXT = """\
  ticks_per_clip: 2.0
  dead_band_ticks: 2.0
  clips_max: 1.0
  trade_clips_min: 1.0
  patience_ns: 2000000000
  requote_ticks: 1.0
  slippage_ticks: 1"""
TEMPLATE_TEXTS = {
    "taker": TAKER_TEXT,
    "cost_taker": f"{TAKER_TEXT}\n  cost_margin_ticks: 0.5",
    "maker": FIXED_TEXT,
    "queue_maker": f"{FIXED_TEXT}\n{QUEUE_TEXT}",
    "avellaneda_stoikov_maker": (
        f"{MODEL_TEXT}\n  horizon: rolling\n  horizon_ns: 10000000000\n{QUEUE_TEXT}"
    ),
    "glft_maker": f"{MODEL_TEXT}\n  fills_per_s: 0.5\n{QUEUE_TEXT}",
    "target": TARGET_TEXT,
}
"""Numbers to start from, by kind; none of them is advice."""

TEST_TEXT = '''\
"""Tests of {alpha_id}: cases by hand. Gate B runs them; it needs two or more."""

from __future__ import annotations

from pathlib import Path

from research.registry import load_alpha


def test_the_default_is_among_the_values_that_are_tried() -> None:
    manifest = load_alpha(Path(__file__).parent).manifest
    assert all(p.default in p.grid for p in manifest.parameters.values())


def test_the_position_limit_holds_one_clip() -> None:
    manifest = load_alpha(Path(__file__).parent).manifest
    assert manifest.limits.position_qty_lots_max >= manifest.order_qty_lots
'''


def write_new_alpha(
    alpha_id: str, *, owner: str, folder: Path | None = None, kind: str = "taker"
) -> list[Path]:
    """Write a manifest and a test that a person completes.

    Parameters
    ----------
    alpha_id : str
        New name: instrument, idea, style.
    owner : str
        Who answers for it.
    folder : Path, optional
        Folder of alphas, the bundled ones by default.
    kind : str, optional
        Template to start from, one of `TEMPLATE_TEXTS`.

    Returns
    -------
    list of Path
        Files written.

    Raises
    ------
    PlatformError
        MANIFEST_INVALID for a name that is not one, or is taken, and for an unknown kind.
    """
    if kind not in TEMPLATE_TEXTS:
        raise PlatformError(
            ReasonCode.MANIFEST_INVALID,
            f"template kind was {kind!r}; allowed: {', '.join(sorted(TEMPLATE_TEXTS))}",
        )
    if not ALPHA_ID.match(alpha_id):
        raise PlatformError(
            ReasonCode.MANIFEST_INVALID,
            f"alpha id was {alpha_id!r}; it starts with a letter and holds a-z, 0-9 and _",
            next_step="hft-research new txf_ofi_maker",
        )
    target = (folder or bundled_folder()) / alpha_id
    if target.exists():
        raise PlatformError(
            ReasonCode.MANIFEST_INVALID,
            f"{target} exists; an alpha's name is never reused",
            next_step=f"hft-research show {alpha_id}, or choose another name",
        )
    texts = {"manifest.yaml": MANIFEST_TEXT, "test_alpha.py": TEST_TEXT}
    for name, text in texts.items():
        filled = text.format(
            alpha_id=alpha_id, owner=owner, kind=kind, template=TEMPLATE_TEXTS[kind]
        )
        write_once(target / name, filled, mode=0o644)
    return [target / name for name in texts]
