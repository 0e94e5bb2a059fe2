"""Keys and the audit chain."""

from __future__ import annotations

import argparse
import sys

from research.commands.common import DONE, REFUSED, USAGE, print_result, user_of, workspace_of


def keys(arguments: argparse.Namespace) -> int:
    """Make a key."""
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
    """Verify the audit chain, or put something on record."""
    from research.promotion.audit import verify_chain

    if arguments.action != "verify":
        return _audit_record(arguments)
    from research.promotion.audit_check import workspace_problems

    entries = verify_chain(workspace_of(arguments), expected_head=arguments.head)
    head = entries[-1].hash if entries else ""
    problems = workspace_problems(workspace_of(arguments), entries)
    print_result(
        arguments,
        {"entries": len(entries), "head": head, "problems": problems},
        lambda: (
            f"{len(entries)} entries verify; head {head or 'none'}\n"
            + "".join(f"but {problem}\n" for problem in problems)
            + "note the head elsewhere: hft-research audit verify --head HASH then proves "
            "that nothing\n"
            "before it was changed, even by someone with this machine's keys"
        ),
    )
    return REFUSED if problems else DONE


def _audit_record(arguments: argparse.Namespace) -> int:
    from research.promotion import on_record

    ws, by, why = workspace_of(arguments), user_of(arguments), arguments.why
    if not why or (arguments.action == "override" and not arguments.subject):
        sys.stderr.write(f"audit {arguments.action} needs --why (and override --subject)\n")
        return USAGE
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
