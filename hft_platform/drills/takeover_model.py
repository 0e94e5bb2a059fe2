"""A model of the takeover protocol, small enough to look at every state it can be in.

Why: a test tries the schedules somebody thought of, a model check tries all of them. Two gateways,
one intent, a client that asks again, a network that delays and drops, a broker without idempotency:
every interleaving of crash, pause, expiry, delay, drop, lost reply and late arrival is looked at,
breadth first, so a violation comes with a shortest trace.

Invariants (held in every reachable state of the rules that the platform follows):
1. `Found.duplicate`: the intent leaves for the broker at most once.
2. `Found.stuck`: from everywhere a state can be reached in which nothing is open: the order at the
   broker is known, or the intent is abandoned and no order is there.
3. With delays bounded by the wait, and a lock that only death frees, `Found.lost_order`: no order
   is at the broker, or on its way, whose intent was abandoned.
4. With such a lock, `Found.usurper`: only its holder sends.

It is a model of one intent: it supports the order of the steps and proves no implementation; that
is what the drills `order-chaos` and `gateway-chaos` are for.
Operator's page: `docs/drills/order-chaos.md`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

GATEWAYS = (0, 1)
MISSES = 2
"""Answers without the order after which the intent is abandoned."""
SENT_MAX = 2
"""Worse than twice is not looked at."""
NOBODY = -1


class Stage(IntEnum):
    """Where a gateway is with the intent."""

    IDLE = 0
    TAKEN = 1
    DECIDED = 2
    CHECKED = 3
    UNWRITTEN = 4
    WAITING = 5


class Entry(IntEnum):
    """What the journal says about the intent."""

    NONE = 0
    INTENT = 1
    UNKNOWN = 2
    KNOWN = 3
    ABANDONED = 4


@dataclass(frozen=True, slots=True)
class Rules:
    """What the gateways do; the defaults are the platform's.

    Attributes
    ----------
    lock : {"flock", "lease"}
        What makes a leader: a file lock that only death frees, or a lease that also ends in time.
    is_delay_bounded : bool
        True when whatever is under way to the broker arrives or is lost before anybody asks.
    remembers_in_journal : bool
        False: a restarted gateway has forgotten what was decided.
    resends : bool
        True: an order that was not found is sent again.
    is_journal_fenced : bool
        False: a gateway that was replaced can still write.
    checks_fence : bool
        False: nobody looks before the call whether the lock is still held.
    writes_first : bool
        False: the intent is written after it was sent.
    takes_silence_for_none : bool
        True: a question that failed counts as "not there".
    submissions : int
        How often the client sends the intent: once and its retries.
    """

    lock: Literal["flock", "lease"] = "flock"
    is_delay_bounded: bool = False
    remembers_in_journal: bool = True
    resends: bool = False
    is_journal_fenced: bool = True
    checks_fence: bool = True
    writes_first: bool = True
    takes_silence_for_none: bool = False
    submissions: int = 3


class Gateway(NamedTuple):
    """One gateway process; `is_current` while no other took over since."""

    is_alive: bool = True
    is_paused: bool = False
    is_leader: bool = False
    is_current: bool = False
    stage: Stage = Stage.IDLE
    remembers: bool = False
    misses: int = 0

    @property
    def can_act(self) -> bool:
        """True while it runs."""
        return self.is_alive and not self.is_paused


class World(NamedTuple):
    """Everything there is. `sent` counts what left for the broker, `orders` what arrived there."""

    gateways: tuple[Gateway, Gateway] = (Gateway(), Gateway())
    holder: int = NOBODY
    entry: Entry = Entry.NONE
    requests: tuple[int, ...] = ()
    replies: tuple[bool, bool] = (False, False)
    orders: int = 0
    sent: int = 0
    submissions: int = 3
    was_usurped: bool = False

    def with_gateway(self, index: int, gateway: Gateway) -> World:
        """The world with another gateway in this place."""
        first, second = self.gateways
        return self._replace(gateways=(gateway, second) if index == 0 else (first, gateway))

    def with_reply(self, index: int, is_there: bool) -> World:
        """The world with or without a reply under way to a gateway."""
        first, second = self.replies
        return self._replace(replies=(is_there, second) if index == 0 else (first, is_there))


Step = tuple[str, World]


def steps(world: World, rules: Rules) -> Iterator[Step]:
    """Everything that can happen next, each with its name.

    Parameters
    ----------
    world : World
        Where things are.
    rules : Rules
        What the gateways do.

    Yields
    ------
    tuple of str and World
        In a fixed order.
    """
    for index in GATEWAYS:
        yield from _fates(world, rules, index)
        if world.gateways[index].can_act:
            yield from _leading(world, rules, index)
            yield from _sending(world, rules, index)
            yield from _asking(world, rules, index)
    yield from _network(world, rules)


def _fates(world: World, rules: Rules, index: int) -> Iterator[Step]:
    """Crash, restart, pause; and the end of a lease."""
    gateway = world.gateways[index]
    name = f"gateway {index}"
    if not gateway.is_alive:
        yield f"{name} restarts", world.with_gateway(index, Gateway())
        return
    # What it knew and what was under way to it is gone; a paused one is killed to fence it.
    after = world.with_gateway(index, Gateway(is_alive=False)).with_reply(index, False)
    if rules.lock == "flock" and world.holder == index:
        after = after._replace(holder=NOBODY)
    yield f"{name} crashes", after
    turned = gateway._replace(is_paused=not gateway.is_paused)
    yield (
        f"{name} {'goes on' if gateway.is_paused else 'pauses'}",
        world.with_gateway(index, turned),
    )
    if rules.lock == "lease" and world.holder == index:
        yield f"the lease of {name} ends", world._replace(holder=NOBODY)


def _leading(world: World, rules: Rules, index: int) -> Iterator[Step]:
    """Take over, and take the client's intent."""
    gateway = world.gateways[index]
    if not gateway.is_leader and world.holder == NOBODY:
        # What was decided is known from the journal, and from nothing else.
        remembers = rules.remembers_in_journal and world.entry != Entry.NONE
        fresh = Gateway(is_leader=True, is_current=True, remembers=remembers)
        after = world.with_gateway(index, fresh)
        other = 1 - index
        after = after.with_gateway(other, after.gateways[other]._replace(is_current=False))
        # Whatever has no end yet may be anywhere.
        entry = Entry.UNKNOWN if world.entry == Entry.INTENT else world.entry
        yield f"gateway {index} takes over", after._replace(holder=index, entry=entry)
    if gateway.is_leader and gateway.stage == Stage.IDLE and world.submissions > 0:
        after = world.with_gateway(index, gateway._replace(stage=Stage.TAKEN))
        yield (
            f"the client sends the intent to gateway {index}",
            after._replace(submissions=world.submissions - 1),
        )


