"""The embedded engine of the store server, and how HTTP's statements become its own.

Why: a server takes settings, parameters and data beside a statement; the embedded engine takes one
text. What is lost between the two would make a rehearsal worthless.

Invariants:
1. One connection, one statement at a time.
2. Settings go with their statement as a SETTINGS clause, never with SET: a token left behind by one
   insert would silently drop the next.
3. A setting that cannot be applied is refused, except those the client sends with everything.

It speaks no HTTP (see `chdb_server`). Operator's page: `docs/drills.md`.
"""

from __future__ import annotations

import email.parser
import email.policy
import gzip
import importlib
import json
import re
import tempfile
import threading
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Sent by the client with every statement; they change nothing that DDL does.
_HARMLESS_FOR_DDL = frozenset(
    {
        "date_time_input_format", "cast_string_to_dynamic_use_inference",
        "cancel_http_readonly_queries_on_client_close",
    }
)  # fmt: skip
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INSERT = re.compile(
    r"\s*INSERT\s+INTO\s+(?:TABLE\s+)?(?P<table>[\w.`\"]+)\s*(?P<columns>\([^)]*\))?", re.I
)
# Data start behind one newline: a Native block of ten columns itself begins with one.
_DATA_FORMAT = re.compile(r"\s*FORMAT\s+(?P<format>\w+)[ \t\r\f]*;?[ \t\r\f]*(?:\n|\Z)", re.I)
_SELECT = re.compile(r"\s*(?:SELECT|WITH|\()", re.I)
_TABLE = re.compile(r"\b(?:FROM|TABLE)\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?([\w.]+)", re.I)
_CODE = re.compile(r"Code: (\d+)")


class EngineError(Exception):
    """The engine's own error: code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Engine:
    """The embedded engine: one connection, one statement at a time.

    Parameters
    ----------
    path : Path
        Folder of the data.
    """

    def __init__(self, path: Path) -> None:
        # Any: chdb has types or not by the order in which its two packages were installed.
        chdb: Any = importlib.import_module("chdb")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = chdb.connect(str(path))
        self._lock = threading.Lock()
        self._database = "default"

    def run(
        self,
        sql: str,
        *,
        settings: Mapping[str, str],
        parameters: Mapping[str, str],
        database: str,
        data: bytes | None,
        inside: Callable[[], None],
    ) -> tuple[bytes, dict[str, str]]:
        """Run a statement.

        Parameters
        ----------
        sql : str
            One statement; an INSERT ends with its FORMAT when `data` are given.
        settings, parameters : mapping of str to str
            For this statement alone.
        database : str
            Default database of unqualified names.
        data : bytes or None
            Rows of an INSERT.
        inside : callable
            Called with the lock held, right before the engine is.

        Returns
        -------
        tuple of bytes and dict
            Answer and headers.
        """
        with self._lock:
            if database != self._database:
                self._query(f"USE `{database}`", {})
                self._database = database
            if data is None:
                inside()
                result = self._query(_with_settings(sql, settings), parameters)
                return bytes(result.bytes() or b""), self._headers(result, written=False)
            with tempfile.NamedTemporaryFile(suffix=".rows") as file:
                file.write(data)
                file.flush()
                inside()
                result = self._query(_insert_from(sql, file.name, settings), parameters)
                return b"", self._headers(result, written=True)

    def data_paths(self, table: str) -> list[Path]:
        """Folders of a table's data, for faults that wait for something on disk."""
        sql = (
            "SELECT arrayJoin(data_paths) FROM system.tables"
            " WHERE database || '.' || name = {t:String}"
        )
        with self._lock:
            answer = self._query(sql, {"t": table}).bytes() or b""
        return [Path(line) for line in answer.decode().splitlines()]

    def close(self) -> None:
        """Close the connection; waits for the statement that runs."""
        with self._lock:
            self._connection.close()

    def _query(self, sql: str, parameters: Mapping[str, str]) -> Any:  # Any: chdb has no types
        try:
            return self._connection.query(sql, "TabSeparated", params=dict(parameters))
        except Exception as error:
            text = str(error)
            found = _CODE.search(text)
            code = 1001 if found is None else int(found.group(1))
            raise EngineError(code, text[0 if found is None else found.start() :]) from error

    @staticmethod
    def _headers(result: Any, *, written: bool) -> dict[str, str]:  # Any: chdb has no types
        rows, size = str(result.rows_read()), str(result.bytes_read())
        kind = "written" if written else "read"
        summary = {f"{kind}_rows": rows, f"{kind}_bytes": size}
        return {"X-ClickHouse-Summary": json.dumps(summary)}


