"""hft-research: from an idea to a permit; ``hft-research --help`` lists the commands.

Thin over the library functions that the asset graph calls. Exit codes: 0 done, 1 failed, 2 usage,
3 refused with a reason code. Every command has ``--json``.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hft_platform.errors import PlatformError, ReasonCode
from research.commands import rehearsal

if TYPE_CHECKING:
    from research.registry import Alpha

DONE, FAILED, REFUSED = 0, 1, 3
GATES_WITHOUT_SESSIONS = ("gate_a", "gate_b", "gate_c", "gate_d")
GATES = (*GATES_WITHOUT_SESSIONS, "gate_e")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except PlatformError as error:
        if arguments.json:
            sys.stdout.write(json.dumps(error.as_dict(), sort_keys=True) + "\n")
        sys.stderr.write(error.render() + "\n")
        return REFUSED
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what was finished is kept, what was not left nothing behind\n")
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hft-research",
        description="From an idea to a signed permit. An alpha is a manifest; five gates judge it; "
        "only what passed is signed, and only what is signed trades.",
        epilog="start: hft-research list; hft-research gates ID; hft-research promote ID",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, "list", _list, "List every alpha: verdict of each gate, stage and weight now.")

    new = _add(commands, "new", _new, "Start an alpha: a commented manifest and a test to fill in.")
    new.add_argument("alpha_id", metavar="ID", help="instrument_idea_style, e.g. txf_ofi_maker")
    new.add_argument("--by", default=None, help="owner (default: this user)")
    new.add_argument("--template", metavar="KIND", default="taker",
                     help="kind of template (docs/strategies.md; default: taker)")  # fmt: skip

    show = _add(commands, "show", _show, "Show an alpha: manifest, verdicts, promotions.")
    _alpha_argument(show)

    gates = _add(
        commands, "gates", _gates,
        "Run gates A to D in order, stopping at the first that is not passed; or explain verdicts.",
    )  # fmt: skip
    _alpha_argument(gates)
    gates.add_argument("--gate", choices=GATES, help="run this gate only (gate_e reads sessions)")
    gates.add_argument(
        "--why", action="store_true",
        help="run nothing: name the nearest failing threshold, and the days or edge that decide",
    )  # fmt: skip
    rehearsal.add_options(gates)

    agree = _add(
        commands, "agree", _agree,
        "Compare the paper exchange with the hftbacktest package, fill by fill, on one session: "
        "maker and taker, three latencies, three queue models.",
    )  # fmt: skip
    agree.add_argument(
        "data", nargs="?", type=Path, metavar="DATA",
        help="folder with recordings (default: a generated session)",
    )  # fmt: skip
    agree.add_argument("--session", help="session of DATA, e.g. 2026-04-10/day (default: largest)")

    prototype = _add(
        commands, "prototype", _prototype,
        "SLOW: run a plain Python strategy on one recorded session. For prototypes: at most "
        "shadow, no gate, no verdict, no permit.",
    )  # fmt: skip
    prototype.add_argument("file", type=Path, metavar="FILE.py", help="defines SPEC and strategy")
    prototype.add_argument("--session", required=True, help="e.g. 2026-04-10/day")
    prototype.add_argument(
        "--step", type=int, default=1, help="inputs between two calls of the strategy (default 1)"
    )

    promote = _add(
        commands, "promote", _promote,
        "Ask the signer for a permit: shadow needs gates A and B, canary and live all five.",
    )  # fmt: skip
    _alpha_argument(promote)
    promote.add_argument("--stage", choices=("shadow", "canary", "live"), default="shadow")
    promote.add_argument("--symbol", help="one instrument, when an alpha has several")
    promote.add_argument("--weight-ppm-max", type=int, help="ask for less than evidence carries")
    _why_argument(promote, required=False)

    canary = _add(
        commands, "canary", _canary,
        "Say what a canary's signed sessions lead to: hold, step up or roll back.",
    )  # fmt: skip
    _alpha_argument(canary)
    canary.add_argument("--apply", action="store_true", help="carry it out")
    canary.add_argument("--by", default=None, help="who acts (default: this user)")

    withdraw = _add(commands, "withdraw", _withdraw, "Take a promotion back at once. Needs no key.")
    withdraw.add_argument("alpha_id", metavar="ID")
    _why_argument(withdraw, required=True)

    reduce = _add(commands, "reduce", _reduce, "Lower a weight at once. Needs no key.")
    reduce.add_argument("alpha_id", metavar="ID")
    reduce.add_argument("--weight-ppm", type=int, required=True, help="below the one in force")
    _why_argument(reduce, required=True)

    sign = _add(
        commands, "sign", _sign,
        "The signer: verify all evidence for a request again, sign, record, publish. "
        "The only command that reads the promotion key.",
    )  # fmt: skip
    sign.add_argument("request", type=Path, metavar="REQUEST.json", help="as promote writes it")

    keys = _add(commands, "keys", _keys, "Make a promotion key by hand, to be pinned for live.")
    keys.add_argument("action", choices=("make",))
    keys.add_argument("--role", choices=("promotion",), default="promotion")
    keys.add_argument("--out", type=Path, required=True, help="file outside every checkout")

    audit = _add(commands, "audit", _audit, "Verify the audit chain and print its head.")
    audit.add_argument("action", choices=("verify",))
    audit.add_argument("--head", help="a head noted elsewhere; it must be in the chain")
    return parser


def _add(
    commands: Any,  # Any: argparse has no public type for it
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.add_argument(
        "--workspace", type=Path, help="folder of the workspace (default: from the settings)"
    )
    command.add_argument("--alphas", type=Path, help="folder of alphas (default: the bundled ones)")
    command.add_argument(
        "--config-dir", type=Path, help="folder that overrides packaged defaults (default: config)"
    )
    command.add_argument("--json", action="store_true", help="print JSON for scripts")
    command.set_defaults(run=run)
    return command


def _alpha_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("alpha_id", metavar="ID", help="alpha id, or id@hash of one version")


def _why_argument(command: argparse.ArgumentParser, *, required: bool) -> None:
    command.add_argument("--why", required=required, default="asked for by hand",
                         help="reason, kept in the audit chain")  # fmt: skip
    command.add_argument("--by", default=None, help="who asks (default: this user)")


def _new(arguments: argparse.Namespace) -> int:
    from research.new_alpha import write_new_alpha

    alpha_id = arguments.alpha_id
    files = write_new_alpha(
        alpha_id, owner=_user(arguments), folder=arguments.alphas, kind=arguments.template
    )
    _print(
        arguments,
        {"alpha_id": alpha_id, "files": [str(path) for path in files]},
        lambda: (
            f"{' and '.join(map(str, files))}: fill them in, then\n"
            f"next: hft-research gates {alpha_id}"
        ),
    )
    return DONE


def _list(arguments: argparse.Namespace) -> int:
    from research.promotion.overview import alpha_rows

    rows = alpha_rows(_workspace(arguments), arguments.alphas)
    _print(arguments, rows, lambda: "\n".join(_row_text(row) for row in rows) or "no alphas")
    return DONE


def _row_text(row: dict[str, Any]) -> str:
    marks = {"passed": "+", "failed": "-", "insufficient_evidence": "?", "not_computed": "!"}
    gates = " ".join(
        f"{gate[-1].upper()}{marks.get(verdict, '.')}" for gate, verdict in row["verdicts"].items()
    )
    return f"{row['alpha_key']:<48} {gates}  {row['stands_at']}"


def _show(arguments: argparse.Namespace) -> int:
    from research.promotion.overview import alpha_overview

    facts = alpha_overview(_workspace(arguments), _alpha(arguments))
    _print(arguments, facts, lambda: _show_text(facts))
    return DONE


def _show_text(facts: dict[str, Any]) -> str:
    manifest = facts["manifest"]
    lines = [
        f"{facts['alpha_key']}  {facts['stands_at']}",
        f"  {manifest['hypothesis']}",
        f"  {manifest['expression'] or manifest['kernel']}"
        f"  on {', '.join(manifest['instruments'])}",
    ]
    for gate, verdict in facts["verdicts"].items():
        lines.append(f"  {gate[-1].upper()} {verdict['verdict']}")
        lines += [f"      {reason['name']} ({reason['code']}): {reason['text']}"
                  for reason in verdict["reasons"][:3]]  # fmt: skip
    lines += [f"  issue {row['promotion_seq']}: {row['stage']} {row['weight_ppm'] / 1e4:g} %"
              for row in facts["issues"]]  # fmt: skip
    return "\n".join(lines)


def _gates(arguments: argparse.Namespace) -> int:
    from research.promotion.overview import explain_gates

    ws, alpha = _workspace(arguments), _alpha(arguments)
    if arguments.why:
        answer = explain_gates(ws, alpha)
        _print(arguments, answer, lambda: str(answer["text"]))
        return DONE
    if arguments.rehearse:
        return rehearsal.rehearse_gates(arguments, ws, alpha)
    from research.gates import run_gate

    rows = []
    for gate in (arguments.gate,) if arguments.gate else GATES_WITHOUT_SESSIONS:
        verdict = run_gate(ws, alpha, gate, config_dir=arguments.config_dir)
        rows.append(verdict.content() | {"sha256": verdict.sha256})
        if not arguments.json:
            sys.stdout.write(_verdict_text(rows[-1]) + "\n" + _expression_place(rows[-1], alpha))
            sys.stdout.flush()
        if not verdict.is_passed:
            break
    if arguments.json:
        sys.stdout.write(json.dumps(rows, sort_keys=True) + "\n")
    elif rows[-1]["verdict"] != "passed":
        sys.stdout.write(f"next: hft-research gates {alpha.alpha_id} --why\n")
    return DONE if rows[-1]["verdict"] == "passed" else REFUSED


def _expression_place(row: dict[str, Any], alpha: Alpha) -> str:
    """Where in the expression the fault is, when a verdict is about one."""
    codes = (ReasonCode.UNKNOWN_FEATURE, ReasonCode.EXPRESSION_INVALID)
    if not any(reason["code"] in codes for reason in row["reasons"]):
        return ""
    from research.registry import expression_excerpt

    excerpt = expression_excerpt(alpha) or ""
    return "".join(f"    {line}\n" for line in excerpt.splitlines())


def _verdict_text(row: dict[str, Any]) -> str:
    lines = [f"{row['gate']} {row['verdict']} {row['sha256'][:12]}"]
    lines += [f"  {item['name']} ({item['code']}): {item['text']}" for item in row["reasons"]]
    return "\n".join(lines)


def _agree(arguments: argparse.Namespace) -> int:
    import tempfile

    from research.backtest import package_agreement

    with tempfile.TemporaryDirectory(prefix="hft-agree-") as folder:
        if arguments.data is None:
            sources = [package_agreement.generated_session()]
        else:
            sources = package_agreement.recorded_sessions(
                arguments.data, Path(folder), session_id=arguments.session
            )
    results: list[dict[str, Any]] = []
    for name, tape, session, instrument in sources:
        cells = package_agreement.compare_session(tape, session, instrument)
        results.append({"session": name, "cells": [cell.as_dict() for cell in cells]})
    _print(arguments, results, lambda: "\n".join(map(_agree_text, results)))
    agrees = all(cell["agrees"] for row in results for cell in row["cells"])
    return DONE if agrees else FAILED


def _agree_text(result: dict[str, Any]) -> str:
    cells = result["cells"]
    lines = [
        f"{result['session']}: fills of the paper exchange and of the package",
        f"{'strategy':<9}{'latency':>8}  {'queue model':<13}{'orders':>8}{'fills':>8}"
        f"{'passive':>9}{'equal':>8}{'':>3}seconds",
    ]
    for cell in cells:
        mark = "" if cell["agrees"] else "  DIFFERS"
        lines.append(
            f"{cell['kind']:<9}{cell['latency_ms']:>5} ms  {cell['queue_model']:<13}"
            f"{cell['order_count']:>8}{cell['fill_count']:>8}{cell['maker_fill_count']:>9}"
            f"{cell['equal_count']:>8}{cell['seconds']:>10.2f}{mark}"
        )
    equal, fills = (sum(cell[name] for cell in cells) for name in ("equal_count", "fill_count"))
    agreeing = sum(cell["agrees"] for cell in cells)
    lines.append(
        f"{agreeing} of {len(cells)} cells agree; {equal} of {fills} fills have equal exchange"
        " time, order, price and quantity"
    )
    return "\n".join(lines)


def _prototype(arguments: argparse.Namespace) -> int:
    from research.prototype import facts_of, run_file

    folder, outcome = run_file(
        _workspace(arguments),
        arguments.file,
        arguments.session,
        step_records=max(arguments.step, 1),
        config_dir=arguments.config_dir,
    )
    facts = facts_of(folder, outcome)
    _print(arguments, facts, lambda: _prototype_text(facts))
    return DONE if facts["replayed_identical"] else FAILED


def _prototype_text(facts: dict[str, Any]) -> str:
    replayed = "identical" if facts["replayed_identical"] else "DIFFERENT"
    return "\n".join(
        [
            str(facts["speed"]),
            f"  intents   {facts['intents']} of {facts['batches']} batches, "
            f"{facts['lost_records']} records lost",
            f"  orders    {facts['approved']} approved, {facts['fills']} fills, "
            f"net {facts['net']:,.0f}",
            f"  replay    {facts['decisions']} decisions without the strategy: {replayed}",
            f"  folder    {facts['folder']}",
        ]
    )


def _promote(arguments: argparse.Namespace) -> int:
    from research.promotion.promote import promote

    promotion = promote(
        _workspace(arguments),
        _alpha(arguments),
        stage=arguments.stage,
        by=_user(arguments),
        why=arguments.why,
        symbol=arguments.symbol,
        weight_ppm_max=arguments.weight_ppm_max,
        config_dir=arguments.config_dir,
    )
    facts = promotion.as_dict()
    state = "signed" if promotion.is_new else "already in force"
    _print(
        arguments,
        facts,
        lambda: (
            f"{state}: {promotion.alpha_key} {promotion.stage} "
            f"{promotion.weight_ppm / 1e4:g} % sequence {promotion.promotion_seq}\n"
            f"  {promotion.head}\n"
            f"next: hft-live run --mode paper --alpha {promotion.alpha_id} --session SESSION"
        ),
    )
    return DONE


def _canary(arguments: argparse.Namespace) -> int:
    from hft_platform.config.settings import load_settings
    from research.gates.verdict import require_verdict
    from research.promotion.lineage import evaluate_canary
    from research.promotion.promote import run_canary

    ws, alpha = _workspace(arguments), _alpha(arguments)
    if arguments.apply:
        decision = run_canary(ws, alpha, by=_user(arguments), config_dir=arguments.config_dir)
    else:
        decision = evaluate_canary(
            ws,
            alpha,
            gate_c=require_verdict(ws, alpha, "gate_c"),
            config_dir=arguments.config_dir,
            pinned_file=load_settings(arguments.config_dir).pinned_keys_path,
        )
    facts = decision.as_dict()

    def text() -> str:
        lines = [f"{decision.action} at {decision.weight_ppm / 1e4:g} %"]
        lines += [f"  {r['name']} ({r['code']}): {r['text']}, {r['observed']} against {r['limit']}"
                  for r in facts["reasons"]]  # fmt: skip
        lines += [f"  {name}: {value}" for name, value in sorted(decision.facts.items())]
        return "\n".join(lines)

    _print(arguments, facts, text)
    return DONE


def _withdraw(arguments: argparse.Namespace) -> int:
    from research.promotion.promote import withdraw

    done = withdraw(
        _workspace(arguments), arguments.alpha_id, by=_user(arguments), why=arguments.why
    )
    _less_risk(arguments, done, "withdrawn" if done.is_new else "was withdrawn before")
    return DONE


def _reduce(arguments: argparse.Namespace) -> int:
    from research.promotion.promote import reduce_weight

    done = reduce_weight(
        _workspace(arguments),
        arguments.alpha_id,
        weight_ppm=arguments.weight_ppm,
        by=_user(arguments),
        why=arguments.why,
    )
    _less_risk(arguments, done, f"lowered to {done.weight_ppm / 1e4:g} %")
    return DONE


def _less_risk(arguments: argparse.Namespace, done: Any, state: str) -> None:
    # Any: Withdrawal, imported lazily to keep the signer's start light.
    _print(
        arguments,
        done.as_dict(),
        lambda: (
            f"{done.alpha_id} {state} (sequence {done.promotion_seq}); a running session acts "
            "within a second"
        ),
    )
    if done.audit_problem:
        sys.stderr.write(f"it holds, but the audit chain has no entry: {done.audit_problem}\n")


def _sign(arguments: argparse.Namespace) -> int:
    from hft_platform.config.settings import load_settings
    from research.promotion.sign import SignerContext, read_request, sign_request

    context = SignerContext(
        workspace=_workspace(arguments),
        settings=load_settings(arguments.config_dir),
        alphas_folder=arguments.alphas,
        config_dir=arguments.config_dir,
    )
    promotion = sign_request(read_request(arguments.request), context)
    state = "signed" if promotion.is_new else "already in force"
    _print(arguments, promotion.as_dict(), lambda: f"{state}: {promotion.path}")
    return DONE


def _keys(arguments: argparse.Namespace) -> int:
    from hft_platform.config.keys import make_key

    key = make_key(arguments.out)
    facts = {"role": key.role, "key_id": key.key_id, "public": key.public_hex,
             "file": str(arguments.out)}  # fmt: skip
    _print(
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


def _audit(arguments: argparse.Namespace) -> int:
    from research.promotion.audit import verify_chain

    entries = verify_chain(_workspace(arguments), expected_head=arguments.head)
    head = entries[-1].hash if entries else ""
    _print(
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


def _alpha(arguments: argparse.Namespace) -> Alpha:
    from research.registry import find_alpha

    return find_alpha(arguments.alpha_id, arguments.alphas)


def _workspace(arguments: argparse.Namespace) -> Path:
    if arguments.workspace is not None:
        return Path(arguments.workspace)
    from hft_platform.config.settings import load_settings

    return load_settings(arguments.config_dir).workspace_path


def _user(arguments: argparse.Namespace) -> str:
    return getattr(arguments, "by", None) or getpass.getuser()


def _print(
    arguments: argparse.Namespace,
    content: Any,  # Any: JSON content
    text: Callable[[], str],
) -> None:
    if arguments.json:
        sys.stdout.write(json.dumps(content, sort_keys=True) + "\n")
    else:
        sys.stdout.write(text() + "\n")


if __name__ == "__main__":
    sys.exit(main())
