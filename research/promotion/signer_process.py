"""Run the signer as a process of its own and bring its answer back, refusals with their codes.

Why: whoever asks for a promotion must never hold the promotion key in its memory.

Invariants:
1. The signer gets a file name and no value: what is signed is derived on its side.
2. It ends within `SIGNER_SECONDS_MAX`, or nothing is known to be signed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hft_platform.errors import PlatformError, ReasonCode

SIGNER_SECONDS_MAX = 120


def run_signer(
    ws: Path, request: Path, *, alphas_folder: Path, config_dir: Path | None
) -> dict[str, Any]:
    """Have a request signed.

    Parameters
    ----------
    ws : Path
        Workspace.
    request : Path
        As `promote` wrote it.
    alphas_folder : Path
        Folder of the alphas.
    config_dir : Path or None
        Folder with overriding settings.

    Returns
    -------
    dict
        What `hft-research sign --json` printed (Any: JSON content).

    Raises
    ------
    PlatformError
        The signer's refusal; PROMOTION_NOT_PERMITTED when it did not end in time,
        INVARIANT_BROKEN when it gave no answer.
    """
    import research

    command = [
        sys.executable, "-m", "research.cli", "sign", str(request), "--json",
        "--workspace", str(ws), "--alphas", str(alphas_folder),
    ]  # fmt: skip
    if config_dir is not None:
        command += ["--config-dir", str(config_dir)]
    root = str(Path(str(research.__file__)).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    try:
        finished = subprocess.run(
            command, env=environment, capture_output=True, timeout=SIGNER_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise PlatformError(
            ReasonCode.PROMOTION_NOT_PERMITTED,
            f"the signer did not answer within {SIGNER_SECONDS_MAX} s; nothing is known signed",
            next_step=f"hft-research sign {request}",
        ) from error
    try:
        answer: dict[str, Any] = json.loads(finished.stdout)
    except ValueError as error:
        tail = finished.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise PlatformError(
            ReasonCode.INVARIANT_BROKEN,
            f"the signer ended with {finished.returncode} and no answer: {' '.join(tail)}",
            next_step=f"hft-research sign {request}",
        ) from error
    if "error" in answer:
        raise PlatformError(
            answer["code"],
            answer["message"],
            next_step=answer["next"],
            facts=answer["facts"],
        )
    return answer
