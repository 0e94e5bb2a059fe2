"""Tampering with what a promotion leaves: the audit chain, permits, sessions, keys.

Each function changes something and returns what somebody honest does next.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from hft_platform.config.canonical import canonical_json
from hft_platform.config.keys import key_folder, signing_key
from hft_platform.config.promoted import render_config, signed_message
from hft_platform.config.promotion_folder import head_config, head_path, issued_path
from hft_platform.config.wall_clock import checked_time_ns
from hft_platform.services.session_summary import sign_summary, write_summary
from research.promotion import audit
from research.promotion.withdrawal import reduce_weight, withdraw
from tests.research.tampering.tampered_desk import (
    ALPHA_ID,
    CANARY_SESSIONS,
    OTHER_ID,
    SHADOW_SESSIONS,
    Desk,
)

NEXT = SHADOW_SESSIONS + CANARY_SESSIONS


# --- audit --------------------------------------------------------------------------


def _chain(desk: Desk, change: Callable[[list[bytes]], list[bytes]]) -> Callable[[], Any]:
    path = audit.chain_path(desk.ws)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))
    return desk.sign


def delete_audit_row(desk: Desk) -> Callable[[], Any]:
    return _chain(desk, lambda lines: lines[:4] + lines[5:])


def edit_audit_row(desk: Desk) -> Callable[[], Any]:
    return _chain(
        desk, lambda lines: [line.replace(b'"an author"', b'"a nobody"') for line in lines]
    )


def truncate_audit(desk: Desk) -> Callable[[], Any]:
    return _chain(desk, lambda lines: lines[:-2])


def reorder_audit(desk: Desk) -> Callable[[], Any]:
    return _chain(desk, lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]])


def delete_audit(desk: Desk) -> Callable[[], Any]:
    audit.chain_path(desk.ws).unlink()
    audit.head_path(desk.ws).unlink()
    return desk.sign


def put_old_audit_back(desk: Desk) -> Callable[[], Any]:
    old = audit.chain_path(desk.ws).read_bytes(), audit.head_path(desk.ws).read_bytes()
    withdraw(desk.ws, ALPHA_ID, by="an operator", why="a doubt")
    desk.sign()
    audit.chain_path(desk.ws).write_bytes(old[0])
    audit.head_path(desk.ws).write_bytes(old[1])
    return desk.sign


# --- permits ------------------------------------------------------------------------


def edit_config(desk: Desk) -> Callable[[], Any]:
    path = head_config(desk.ws, ALPHA_ID)
    text = path.read_text()
    weight = desk.content(path).weight_ppm
    path.write_text(text.replace(f"weight_ppm: {weight}", "weight_ppm: 1000000"))
    return desk.trade_next


def reuse_old_config(desk: Desk) -> Callable[[], Any]:
    return lambda: desk.trade(NEXT, path=desk.issues()[0])


def reuse_old_config_and_remove_newer(desk: Desk) -> Callable[[], Any]:
    old, new = desk.issues()
    content = desk.content(new)
    head_path(desk.promotions, ALPHA_ID, content.issued_trading_day).unlink()
    new.unlink()
    (desk.ws / "state" / "promotion_seq.json").unlink()
    return lambda: desk.trade(NEXT, path=old)


def roll_sequence_back(desk: Desk) -> Callable[[], Any]:
    path = desk.ws / "state" / "promotion_seq.json"
    content = json.loads(path.read_bytes())
    content["seqs"][ALPHA_ID] = 1
    path.write_bytes(canonical_json(content))
    return desk.trade_next


def _sign_by_hand(desk: Desk, ws: Path, **changes: Any) -> Path:
    """A config signed with the promotion key of `ws`, put in as the newest issue."""
    content = yaml.safe_load(head_config(desk.ws, ALPHA_ID).read_bytes())
    del content["signature"]
    content |= changes
    key = signing_key(ws, "promotion")
    raw = render_config(content, key_id=key.key_id, signature=key.sign(signed_message(content)))
    seq = content["promotion_seq"]
    issued_path(desk.promotions, ALPHA_ID, seq, "f" * 64).write_bytes(raw)
    head = head_path(desk.promotions, ALPHA_ID, content["issued_trading_day"])
    head.write_bytes(raw)
    return head


def sign_with_unpinned_key(desk: Desk) -> Callable[[], Any]:
    _sign_by_hand(desk, desk.root / "elsewhere", promotion_seq=9, weight_ppm=1_000_000)
    return desk.trade_next


def sign_live_with_automatic_key(desk: Desk) -> Callable[[], Any]:
    _sign_by_hand(desk, desk.ws, promotion_seq=9, stage="live")
    return desk.trade_next


def issue_without_record(desk: Desk) -> Callable[[], Any]:
    """The promotion key was stolen: its config is not in the chain, so nothing is signed on it."""
    _sign_by_hand(desk, desk.ws, promotion_seq=9, weight_ppm=1_000_000)
    return desk.sign


def copy_to_another_workspace(desk: Desk) -> Callable[[], Any]:
    other = Desk(desk.root / "other")
    shutil.copytree(desk.alphas, other.alphas)
    other.config_dir.mkdir()
    shutil.copytree(desk.ws / "datasets", other.ws / "datasets")
    shutil.copytree(desk.promotions, other.promotions)
    signing_key(other.ws, "promotion")
    return other.trade_next


def put_in_place_of_another_alpha(desk: Desk) -> Callable[[], Any]:
    head = head_config(desk.ws, ALPHA_ID)
    head_config(desk.ws, OTHER_ID).write_bytes(head.read_bytes())
    return lambda: desk.trade(NEXT, path=head_config(desk.ws, OTHER_ID))


def ask_for_more_weight(desk: Desk) -> Callable[[], Any]:
    return lambda: desk.sign(weight_ppm_max=1_000_000)


def remove_withdrawal(desk: Desk) -> Callable[[], Any]:
    withdraw(desk.ws, ALPHA_ID, by="an operator", why="a doubt").path.unlink()
    return desk.trade_next


def deny_a_rollback(desk: Desk) -> Callable[[], Any]:
    """The rolled-back canary's file says that nothing was wrong with the evidence."""
    done = withdraw(desk.ws, ALPHA_ID, by="the canary", why="the edge is gone", is_rolled_back=True)
    content = json.loads(done.path.read_bytes())
    done.path.chmod(0o644)
    done.path.write_bytes(canonical_json(content | {"is_rolled_back": False}))
    return desk.sign