def _sending(world: World, rules: Rules, index: int) -> Iterator[Step]:
    """Dedup, durable intent, fence, call, answer."""
    gateway = world.gateways[index]
    if gateway.stage == Stage.TAKEN:
        yield _decide(world, rules, index)
    elif gateway.stage == Stage.DECIDED:
        if world.holder == index or not rules.checks_fence:
            after = world.with_gateway(index, gateway._replace(stage=Stage.CHECKED))
            yield f"gateway {index} may send", after
        else:
            yield f"gateway {index} finds that it does not lead", _stepped_down(world, index)
    elif gateway.stage == Stage.CHECKED and world.sent < SENT_MAX:
        stage = Stage.WAITING if rules.writes_first else Stage.UNWRITTEN
        after = world.with_gateway(index, gateway._replace(stage=stage))
        yield (
            f"gateway {index} calls the broker",
            after._replace(
                requests=tuple(sorted((*world.requests, index))),
                sent=world.sent + 1,
                was_usurped=world.was_usurped or world.holder != index,
            ),
        )
    elif gateway.stage == Stage.UNWRITTEN:
        after = world.with_gateway(index, gateway._replace(stage=Stage.WAITING))
        yield f"gateway {index} writes the intent", _written(after, rules, index, Entry.INTENT)
    elif gateway.stage == Stage.WAITING:
        after = world.with_gateway(index, gateway._replace(stage=Stage.IDLE))
        if world.entry != Entry.KNOWN:
            after = _written(after, rules, index, Entry.UNKNOWN)
        yield f"the call of gateway {index} times out", after
    if world.replies[index]:
        idle = Stage.IDLE if gateway.stage == Stage.WAITING else gateway.stage
        after = world.with_gateway(index, gateway._replace(stage=idle)).with_reply(index, False)
        yield f"the reply reaches gateway {index}", _written(after, rules, index, Entry.KNOWN)


