"""hft-research: from an idea to a permit; ``hft-research --help`` lists the commands.

Thin over the library functions that the asset graph calls. Exit codes: 0 done, 1 failed, 2 usage,
3 refused with a reason code. Every command has ``--json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hft_platform.errors import PlatformError
from research.commands import alphas, judging, promotion, rehearsal, trust
from research.commands.common import FAILED, REFUSED

GATES = (*judging.GATES_WITHOUT_SESSIONS, "gate_e")


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
        epilog="data first: make demo makes generated markets, docs/driving-the-loop.md says how "
        "recordings come in. start: hft-research new ID; hft-research gates ID; "
        "hft-research promote ID; hft-research list says where each stands",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_alphas(commands)
    _add_judging(commands)
    _add_promotion(commands)
    _add_trust(commands)
    return parser


def _add_alphas(commands: Any) -> None:  # Any: argparse has no public type for it
    _add(commands, "list", alphas.list_alphas,
         "List every alpha: verdict of each gate, where it stands in its life, and why.",
         "marks: + passed, - failed, ? too little evidence, ! not computed, . not run. The state\n"
         "follows from verdicts and the audit chain (docs/alphas.md); nobody sets it.")  # fmt: skip

    new = _add(
        commands, "new", alphas.new, "Start an alpha: a commented manifest and a test to fill in."
    )
    new.add_argument("alpha_id", metavar="ID", help="instrument_idea_style, e.g. txf_ofi_maker")
    new.add_argument("--by", default=None, help="owner (default: this user)")
    new.add_argument("--template", metavar="KIND", default="taker",
                     help="kind of template (docs/strategies.md; default: taker)")  # fmt: skip

    show = _add(commands, "show", alphas.show,
                "Show an alpha: idea, state, verdicts, permits, and the next step.")  # fmt: skip
    _alpha_argument(show)

    compare = _add(
        commands, "compare", alphas.compare_alphas,
        "Lay two or more alphas side by side: verdicts, key numbers, correlations.",
        "A correlation of profit says whether they earn on the same days, one of positions\n"
        "whether they hold the same at the same time. Gate D refuses what is too like the pool.",
    )  # fmt: skip
    compare.add_argument("alpha_ids", metavar="ID", nargs="+", help="two ids or more")

    _add(
        commands, "pool", alphas.pool,
        "Show what trades: members, weights by three methods, correlations, what each adds.",
        "Members hold a canary or live permit. hrp: hierarchical risk parity. equal_risk: each\n"
        "carries the same share of the variance. minimum_variance: the least variance without\n"
        "short positions. The methods disagree where members are alike; no order follows from it.",
    )  # fmt: skip

    card = _add(
        commands, "scorecard", alphas.scorecard,
        "Write an alpha's scorecard: JSON and one self-contained HTML page.",
        "The same content that the asset graph shows on gate and promotion assets.",
    )  # fmt: skip
    _alpha_argument(card)


def _add_judging(commands: Any) -> None:  # Any: as above
    gates = _add(
        commands, "gates", judging.gates,
        "Run gates A to D in order, stopping at the first that is not passed; or explain verdicts.",
        "Every gate writes a verdict file that the next one verifies again; a rerun on the same\n"
        "data changes nothing and counts no trial twice. No flag skips a gate.",
    )  # fmt: skip
    _alpha_argument(gates)
    gates.add_argument("--gate", choices=GATES, help="run this gate only (gate_e reads sessions)")
    gates.add_argument(
        "--why", action="store_true",
        help="run nothing: name the nearest failing threshold, and the days or edge that decide",
    )  # fmt: skip
    rehearsal.add_options(gates)

    agree = _add(
        commands, "agree", judging.agree,
        "Compare the paper exchange with the hftbacktest package, fill by fill, on one session: "
        "maker and taker, three latencies, three queue models.",
    )  # fmt: skip
    agree.add_argument(
        "data", nargs="?", type=Path, metavar="DATA",
        help="folder with recordings (default: a generated session)",
    )  # fmt: skip
    agree.add_argument("--session", help="session of DATA, e.g. 2026-04-10/day (default: largest)")

    trials = _add(
        commands, "trials", judging.trials,
        "Show the trial ledger: what was tried, by alpha, and what all of it amounts to; or SQL.",
    )  # fmt: skip
    trials.add_argument(
        "--sql", help="a statement over the views trials, outcomes and results (DuckDB)"
    )

    prototype = _add(
        commands, "prototype", judging.prototype,
        "SLOW: run a plain Python strategy on one recorded session. For prototypes: at most "
        "shadow, no gate, no verdict, no permit.",
    )  # fmt: skip
    prototype.add_argument("file", type=Path, metavar="FILE.py", help="defines SPEC and strategy")
    prototype.add_argument("--session", required=True, help="e.g. 2026-04-10/day")
    prototype.add_argument(
        "--step", type=int, default=1, help="inputs between two calls of the strategy (default 1)"
    )


def _add_promotion(commands: Any) -> None:  # Any: as above
    promote = _add(
        commands, "promote", promotion.promote,
        "Ask the signer for a permit: shadow needs gates A and B, canary and live all five.",
        "The signer derives what it signs from verdicts, data and signed sessions; a request can\n"
        "only ask for less. Asked again at canary, it climbs a stage when sessions have earned it.",
    )  # fmt: skip
    _alpha_argument(promote)
    promote.add_argument("--stage", choices=("shadow", "canary", "live"), default="shadow")
    promote.add_argument("--symbol", help="one instrument, when an alpha has several")
    promote.add_argument("--weight-ppm-max", type=int, help="ask for less than evidence carries")
    _why_argument(promote, required=False)

    canary = _add(
        commands, "canary", promotion.canary,
        "Say what a canary's signed sessions lead to: hold, step up or roll back.",
    )  # fmt: skip
    _alpha_argument(canary)
    canary.add_argument("--apply", action="store_true", help="carry it out")
    canary.add_argument("--by", default=None, help="who acts (default: this user)")

    withdraw = _add(
        commands, "withdraw", promotion.withdraw, "Take a promotion back at once. Needs no key."
    )
    withdraw.add_argument("alpha_id", metavar="ID")
    _why_argument(withdraw, required=True)

    retire = _add(
        commands, "retire", promotion.retire,
        "Give an alpha up: withdraw its permits and close its id in the audit chain, for good.",
        "No version of a retired alpha is promoted again, an edited one neither; another idea\n"
        "starts under another id. To pause, use withdraw instead.",
    )  # fmt: skip
    _alpha_argument(retire)
    _why_argument(retire, required=True)

    reduce = _add(commands, "reduce", promotion.reduce, "Lower a weight at once. Needs no key.")
    reduce.add_argument("alpha_id", metavar="ID")
    reduce.add_argument("--weight-ppm", type=int, required=True, help="below the one in force")
    _why_argument(reduce, required=True)

    sign = _add(
        commands, "sign", promotion.sign,
        "The signer: verify all evidence for a request again, sign, record, publish. "
        "The only command that reads the promotion key.",
    )  # fmt: skip
    sign.add_argument("request", type=Path, metavar="REQUEST.json", help="as promote writes it")


def _add_trust(commands: Any) -> None:  # Any: as above
    approve = _add(
        commands, "approve", promotion.approve,
        "The second person: sign for an alpha's evidence, where an approval key is pinned.",
    )  # fmt: skip
    _alpha_argument(approve)
    approve.add_argument("--stage", choices=("canary", "live"), required=True)
    approve.add_argument("--key", type=Path, required=True, help="the approval key's file")
    approve.add_argument(
        "--weight-ppm-max", type=int, required=True,
        help="weight up to which its canary may climb without asking again",
    )  # fmt: skip
    _why_argument(approve, required=True)

    keys = _add(
        commands, "keys", trust.keys, "Make a promotion or approval key by hand, to be pinned."
    )
    keys.add_argument("action", choices=("make",))
    keys.add_argument("--role", choices=("promotion", "approval"), default="promotion")
    keys.add_argument("--out", type=Path, required=True, help="file outside every checkout")

    audit = _add(
        commands, "audit", trust.audit,
        "verify: check the chain, and the workspace against it; print its head. thresholds: put "
        "gates.yaml and canary.yaml on record as they are. override: record what was done "
        "outside the program.",
    )  # fmt: skip
    audit.add_argument("action", choices=("verify", "thresholds", "override"))
    audit.add_argument("--head", help="verify: a head noted elsewhere; it must be in the chain")
    audit.add_argument("--subject", help="override: what it is about")
    audit.add_argument("--why", help="thresholds, override: reason, kept in the audit chain")
    audit.add_argument("--by", default=None, help="who acts (default: this user)")


def _add(
    commands: Any,  # Any: argparse has no public type for it
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    more: str = "",
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
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


if __name__ == "__main__":
    sys.exit(main())
