"""Two throw-away workspaces beside the real one, in which a rehearsal works.

Why: gates D and E read verdicts, permits and signed sessions from a workspace, and a rehearsal has
none that may count. It makes its own, in a place that nothing else looks at, under keys that
nothing else trusts.

Invariants:
1. `desk` sees the real workspace through links and holds verdicts of its own; `runtime` sees its
   datasets only, and has keys, permits and sessions of its own. The trial ledger is the real one.
2. Every verdict in them is `not_computed`, so even copied it opens no gate.
3. Their keys are gone when they are closed: what was signed there verifies nowhere.

It judges nothing. Operator's page: `docs/rehearsal.md`.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hft_platform.config.canonical import atomic_write, canonical_sha256, write_once
from hft_platform.config.keys import key_folder, signing_key
from hft_platform.config.promoted import PromotedContent, render_config, signed_message
from hft_platform.config.promotion_folder import issued_path, promotions_root
from hft_platform.config.settings import load_settings
from hft_platform.market.instruments import load_instruments
from hft_platform.services.session_runner import RunRequest, run_session
from research.gates.verdict import Verdict, verdict_folder

if TYPE_CHECKING:
    from research.data.catalog import SessionRef
    from research.gates.context import GateContext

_OWN = frozenset({"rehearsals", "sessions", "verdicts"})
"""Folders of the real workspace that a desk does not see."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The two workspaces of one rehearsal."""

    judging: Path
    runtime: Path


def rehearsals_folder(ws: Path) -> Path:
    """Folder of a workspace's rehearsals."""
    return ws / "rehearsals"


@contextlib.contextmanager
def open_desk(ws: Path, alpha_key: str, *, keep: bool) -> Iterator[Desk]:
    """Make both workspaces and take them away again.

    Parameters
    ----------
    ws : Path
        The real workspace.
    alpha_key : str
        Who rehearses; its own verdicts are left out.
    keep : bool
        Leave folders and logs, without the keys, under ``rehearsals/<alpha_key>-kept``.

    Yields
    ------
    Desk
    """
    root = rehearsals_folder(ws)
    root.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=root, prefix=".work-"))
    try:
        desk = Desk(work / "desk", work / "runtime")
        _link_desk(ws.absolute(), desk.judging, alpha_key)
        desk.runtime.mkdir()
        (desk.runtime / "datasets").symlink_to(ws.absolute() / "datasets")
        yield desk
        shutil.rmtree(key_folder(desk.runtime), ignore_errors=True)
        if keep:
            kept = root / f"{alpha_key}-kept"
            shutil.rmtree(kept, ignore_errors=True)
            work.rename(kept)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _link_desk(ws: Path, desk: Path, alpha_key: str) -> None:
    desk.mkdir()
    for path in sorted(ws.iterdir()):
        if path.name not in _OWN:
            (desk / path.name).symlink_to(path)
    (desk / "verdicts").mkdir()
    for path in sorted((ws / "verdicts").glob("*")):
        if path.name != alpha_key:
            (desk / "verdicts" / path.name).symlink_to(path)


def leave_verdict(folder: Path, alpha_key: str, verdict: Verdict) -> None:
    """Put a rehearsed verdict where later gates of the same rehearsal read it.

    Parameters
    ----------
    folder : Path
        One of the desk's workspaces.
    alpha_key : str
        Whose verdict it is.
    verdict : Verdict
        `not_computed`; it goes on no record.
    """
    place = verdict_folder(folder, alpha_key)
    write_once(place / f"{verdict.gate}-{verdict.sha256[:12]}.json", verdict.to_bytes())
    atomic_write(place / f"{verdict.gate}.head", f"{verdict.sha256}\n")


def run_shadow(
    context: GateContext,
    runtime: Path,
    verdicts: Mapping[str, Verdict],
    session: SessionRef,
    *,
    config_dir: Path | None,
) -> None:
    """Run one session in the real runtime, in sim, under a permit that only it trusts.

    Parameters
    ----------
    context : GateContext
        Alpha and what it is judged by.
    runtime : Path
        The desk's runtime workspace.
    verdicts : mapping of str to Verdict
        Rehearsed ones of gates A and B, and of C when it chose: the permit names them.
    session : SessionRef
        A frozen one.
    config_dir : Path or None
        Configuration of one's own.
    """
    request = RunRequest(runtime, _permit(context, runtime, verdicts, config_dir), session, "sim")
    run_session(
        request, instruments=load_instruments(config_dir), settings=load_settings(config_dir)
    )


def _permit(
    context: GateContext,
    runtime: Path,
    verdicts: Mapping[str, Verdict],
    config_dir: Path | None,
) -> Path:
    from research.promotion.permit import permit_content

    alpha = context.alpha
    settings = load_settings(config_dir)
    content = permit_content(
        runtime,
        alpha,
        "shadow",
        verdicts,
        weight_ppm=alpha.manifest.gate_weight_ppm,
        symbol=None,
        validity_days=settings.promotion_validity_days,
        config_dir=config_dir,
    ) | {"promotion_seq": 1}
    PromotedContent.model_validate(content)
    path = issued_path(promotions_root(runtime), alpha.alpha_id, 1, canonical_sha256(content))
    if not path.exists():
        key = signing_key(runtime, "promotion")
        signature = key.sign(signed_message(content))
        write_once(path, render_config(content, key_id=key.key_id, signature=signature))
    return path