def _decide(world: World, rules: Rules, index: int) -> Step:
    gateway = world.gateways[index]
    idle = world.with_gateway(index, gateway._replace(stage=Stage.IDLE))
    if gateway.remembers:
        return f"gateway {index} has decided this intent before", idle
    if not gateway.is_current and rules.is_journal_fenced:
        return f"gateway {index} cannot write: it was replaced", _stepped_down(world, index)
    decided = gateway._replace(stage=Stage.DECIDED, remembers=True, misses=0)
    after = world.with_gateway(index, decided)
    if rules.writes_first:
        after = after._replace(entry=Entry.INTENT)
    return f"gateway {index} decides{' and writes' if rules.writes_first else ''}", after


def _asking(world: World, rules: Rules, index: int) -> Iterator[Step]:
    """Resolve what is not known by asking the broker."""
    gateway = world.gateways[index]
    is_open = world.entry in (Entry.UNKNOWN, Entry.ABANDONED)
    if not (gateway.is_leader and gateway.is_current and gateway.stage == Stage.IDLE and is_open):
        return
    name = f"gateway {index}"
    if world.orders > 0:
        found = world.with_gateway(index, gateway._replace(misses=0))
        yield f"{name} asks and finds the order", found._replace(entry=Entry.KNOWN)
    elif world.entry == Entry.UNKNOWN and not (rules.is_delay_bounded and world.requests):
        yield f"{name} asks and does not find it", _missed(world, rules, index)
    if rules.takes_silence_for_none and world.entry == Entry.UNKNOWN:
        yield f"{name} asks and gets no answer", _missed(world, rules, index)


def _missed(world: World, rules: Rules, index: int) -> World:
    gateway = world.gateways[index]
    if gateway.misses + 1 < MISSES:
        return world.with_gateway(index, gateway._replace(misses=gateway.misses + 1))
    if rules.resends:
        again = world.with_gateway(index, gateway._replace(stage=Stage.DECIDED, misses=0))
        return again._replace(entry=Entry.INTENT)
    after = world.with_gateway(index, gateway._replace(misses=0))
    return after._replace(entry=Entry.ABANDONED)


def _network(world: World, rules: Rules) -> Iterator[Step]:
    """Requests arrive late or never, in any order; replies are lost."""
    for sender in dict.fromkeys(world.requests):
        rest = list(world.requests)
        rest.remove(sender)
        under_way = world._replace(requests=tuple(rest))
        arrived = under_way._replace(orders=world.orders + 1)
        if world.gateways[sender].is_alive:
            yield f"a request of gateway {sender} arrives", arrived.with_reply(sender, True)
        yield f"a request of gateway {sender} arrives and its reply is lost", arrived
        yield f"a request of gateway {sender} is lost", under_way
    for index in GATEWAYS:
        if world.replies[index]:
            yield f"the reply to gateway {index} is lost", world.with_reply(index, False)


