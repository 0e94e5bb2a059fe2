"""Keys and the audit chain."""

from __future__ import annotations

import argparse

from research.commands.common import DONE, print_result, workspace_of


def keys(arguments: argparse.Namespace) -> int:
    """Make a promotion key."""
    from hft_platform.config.keys import make_key

    key = make_key(arguments.out)
    facts = {"role": key.role, "key_id": key.key_id, "public": key.public_hex,
             "file": str(arguments.out)}  # fmt: skip
    print_result(
        arguments,
        facts,
        lambda: (
            f"made {arguments.out} (mode 0600): promotion key {key.key_id}\n"
            "next: add this line to the file that the setting pinned_keys_file names, "
            "outside every\n"
            f"      checkout, and set promotion_key_file to {arguments.out} for the signer only:\n"
            f"promotion {key.public_hex}"
        ),
    )
    return DONE


def verify_audit(arguments: argparse.Namespace) -> int:
    """Verify the audit chain."""
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
