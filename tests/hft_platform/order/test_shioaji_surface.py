"""What the adapter and its stand-ins suppose about the SDK is what the installed SDK has.

Fields come from `dir` of the SDK's classes or, where those answer by `__getattr__`, and for events,
from the stub that the SDK ships. Nothing here makes a session.
"""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shioaji as sj
from shioaji import _core as sdk_core

from hft_platform.errors import ReasonCode
from hft_platform.order import shioaji_api, shioaji_errors, shioaji_events, shioaji_orders
from hft_platform.order.broker import Outcome
from hft_platform.order.shioaji_session import ACCOUNT_TYPES
from tests.hft_platform.order import shioaji_fake as fake

NAMES = {"Shioaji", "ShioajiAsync", "login", "activate_ca"}
METHODS = {"dict", "keys", "copy"}
STUB = Path(sdk_core.__file__).with_name("_core.pyi")


def stub_fields(name: str) -> list[str]:
    """Annotated fields of a class in the SDK's stub, those of its ancestors first."""
    tree = ast.parse(STUB.read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            inherited = [
                inner
                for base in node.bases
                if isinstance(base, ast.Name)
                for inner in (stub_fields(base.id) if base.id.startswith("_Contract") else [])
            ]
            own = [
                part.target.id
                for part in node.body
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
            ]
            return inherited + own
    raise AssertionError(f"the stub has no {name}")


def public(kind: type) -> set[str]:
    """Public names of an SDK class but its methods."""
    return {name for name in dir(kind) if not name.startswith("_")} - METHODS


def real_class(name: str) -> Any:
    """The SDK's session class, which the tests' fixture replaced by a raiser."""
    return getattr(sj, f"real_{name}")


@pytest.mark.parametrize("stand_in", fake.STRUCTS, ids=lambda kind: kind.__name__)
def test_a_stand_in_has_the_fields_of_its_class(stand_in: type[fake.Struct]) -> None:
    assert set(stand_in.FIELDS) == public(getattr(sj, stand_in.__name__))


@pytest.mark.parametrize("stand_in", fake.INFOS, ids=lambda kind: kind.__name__)
def test_terms_of_contracts_have_the_fields_of_the_stub(stand_in: type[fake.Struct]) -> None:
    assert list(stand_in.FIELDS) == stub_fields(stand_in.__name__)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (
            fake.futures_order_event(),
            {
                "": "FuturesOrderEvent",
                "operation": "OperationDict",
                "order": "FuturesOrderDetailDict",
                "status": "EventOrderStatusDict",
                "contract": "FuturesContractDict",
                "order.account": "AccountDict",
            },
        ),
        (
            fake.stock_order_event(),
            {
                "": "StockOrderEvent",
                "operation": "OperationDict",
                "order": "StockOrderDetailDict",
                "status": "EventOrderStatusDict",
                "contract": "StockContractDict",
                "order.account": "AccountDict",
            },
        ),
        (fake.futures_deal_event(), {"": "FuturesDealEvent"}),
        (fake.stock_deal_event(), {"": "StockDealEvent"}),
    ],
    ids=["FORDER", "SORDER", "FDEAL", "SDEAL"],
)
def test_events_have_the_keys_of_the_stub(content: dict[str, Any], names: dict[str, str]) -> None:
    for place, name in names.items():
        part = content
        for key in filter(None, place.split(".")):
            part = part[key]
        assert sorted(part) == sorted(stub_fields(name)), place


def test_a_stand_in_event_is_a_mapping_by_behaviour_only() -> None:
    assert not isinstance(fake.Event({}), dict)
    methods = {"get", "items", "keys", "values"}
    assert methods == public(sj.OrderEventDict) | {"keys"}
    assert all(callable(getattr(fake.Event, name)) for name in methods)


def protocol_calls(protocol: type) -> Iterator[tuple[str, Any]]:
    """Methods that a protocol of ours declares."""
    for name, member in vars(protocol).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            yield name, member


