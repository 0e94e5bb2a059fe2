"""The alpha language once more: slow, in numpy, from the definitions in docs/alpha-language.md.

It shares no code and no recurrence with the core. A window is looked up, cut and summed anew for
every row. `Call` trees are random but well typed; each node is judged on its own, on operands that
the core computed, so that a rounding difference below cannot flip a comparison above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
UNITS_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9}
BUCKETS = 100


@dataclass(frozen=True, slots=True)
class Call:
    """One node: how it is written over its operands, and what it computes."""

    form: str
    operator: str
    operands: tuple[Call, ...] = ()
    window: str = ""

    @property
    def text(self) -> str:
        """The expression as it is written."""
        return self.form.format(*(operand.text for operand in self.operands))

    @property
    def is_condition(self) -> bool:
        """True for what a `where` asks for."""
        return self.operator in {"<", "<=", ">", ">=", "==", "!=", "and", "or", "not"}

    def nodes(self) -> Iterator[Call]:
        """This node and all below it."""
        yield self
        for operand in self.operands:
            yield from operand.nodes()


WINDOWS = ("20ms", "250ms", "1s", "3s", "10s", "1m", "1ev", "2ev", "7ev", "40ev")
ROLLING = ("lag", "delta", "ema", "decay", "mean", "std", "zscore", "min", "max", "corr")


def random_call(draw: np.random.Generator, depth: int, leaves: dict[str, list[str]]) -> Call:
    """A random well-typed number in ticks; every other unit is coefficient times something."""
    if depth == 0:
        choice = int(draw.integers(0, 4))
        if choice == 0:
            return Call(f"{draw.integers(-300, 300) / 64}", "literal")
        if choice == 1:
            name = str(draw.choice(leaves["any"]))
            return Call(f"{draw.integers(1, 9)} * {name}", "leaf")
        return Call(str(draw.choice(leaves["ticks"])), "leaf")

    def below() -> Call:
        return random_call(draw, depth - 1, leaves)

    kinds = ["+", "-", "*", "/", "neg", "abs", "clip", "min", "max", "where", "sign", "sqrt", "exp",
             "log", "tanh", "pow", "square", *ROLLING, *ROLLING]  # fmt: skip
    kind = str(draw.choice(kinds))
    if kind in ROLLING and not (kind in {"min", "max"} and draw.random() < 0.3):
        window = str(draw.choice(WINDOWS))
        if kind == "corr":
            return Call(f"2 * corr({{}}, {{}}, {window})", "corr", (below(), below()), window)
        form = f"2 * zscore({{}}, {window})" if kind == "zscore" else f"{kind}({{}}, {window})"
        return Call(form, f"roll {kind}" if kind in {"min", "max"} else kind, (below(),), window)
    forms = {
        "+": ("({} + {})", 2), "-": ("({} - {})", 2), "*": ("(0.5 * ({}) * ({}))", 2),
        "/": ("(2 * ({}) / ({}))", 2), "neg": ("-({})", 1), "abs": ("abs({})", 1),
        "clip": ("clip({}, {}, {})", 3), "min": ("min({}, {})", 2), "max": ("max({}, {}, {})", 3),
        "sign": ("(2 * sign({}))", 1), "sqrt": ("(1 * sqrt({}))", 1),
        "exp": ("(1 * exp(0.125 * ({})))", 1), "log": ("(1 * log(2 * ({})))", 1),
        "tanh": ("(1 * tanh(0.25 * ({})))", 1), "pow": ("(1 * pow(1 * ({}), 1.5))", 1),
        "square": ("(1 * ({}) ^ 2)", 1),
    }  # fmt: skip
    if kind == "where":
        return Call(
            "where({}, {}, {})",
            "where",
            (random_condition(draw, depth - 1, leaves), below(), below()),
        )
    form, count = forms[kind]
    return Call(form, kind, tuple(below() for _ in range(count)))


def random_condition(draw: np.random.Generator, depth: int, leaves: dict[str, list[str]]) -> Call:
    """A random condition."""
    if depth > 0 and draw.random() < 0.4:
        kind = str(draw.choice(["and", "or", "not"]))
        if kind == "not":
            return Call("(not {})", "not", (random_condition(draw, depth - 1, leaves),))
        pair = tuple(random_condition(draw, depth - 1, leaves) for _ in range(2))
        return Call(f"({{}} {kind} {{}})", kind, pair)
    sign = str(draw.choice(["<", "<=", ">", ">=", "==", "!="]))
    pair = tuple(random_call(draw, max(depth - 1, 0), leaves) for _ in range(2))
    return Call(f"({{}} {sign} {{}})", sign, pair)


def finite(values: Array) -> Array:
    """What is no number is NaN."""
    return np.where(np.isfinite(values), values, np.nan)


def _strict(result: Array, *operands: Array) -> Array:
    """NaN wherever an operand is."""
    bad = np.zeros(result.shape, dtype=bool)
    for operand in operands:
        bad |= np.isnan(operand)
    return finite(np.where(bad, np.nan, result))


PLAIN: dict[str, Callable[..., Array]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: 0.5 * a * b,
    "/": lambda a, b: np.where(b == 0, np.nan, 2 * a / b),
    "neg": lambda a: -a,
    "abs": np.abs,
    "clip": lambda x, low, high: np.where(low > high, np.nan, np.minimum(np.maximum(x, low), high)),
    "min": np.minimum,
    "max": lambda a, b, c: np.maximum(np.maximum(a, b), c),
    "sign": lambda a: 2 * np.sign(a),
    "sqrt": np.sqrt,
    "exp": lambda a: np.exp(0.125 * a),
    "log": lambda a: np.log(2 * a),
    "tanh": lambda a: np.tanh(0.25 * a),
    "pow": lambda a: np.power(a, 1.5),
    "square": lambda a: a * a,
    "<": lambda a, b: (a < b).astype(float),
    "<=": lambda a, b: (a <= b).astype(float),
    ">": lambda a, b: (a > b).astype(float),
    ">=": lambda a, b: (a >= b).astype(float),
    "==": lambda a, b: (a == b).astype(float),
    "!=": lambda a, b: (a != b).astype(float),
    "and": lambda a, b: a * b,
    "or": np.maximum,
    "not": lambda a: 1 - a,
}


def plain(operator: str, operands: list[Array]) -> Array:
    """An operator on values of now, over whole columns."""
    with np.errstate(all="ignore"):
        if operator == "where":
            condition, a, b = operands
            return finite(np.where(np.isnan(condition), np.nan, np.where(condition != 0, a, b)))
        return _strict(PLAIN[operator](*operands), *operands)


@dataclass(frozen=True, slots=True)
class Rows:
    """What a window needs: times, and the row at which the market last started."""

    times_ns: npt.NDArray[np.int64]
    start_of: npt.NDArray[np.int64]

    @classmethod
    def of(cls, times_ns: npt.NDArray[np.int64], starts: npt.NDArray[np.uint8]) -> Rows:
        """From the arrays that the core takes."""
        places = np.where(starts != 0, np.arange(starts.size), 0)
        return cls(times_ns, np.maximum.accumulate(places))


@dataclass(frozen=True, slots=True)
class Judgement:
    """An expected value, and how far off another order of summation may come out."""

    value: float
    scale: float
    is_ambiguous: bool = False
    """A deviation so near zero that rounding decides whether it is zero."""


NOTHING = Judgement(np.nan, 1.0)


def window_ns(window: str) -> int | None:
    """Length in time, or None for events."""
    if window.endswith("ev"):
        return None
    unit = "ms" if window.endswith("ms") else window[-1]
    return round(float(window.removesuffix(unit)) * UNITS_NS[unit])


def rolling(operator: str, window: str, columns: list[Array], rows: Rows, row: int) -> Judgement:
    """An operator over a window, at one row."""
    first = int(rows.start_of[row])
    parts = [column[first : row + 1] for column in columns]
    if any(np.isnan(part[-1]) for part in parts):
        return NOTHING
    length = window_ns(window)
    if length is None:
        return _events(operator, int(window.removesuffix("ev")), parts)
    return _time(operator, length, parts, rows.times_ns[first : row + 1])


def _events(operator: str, count: int, parts: list[Array]) -> Judgement:
    numbers = ~np.isnan(np.sum(parts, axis=0))
    kept = [part[numbers] for part in parts]
    x = kept[0]
    size = float(np.max(np.abs(x)))
    if operator in {"ema", "decay"}:
        if x.size < count:
            return NOTHING
        faded = np.exp(-np.arange(x.size)[::-1] / count)
        if operator == "decay":
            return Judgement(float(np.sum(x * faded)), size)
        weights = faded * (1 - np.exp(-1 / count))
        weights[0] = faded[0]
        return Judgement(float(np.sum(x * weights)), size)
    if operator in {"lag", "delta"}:
        if x.size <= count:
            return NOTHING
        past = float(x[-1 - count])
        return Judgement(past if operator == "lag" else float(x[-1]) - past, size)
    if x.size < count:
        return NOTHING
    last = [part[-count:] for part in kept]
    return _moments(operator, last, np.ones(count), float(x[-1]))


def _time(
    operator: str, length: int, parts: list[Array], times: npt.NDArray[np.int64]
) -> Judgement:
    x, now = parts[0], int(times[-1])
    numbers = ~np.isnan(np.sum(parts, axis=0))
    started = int(times[np.argmax(numbers)])
    bucket = length // BUCKETS
    if operator in {"lag", "delta"}:
        from_ns = now // bucket * bucket - length
        place = int(np.searchsorted(times, from_ns, side="left")) - 1
        past = float(x[place]) if place >= 0 else np.nan
        value = past if operator == "lag" else float(x[-1]) - past
        return Judgement(value, max(abs(past), abs(float(x[-1])), 1e-300))
    if now - started < length:
        return NOTHING
    if operator == "decay":
        faded = np.exp((times[numbers] - now) / length)
        return Judgement(float(np.sum(x[numbers] * faded)), float(np.max(np.abs(x[numbers]))))
    if operator == "ema":
        return _time_ema(x, times, length)
    from_ns = (now // bucket - BUCKETS + 1) * bucket
    begin = np.maximum(times[:-1], from_ns)
    weights = np.maximum(times[1:] - begin, 0).astype(float)
    weights[~numbers[:-1]] = 0.0
    in_force = weights > 0
    kept = [part[:-1][in_force] for part in parts]
    if operator in {"roll min", "roll max"}:
        all_values = np.append(kept[0], x[-1])
        value = all_values.min() if operator == "roll min" else all_values.max()
        return Judgement(float(value), 1.0)
    if not in_force.any():
        return NOTHING
    return _moments(operator, kept, weights[in_force], float(x[-1]))


def _time_ema(x: Array, times: npt.NDArray[np.int64], length: int) -> Judgement:
    """The first number, moved towards what was in force, for as long as it was in force.

    Closed form: what is left of each interval after all later ones in which something was in force.
    """
    spans = np.diff(times).astype(float)
    known = ~np.isnan(x[:-1])
    spans[~known] = 0.0
    later = np.concatenate([np.cumsum(spans[::-1])[::-1][1:], [0.0]]) if spans.size else spans
    weights = np.exp(-later / length) * -np.expm1(-spans / length)
    first = int(np.argmax(~np.isnan(x)))
    start = x[first] * np.exp(-float(np.sum(spans)) / length)
    value = float(start + np.sum(x[:-1][known] * weights[known]))
    return Judgement(value, float(np.nanmax(np.abs(x))))


def _moments(operator: str, columns: list[Array], weights: Array, now: float) -> Judgement:
    x, total = columns[0], float(np.sum(weights))
    if operator in {"roll min", "roll max"}:
        return Judgement(float(x.min() if operator == "roll min" else x.max()), 1.0)
    mean = float(np.sum(x * weights) / total)
    size = max(float(np.max(np.abs(x))), abs(now), 1e-300)
    if operator == "mean":
        return Judgement(mean, size)
    std = float(np.sqrt(np.sum((x - mean) ** 2 * weights) / total))
    if operator == "std":
        return Judgement(std, size)
    is_near_zero = std <= 1e-9 * size
    if operator == "zscore":
        if np.all(x == x[0]):
            return NOTHING
        # Written as 2 * zscore; an error of the mean counts in deviations.
        return Judgement(2 * (now - mean) / std, max(size / std, 1.0), is_near_zero)
    y = columns[1]
    if np.all(x == x[0]) or np.all(y == y[0]):
        return NOTHING
    mean_y = float(np.sum(y * weights) / total)
    std_y = float(np.sqrt(np.sum((y - mean_y) ** 2 * weights) / total))
    size_y = max(float(np.max(np.abs(y))), 1e-300)
    products = float(np.sum((x - mean) * (y - mean_y) * weights) / total)
    scale = max(size / std, size_y / std_y) if std > 0 and std_y > 0 else 1.0
    near = is_near_zero or std_y <= 1e-9 * size_y
    with np.errstate(all="ignore"):
        return Judgement(float(2 * products / np.float64(std * std_y)), scale, near)