def raise_a_lowered_weight(desk: Desk) -> Callable[[], Any]:
    """Not refused but without effect: the weight in force stays where a person put it."""
    head = desk.content(head_config(desk.ws, ALPHA_ID))
    lowered = reduce_weight(desk.ws, ALPHA_ID, weight_ppm=head.weight_ppm // 2, by="p", why="w")
    lowered.path.unlink()
    folder = desk.trade_next()
    evidence = json.loads((folder / "summary.json").read_bytes())["evidence"]
    assert evidence["weight_ppm"] == head.weight_ppm // 2
    return lambda: reduce_weight(
        desk.ws, ALPHA_ID, weight_ppm=head.weight_ppm, by="p", why="back up"
    )


def set_clock_back(desk: Desk) -> Callable[[], Any]:
    expires_ns = desk.content(head_config(desk.ws, ALPHA_ID)).expires_ns
    checked_time_ns(desk.ws, expires_ns + 1)  # the runtime saw a time behind the expiry
    return lambda: checked_time_ns(desk.ws, expires_ns - 60_000_000_000)


def edit_expiry(desk: Desk) -> Callable[[], Any]:
    path = head_config(desk.ws, ALPHA_ID)
    expires_ns = desk.content(path).expires_ns
    path.write_text(path.read_text().replace(str(expires_ns), str(expires_ns * 2)))
    return desk.trade_next


def trade_what_was_judged(desk: Desk) -> Callable[[], Any]:
    return lambda: desk.trade(0)


# --- sessions -----------------------------------------------------------------------


def edit_summary(desk: Desk) -> Callable[[], Any]:
    path = desk.summaries("canary")[0]
    content = json.loads(path.read_bytes())
    account = content["evidence"]["account"]
    account["gross"] += 10**12
    account["net"] += 10**12
    path.write_bytes(canonical_json(content) + b"\n")
    return desk.sign


def _typed_in(desk: Desk, ws: Path) -> None:
    path = desk.summaries("canary")[-1]
    evidence = json.loads(path.read_bytes())["evidence"]
    run_id = evidence["run_id"].replace(evidence["session_id"][:10], "2099-12-31")
    evidence |= {"run_id": run_id, "session_id": "2099-12-31/day", "tape_sha256": "0" * 64}
    target = path.parent.parent / run_id / "summary.json"
    write_summary(target, sign_summary(evidence, {}, signing_key(ws, "session")))


def type_in_summary(desk: Desk) -> Callable[[], Any]:
    _typed_in(desk, desk.root / "elsewhere")
    return desk.sign


def replay_summary_of_another(desk: Desk) -> Callable[[], Any]:
    other = next((desk.ws / "sessions").glob(f"*-{OTHER_ID}-shadow/summary.json"))
    shutil.copy(other, desk.summaries("canary")[0])
    return desk.sign


def count_a_session_twice(desk: Desk) -> Callable[[], Any]:
    folder = desk.summaries("canary")[0].parent
    stem, _, rest = folder.name.partition("-")
    shutil.copytree(folder, folder.parent / f"{stem}b-{rest}")
    return desk.sign


def delete_session(desk: Desk) -> Callable[[], Any]:
    shutil.rmtree(desk.summaries("canary")[-1].parent)
    return desk.sign


def cut_register(desk: Desk) -> Callable[[], Any]:
    """The session and its line in the register, which is not the last one."""
    folder = desk.summaries("canary")[-1].parent
    shutil.rmtree(folder)
    path = desk.ws / "state" / "sessions.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if folder.name.encode() not in line))
    return desk.sign


def delete_summary(desk: Desk) -> Callable[[], Any]:
    desk.summaries("canary")[0].unlink()
    return desk.sign


# --- keys ---------------------------------------------------------------------------


def open_a_key(desk: Desk) -> Callable[[], Any]:
    (key_folder(desk.ws) / "promotion.key").chmod(0o644)
    return desk.sign