def _written(world: World, rules: Rules, index: int, entry: Entry) -> World:
    """The world after a gateway wrote what it learned, or was refused because it was replaced."""
    gateway = world.gateways[index]
    if rules.is_journal_fenced and not gateway.is_current:
        return _stepped_down(world, index)
    if entry == Entry.INTENT and world.entry != Entry.NONE:
        return world
    return world._replace(entry=entry)


def _stepped_down(world: World, index: int) -> World:
    kept = world.gateways[index]._replace(is_leader=False, stage=Stage.IDLE, misses=0)
    holder = NOBODY if world.holder == index else world.holder
    # Nothing may stay open that nobody will look at: the next leader begins with it.
    return world.with_gateway(index, kept)._replace(holder=holder)


def is_duplicate(world: World) -> bool:
    """The intent left for the broker twice."""
    return world.sent > 1


def is_double_order(world: World) -> bool:
    """The broker has two orders of one intent."""
    return world.orders > 1


def is_lost_order(world: World) -> bool:
    """The intent was abandoned, and its order is at the broker or may still get there."""
    return world.entry == Entry.ABANDONED and bool(world.orders or world.requests)


def is_settled(world: World) -> bool:
    """Nothing is open: the order is known, or there is none and none will come."""
    can_send = any(gateway.stage in (Stage.DECIDED, Stage.CHECKED) for gateway in world.gateways)
    if world.requests or can_send:
        return False
    if world.orders > 0:
        return world.entry == Entry.KNOWN
    return world.entry in (Entry.NONE, Entry.ABANDONED)


@dataclass(frozen=True, slots=True)
class Found:
    """What a check found: shortest traces, empty where there is none.

    Attributes
    ----------
    states : int
        Worlds that can be reached.
    duplicate, double_order, lost_order, usurper, stuck : tuple of str
        Steps from the start to the first world of the kind.
    """

    states: int
    duplicate: tuple[str, ...]
    double_order: tuple[str, ...]
    lost_order: tuple[str, ...]
    usurper: tuple[str, ...]
    stuck: tuple[str, ...]


def check(rules: Rules) -> Found:
    """Look at every world that can be reached.

    Parameters
    ----------
    rules : Rules
        What the gateways do.

    Returns
    -------
    Found
    """
    start = World(submissions=rules.submissions)
    parents: dict[World, tuple[World, str] | None] = {start: None}
    reversed_edges: dict[World, list[World]] = {start: []}
    order: list[World] = []
    waiting = deque([start])
    while waiting:
        world = waiting.popleft()
        order.append(world)
        for name, after in steps(world, rules):
            if after not in parents:
                parents[after] = (world, name)
                reversed_edges[after] = []
                waiting.append(after)
            reversed_edges[after].append(world)
    settled = _can_reach(reversed_edges, [world for world in order if is_settled(world)])

    def first(is_kind: Callable[[World], bool]) -> tuple[str, ...]:
        found = next((world for world in order if is_kind(world)), None)
        return () if found is None else trace(parents, found)

    return Found(
        states=len(order),
        duplicate=first(is_duplicate),
        double_order=first(is_double_order),
        lost_order=first(is_lost_order),
        usurper=first(lambda world: world.was_usurped),
        stuck=first(lambda world: world not in settled and not is_duplicate(world)),
    )


def _can_reach(reversed_edges: dict[World, list[World]], goals: list[World]) -> set[World]:
    reached = set(goals)
    waiting = deque(goals)
    while waiting:
        for before in reversed_edges[waiting.popleft()]:
            if before not in reached:
                reached.add(before)
                waiting.append(before)
    return reached


def trace(parents: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    """Names of the steps that lead to a world, first one first."""
    names: list[str] = []
    parent = parents[world]
    while parent is not None:
        world, name = parent
        names.append(name)
        parent = parents[world]
    return tuple(reversed(names))
