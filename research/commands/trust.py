"""Keys, approvals and the audit chain."""

from __future__ import annotations

import argparse
import sys

from research.commands.common import DONE, USAGE, alpha_of, print_result, user_of, workspace_of


def approve(arguments: argparse.Namespace) -> int:
    """Sign for an alpha's evidence as the second person."""
    from hft_platform.config.settings import load_settings
    from research.promotion.approve import approve as sign_approval

    alpha = alpha_of(arguments)
    approval = sign_approval(
        workspace_of(arguments),
        alpha,
        stage=arguments.stage,
        key_file=arguments.key,
        weight_ppm_max=arguments.weight_ppm_max,
        by=user_of(arguments),
        why=arguments.why,
        pinned_file=load_settings(arguments.config_dir).pinned_keys_path,
        config_dir=arguments.config_dir,
    )
    print_result(
        arguments,
        approval.model_dump() | {"alpha_key": alpha.key, "stage": arguments.stage},
        lambda: (
            f"{approval.by} approved {alpha.key} for {arguments.stage} up to "
            f"{approval.weight_ppm_max / 1e4:g} %\n"
            f"next, by somebody else: hft-research promote {alpha.alpha_id} "
            f"--stage {arguments.stage}"
        ),
    )
    return DONE


def keys(arguments: argparse.Namespace) -> int:
    """Make a promotion or approval key."""
    from hft_platform.config.keys import make_key

    key = make_key(arguments.out, role=arguments.role)
    use = (
        f"checkout, and set promotion_key_file to {arguments.out} for the signer only:"
        if key.role == "promotion"
        else "checkout; canary and live then need this person's hft-research approve:"
    )
    facts = {"role": key.role, "key_id": key.key_id, "public": key.public_hex,
             "file": str(arguments.out)}  # fmt: skip
    print_result(
        arguments,
        facts,
        lambda: (
            f"made {arguments.out} (mode 0600): {key.role} key {key.key_id}\n"
            "next: add this line to the file that the setting pinned_keys_file names, "
            "outside every\n"
            f"      {use}\n"
            f"{key.role} {key.public_hex}"
        ),
    )
    return DONE


def audit(arguments: argparse.Namespace) -> int:
    """Verify the audit chain, or add to it."""
    if arguments.action == "verify":
        return _verify(arguments)
    why = arguments.why
    if not why or (arguments.action == "override" and not arguments.subject):
        sys.stderr.write(f"audit {arguments.action} needs --why (and override --subject)\n")
        return USAGE
    from research.promotion import on_record

    ws, by = workspace_of(arguments), user_of(arguments)
    if arguments.action == "override":
        on_record.record_override(ws, subject=arguments.subject, by=by, why=why, facts={})
        print_result(
            arguments, {"subject": arguments.subject}, lambda: "recorded; it opens nothing"
        )
        return DONE
    recorded = on_record.record_all_thresholds(ws, by=by, why=why, config_dir=arguments.config_dir)
    print_result(
        arguments,
        recorded,
        lambda: "\n".join(
            f"{file}: {'recorded' if is_new else 'on record already'}"
            for file, is_new in recorded.items()
        ),
    )
    return DONE


def _verify(arguments: argparse.Namespace) -> int:
    from research.promotion.audit import verify_chain

    entries = verify_chain(workspace_of(arguments), expected_head=arguments.head)
    head = entries[-1].hash if entries else ""
    print_result(
        arguments,
        {"entries": len(entries), "head": head},
        lambda: (
            f"{len(entries)} entries verify; head {head or 'none'}\n"
            "note the head elsewhere: hft-research audit verify --head HASH then proves "
            "that nothing\n"
            "before it was changed, even by someone with this machine's keys"
        ),
    )
    return DONE