def shape(function: Any) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults of the parameters behind self."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return [(row.name, row.kind, row.default) for row in parameters]


@pytest.mark.parametrize(
    ("name", "owner", "ours"),
    [
        *((name, "Shioaji", call) for name, call in protocol_calls(shioaji_api.ShioajiApi)),
        *((name, "ContractsApi", call) for name, call in protocol_calls(shioaji_api.ContractTable)),
        ("login", "Shioaji", fake.Session.login),
        ("activate_ca", "Shioaji", fake.Session.activate_ca),
    ],
)
def test_every_call_has_the_signature_of_the_sdk(name: str, owner: str, ours: Any) -> None:
    kind = real_class(owner) if owner == "Shioaji" else getattr(sj, owner)
    method = getattr(kind, name)
    assert method.__text_signature__, f"{owner}.{name} says nothing about its arguments"
    assert shape(method) == shape(ours)
    stand_in = fake.Session if owner == "Shioaji" else fake.ContractTable
    assert shape(getattr(stand_in, name)) == shape(method)


def test_the_constructor_takes_what_the_session_passes() -> None:
    assert "simulation" in inspect.signature(real_class("Shioaji")).parameters


def errors_of_the_sdk() -> list[type[BaseException]]:
    """Every exception class that the SDK has."""
    found = (getattr(sdk_core, name) for name in dir(sdk_core))
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, BaseException)]


def test_every_error_of_the_sdk_has_a_row_and_every_row_an_error() -> None:
    names = {kind.__name__ for kind in errors_of_the_sdk()}
    assert names == set(shioaji_errors.MEANINGS)
    assert len(names) == 30


@pytest.mark.parametrize("kind", errors_of_the_sdk(), ids=lambda kind: kind.__name__)
def test_an_error_says_what_its_row_says(kind: type[BaseException]) -> None:
    meaning = shioaji_errors.meaning_of(kind("x"))
    assert meaning is shioaji_errors.MEANINGS[kind.__name__]
    assert meaning.outcome in (Outcome.REJECTED, Outcome.AMBIGUOUS)
    assert meaning.code
    assert meaning.login_code


def test_only_refusals_before_the_exchange_are_definite() -> None:
    definite = {
        name
        for name, meaning in shioaji_errors.MEANINGS.items()
        if meaning.outcome is Outcome.REJECTED
    }
    assert definite == {
        "AuthError", "TokenError", "AccountNotSignError", "AccountNotProvideError", "CaError",
        "CaExpiredError", "CaPasswordError", "ValidationError", "BadRequestError",
    }  # fmt: skip


class ValidationError(Exception):
    """The name of an SDK error, from elsewhere."""


def test_what_is_no_error_of_the_sdk_is_ambiguous() -> None:
    class NewTimeout(sj.ShioajiTimeoutError):
        """As a later SDK may raise."""

    cases = {
        NewTimeout("x"): ReasonCode.BROKER_TIMEOUT,
        TimeoutError("x"): ReasonCode.BROKER_TIMEOUT,
        ConnectionResetError("x"): ReasonCode.BROKER_UNREACHABLE,
        ValidationError("x"): ReasonCode.BROKER_ANSWER_UNREADABLE,
        ValueError("x"): ReasonCode.BROKER_ANSWER_UNREADABLE,
        MemoryError(): ReasonCode.BROKER_ANSWER_UNREADABLE,
        GeneratorExit(): ReasonCode.BROKER_ANSWER_UNREADABLE,
    }
    for error, code in cases.items():
        meaning = shioaji_errors.meaning_of(error)
        assert (meaning.outcome, meaning.code) == (Outcome.AMBIGUOUS, code), error


def test_a_real_panic_of_the_sdk_is_caught(capfd: pytest.CaptureFixture[str]) -> None:
    from tests.hft_platform.feed import shioaji_quotes

    broken = shioaji_quotes.quote("TickFOPv1", code=5)
    done = shioaji_errors.attempt(lambda: broken.code)
    assert done.error is not None
    assert not isinstance(done.error, Exception)
    assert shioaji_errors.meaning_of(done.error).outcome is Outcome.AMBIGUOUS
    capfd.readouterr()