def _clause(settings: Mapping[str, str]) -> str:
    parts = []
    for name, value in settings.items():
        if not _SETTING_NAME.fullmatch(name):
            raise EngineError(115, f"Code: 115. Setting {name!r} is no name. (UNKNOWN_SETTING)")
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        parts.append(f"{name} = '{quoted}'")
    return f" SETTINGS {', '.join(parts)}" if parts else ""


def _with_settings(sql: str, settings: Mapping[str, str]) -> str:
    insert = _INSERT.match(sql)
    if insert is not None:
        return f"{sql[: insert.end()]}{_clause(settings)} {sql[insert.end() :]}"
    if _SELECT.match(sql):
        # After FORMAT, where a second clause is allowed beside one of the query's own.
        return f"{sql.rstrip().rstrip(';')}\n{_clause(settings)}"
    refused = sorted(set(settings) - _HARMLESS_FOR_DDL)
    if refused:
        raise EngineError(
            48, f"Code: 48. This server takes no settings with DDL: {refused}. (NOT_IMPLEMENTED)"
        )
    return sql


def _insert_from(sql: str, file: str, settings: Mapping[str, str]) -> str:
    insert = _INSERT.match(sql)
    data_format = None if insert is None else _DATA_FORMAT.match(sql, insert.end())
    if insert is None or data_format is None:
        raise EngineError(
            62, "Code: 62. Data without INSERT INTO table (columns) FORMAT name. (SYNTAX_ERROR)"
        )
    head = sql[: insert.end()]
    return f"{head} FROM INFILE '{file}'{_clause(settings)} FORMAT {data_format['format']}"


def kind_of(sql: str) -> tuple[str, str]:
    """Kind of a statement for faults, and its target."""
    insert = _INSERT.match(sql)
    if insert is not None:
        return "insert", insert["table"].replace("`", "").replace('"', "")
    table = _TABLE.search(sql)
    name = "" if table is None else table.group(1)
    return ("select" if _SELECT.match(sql) else "other"), name


def split(query: str, body: bytes) -> tuple[str, bytes | None]:
    """Tell a statement from its data: in the URL, in the body, or the one before the other."""
    if not query:
        head = body[:65536].decode("utf-8", "replace")
        insert = _INSERT.match(head)
        found = None if insert is None else _DATA_FORMAT.match(head, insert.end())
        if found is None:
            return body.decode("utf-8"), None
        size = len(head[: found.end()].encode("utf-8"))
        return head[: found.end()], body[size:]
    if _INSERT.match(query) and re.search(r"\bFORMAT\s+\w+\s*;?\s*$", query, re.I):
        return query, body
    return (f"{query}\n{body.decode('utf-8')}" if body else query), None


def form_values(content_type: str, body: bytes) -> dict[str, str]:
    raw = b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(raw)
    values = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(payload, bytes):
            values[str(name)] = payload.decode("utf-8")
    return values


def decompressed(body: bytes, encoding: str | None) -> bytes:
    if not encoding or encoding == "identity" or not body:
        return body
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "deflate":
        return zlib.decompress(body)
    if encoding == "lz4":
        lz4_frame: Any = importlib.import_module("lz4.frame")  # Any: it has no types

        # The client sends a frame for each block.
        parts = []
        while body:
            frame = lz4_frame.LZ4FrameDecompressor()
            parts.append(frame.decompress(body))
            body = frame.unused_data or b""
        return b"".join(parts)
    if encoding == "zstd":
        from clickhouse_connect.driver.compression import _zstd_decompress

        return bytes(_zstd_decompress(body))
    raise EngineError(48, f"Code: 48. Content-Encoding {encoding} is not known. (NOT_IMPLEMENTED)")
