"""Permits: promote, canary, withdraw, reduce, retire, and the signer."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from research.commands.common import DONE, alpha_of, print_result, user_of, workspace_of


def promote(arguments: argparse.Namespace) -> int:
    """Ask the signer for a permit."""
    from research.promotion.promote import promote

    promotion = promote(
        workspace_of(arguments),
        alpha_of(arguments),
        stage=arguments.stage,
        by=user_of(arguments),
        why=arguments.why,
        symbol=arguments.symbol,
        weight_ppm_max=arguments.weight_ppm_max,
        config_dir=arguments.config_dir,
    )
    facts = promotion.as_dict()
    run = f"hft-live run --mode paper --alpha {promotion.alpha_id} --session SESSION"
    if promotion.stage == "live":
        run = f"hft-live run --mode live --alpha {promotion.alpha_id} --check"
    state = "signed" if promotion.is_new else "already in force"
    print_result(
        arguments,
        facts,
        lambda: (
            f"{state}: {promotion.alpha_key} {promotion.stage} "
            f"{promotion.weight_ppm / 1e4:g} % sequence {promotion.promotion_seq}\n"
            f"  {promotion.head}\n"
            f"next: {run}"
        ),
    )
    return DONE


def canary(arguments: argparse.Namespace) -> int:
    """Say, or carry out, what a canary's sessions lead to."""
    from hft_platform.errors import PlatformError
    from research.promotion.canary import Action
    from research.promotion.canary_judge import UnjudgedCanaryError, judge_canary
    from research.promotion.promote import run_canary

    ws, alpha = workspace_of(arguments), alpha_of(arguments)
    try:
        if arguments.apply:
            decision = run_canary(ws, alpha, by=user_of(arguments), config_dir=arguments.config_dir)
        else:
            decision = judge_canary(ws, alpha, config_dir=arguments.config_dir)
    except UnjudgedCanaryError as error:
        done = "it was withdrawn" if arguments.apply else "--apply would withdraw it"
        raise PlatformError(
            error.code, f"{error.message}; {done}", next_step=error.next_step, facts=error.facts
        ) from error
    facts = decision.as_dict()

    def text() -> str:
        lines = [f"{decision.action} at {decision.weight_ppm / 1e4:g} %"]
        if decision.action is Action.ROLL_BACK and not arguments.apply:
            lines[0] += "; --apply would withdraw it"
        lines += [f"  {r['name']} ({r['code']}): {r['text']}, {r['observed']} against {r['limit']}"
                  for r in facts["reasons"]]  # fmt: skip
        lines += [f"  {name}: {value}" for name, value in sorted(decision.facts.items())]
        return "\n".join(lines)

    print_result(arguments, facts, text)
    return DONE


def withdraw(arguments: argparse.Namespace) -> int:
    """Take a promotion back."""
    from research.promotion.withdrawal import withdraw

    done = withdraw(
        workspace_of(arguments), arguments.alpha_id, by=user_of(arguments), why=arguments.why
    )
    _less_risk(arguments, done, "withdrawn" if done.is_new else "was withdrawn before")
    return DONE


def retire(arguments: argparse.Namespace) -> int:
    """Give an alpha up."""
    from research.promotion.retire import retire as retire_alpha

    done = retire_alpha(
        workspace_of(arguments),
        alpha_of(arguments),
        by=user_of(arguments),
        why=arguments.why,
        config_dir=arguments.config_dir,
    )
    state = "retired" if done.is_new else "was retired before"
    taken = f", issues up to {done.withdrawn_seq} are withdrawn" if done.withdrawn_seq else ""
    print_result(
        arguments,
        done.as_dict(),
        lambda: (
            f"{done.alpha_id} {state} (audit entry {done.audit_entry}){taken}\n"
            "no version of it is promoted again"
        ),
    )
    return DONE


def reduce(arguments: argparse.Namespace) -> int:
    """Lower a weight."""
    from research.promotion.withdrawal import reduce_weight

    done = reduce_weight(
        workspace_of(arguments),
        arguments.alpha_id,
        weight_ppm=arguments.weight_ppm,
        by=user_of(arguments),
        why=arguments.why,
    )
    _less_risk(arguments, done, f"lowered to {done.weight_ppm / 1e4:g} %")
    return DONE


def _less_risk(arguments: argparse.Namespace, done: Any, state: str) -> None:
    # Any: Withdrawal, imported lazily to keep the signer's start light.
    print_result(
        arguments,
        done.as_dict(),
        lambda: (
            f"{done.alpha_id} {state} (sequence {done.promotion_seq}); a running session acts "
            "within a second"
        ),
    )
    if done.audit_problem:
        sys.stderr.write(f"it holds, but the audit chain has no entry: {done.audit_problem}\n")


def sign(arguments: argparse.Namespace) -> int:
    """The signer."""
    from hft_platform.config.settings import load_settings
    from research.promotion.sign import SignerContext, read_request, sign_request

    context = SignerContext(
        workspace=workspace_of(arguments),
        settings=load_settings(arguments.config_dir),
        alphas_folder=arguments.alphas,
        config_dir=arguments.config_dir,
    )
    promotion = sign_request(read_request(arguments.request), context)
    state = "signed" if promotion.is_new else "already in force"
    print_result(arguments, promotion.as_dict(), lambda: f"{state}: {promotion.path}")
    return DONE


def approve(arguments: argparse.Namespace) -> int:
    """The second person's signature."""
    from hft_platform.config.settings import load_settings
    from research.promotion.approve import approve

    alpha = alpha_of(arguments)
    approval = approve(
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