def literals(name: str, field: str) -> set[str]:
    """Words that the stub allows for a field of an event."""
    tree = ast.parse(STUB.read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for part in node.body:
                if isinstance(part, ast.AnnAssign) and getattr(part.target, "id", "") == field:
                    return {
                        inner.value
                        for inner in ast.walk(part.annotation)
                        if isinstance(inner, ast.Constant) and isinstance(inner.value, str)
                    }
    raise AssertionError(f"{name}.{field}")


def test_the_words_that_are_known_are_the_words_of_the_sdk() -> None:
    def members(kind: Any) -> set[str]:
        names = [name for name in dir(kind) if not name.startswith("_")]
        return {getattr(kind, name).value for name in names if name not in ("name", "value")}

    assert set(shioaji_orders.STATUS) == members(sj.OrderStatus)
    assert set(shioaji_events.STATES) == members(sj.OrderState)
    assert set(shioaji_events.OPERATIONS) == members(sj.OpType)
    assert set(shioaji_events.SIDES) == members(sj.Action)
    assert set(shioaji_events.TIMES_IN_FORCE) == members(sj.TimeInForce)
    assert set(shioaji_events.ORDER_LOTS) == members(sj.StockOrderLot)
    assert set(ACCOUNT_TYPES) == members(sj.AccountType)
    for market, name in (("future", "FuturesOrderDetailDict"), ("stock", "StockOrderDetailDict")):
        assert set(shioaji_events.PRICE_TYPES[market]) == literals(name, "price_type")


def mentions(path: Path) -> set[str]:
    """Forbidden names that a file's code mentions, in whatever way."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        named = {
            ast.Name: "id", ast.Attribute: "attr", ast.FunctionDef: "name", ast.keyword: "arg",
            ast.ImportFrom: "", ast.alias: "name", ast.arg: "arg",
        }.get(type(node))  # fmt: skip
        if named:
            found.add(getattr(node, named))
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            # As `getattr(sdk, "...")` would name it.
            found.add(node.value)
    return found & NAMES


def test_only_the_session_module_names_what_opens_a_session(repository: Path) -> None:
    hits = {
        str(path.relative_to(repository)): sorted(mentions(path))
        for folder in ("hft_platform", "research", "dagster_project", "notebooks", "scripts")
        for path in sorted((repository / folder).rglob("*.py"))
        if mentions(path)
    }
    assert set(hits) == {"hft_platform/order/shioaji_session.py"}, hits
    made = [
        node
        for node in ast.walk(
            ast.parse((repository / "hft_platform/order/shioaji_session.py").read_text())
        )
        if isinstance(node, ast.Attribute) and node.attr in ("Shioaji", "ShioajiAsync")
    ]
    assert len(made) == 1


def test_a_mention_in_any_way_would_be_found(tmp_path: Path) -> None:
    for text in (
        "sj.Shioaji()",
        "getattr(sj, 'login')",
        "from shioaji import ShioajiAsync",
        "login",
    ):
        (tmp_path / "x.py").write_text(text)
        assert mentions(tmp_path / "x.py"), text


def test_importing_our_modules_does_not_import_the_sdk(tmp_path: Path, repository: Path) -> None:
    modules = [
        ".".join(path.relative_to(repository).with_suffix("").parts)
        for folder in ("order", "feed", "services")
        for path in sorted((repository / "hft_platform" / folder).glob("*shioaji*.py"))
    ]
    assert len(modules) >= 14
    script = f"import {', '.join(modules)}, sys; sys.exit('shioaji' in sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k != "SJ_LOG_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(repository)},
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_test_that_made_a_session_would_fail() -> None:
    for name in ("Shioaji", "ShioajiAsync"):
        with pytest.raises(AssertionError, match="made a broker session"):
            getattr(sj, name)()
