"""What a table that is there holds, where it is less than the model says: refused before anything runs.

Each way out is followed as it is said, and the value has to be a hit then.
"""

from __future__ import annotations

import enum
import pickle
import re
from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Enum, Numeric, String, Text
from sqlalchemy.dialects.postgresql import JSONB

from entropic import Base, Database, Mapped, ParameterError, SchemaError, Store, mapped_column, memoize
from entropic.sql.capacity import foreign_character
from tests.support import servers
from tests.support.naming import shown

CODE = re.compile(r"ALTER [^;]*?(?=, then open it again)")


class Runner:
    """Writes what it got."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, params: dict[str, Any]) -> None:
        self.seen.append(params)
        Path(params["result_file"]).write_text(repr(params))


def model_of(annotation: Any, *types: Any, **options: Any) -> Any:
    body = {
        "__module__": __name__,
        "__tablename__": "capacity",
        "__annotations__": {"x": Mapped[annotation]},
        "x": mapped_column(*types, **options),
    }
    return type("Capacity", (Base,), body)


def opened(model: Any, folder: Path, url: Any) -> Any:
    return Store(Runner(), model, folder / "results", ".txt", url)


def execute(url: Any, *statements: str) -> None:
    with Database.of(url).engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def rows(url: Any, statement: str) -> list[Any]:
    with Database.of(url).engine.connect() as connection:
        return list(connection.exec_driver_sql(statement))


def refusal(store: Any, params: dict[str, Any]) -> str:
    """Return what *store* says of *params*; nothing runs."""
    with pytest.raises(ParameterError) as caught:
        store.run_or_retrieve(params)
    assert store.runner.seen == []
    return str(caught.value)


def require_hit(store: Any, params: dict[str, Any]) -> None:
    """Run *params*; they must be found again and read as they are."""
    store.run_or_retrieve(params)
    record = store.run_or_retrieve(params)
    assert len(store.runner.seen) == 1
    assert {name: getattr(record, name) for name in params} == params


# Characters


@pytest.fixture(params=["postgresql", "mysql"])
def latin1_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an empty database whose texts are in latin1, on each kind of server."""
    kind = "postgres" if request.param == "postgresql" else "mysql"
    make = getattr(servers, f"{kind}_database")
    with make(request.getfixturevalue(f"{kind}_server"), latin1=True) as url:
        yield url


class Odd(enum.Enum):
    ONE = 1
    漢 = 2


class Texts(Base):
    __tablename__ = "capacity_texts"
    x: Mapped[str] = mapped_column(String(50))
    long: Mapped[str] = mapped_column(Text)
    member: Mapped[Odd] = mapped_column(Enum(Odd, native_enum=False, length=20))


GOOD = {"x": "caf\u00e9", "long": "caf\u00e9", "member": Odd.ONE}
BAD = {"x": "5 \u03bcm", "long": "5 \u03bcm", "member": Odd.漢}


def test_character_that_a_column_lacks_is_refused_before_the_run(latin1_url, tmp_path):
    store = opened(Texts, tmp_path, latin1_url)

    texts = {name: refusal(store, {**GOOD, name: bad}) for name, bad in BAD.items()}

    for name, text in texts.items():
        start = (
            rf"Texts\.{name} holds '[μ漢]' \(U\+\w{{4}}\), which the character set (latin1|LATIN1) lacks: "
        )
        assert re.match(start, text)
    if store.database.dialect == "mysql":
        execute(latin1_url, CODE.search(texts["x"])[0])
        require_hit(opened(Texts, tmp_path, latin1_url), BAD)
    else:
        assert "use a database that was made with ENCODING 'UTF8'" in texts["x"]
        require_hit(store, GOOD)
    assert not store.check()


def test_document_needs_no_characters_but_ascii(latin1_url, tmp_path):
    require_hit(opened(model_of(dict[str, Any]), tmp_path, latin1_url), {"x": {"\u6f22": ["\u03bc"]}})


def test_document_that_the_database_would_spell_out_is_refused(postgres_server, tmp_path):
    with servers.postgres_database(postgres_server, latin1=True) as url:
        store = opened(model_of(Any, JSONB), tmp_path, url)
        assert "the character set US_ASCII lacks: connect with ?client_encoding=utf8" in refusal(
            store, {"x": ["\u00e9"]}
        )

        store = opened(model_of(Any, JSONB), tmp_path, f"{url}&client_encoding=utf8")

        assert "the character set LATIN1 lacks: use a database" in refusal(store, {"x": ["\u03bc"]})
        require_hit(store, {"x": ["caf\u00e9"]})


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_character_that_the_connection_lacks_is_refused_with_how_to_connect(request, kind, tmp_path):
    url = request.getfixturevalue("postgres_url" if kind == "postgresql" else "mysql_url")
    option = "client_encoding=latin1" if kind == "postgresql" else "charset=latin1"
    store = opened(model_of(str), tmp_path, f"{url}{'&' if '?' in url else '?'}{option}")

    text = refusal(store, {"x": "5 \u03bcm"})

    (way,) = re.findall(r"connect with \?(\S+) in the URL", text)
    require_hit(
        opened(model_of(str), tmp_path, f"{url}{'&' if '?' in url else '?'}{way}"), {"x": "5 \u03bcm"}
    )


def test_what_only_utf8mb3_lacks_is_refused(mysql_url, tmp_path):
    model = model_of(str, String(50))
    opened(model, tmp_path, mysql_url)
    execute(mysql_url, "ALTER TABLE capacity MODIFY x VARCHAR(50) CHARACTER SET utf8mb3 NOT NULL")
    store = opened(model, tmp_path, mysql_url)

    text = refusal(store, {"x": "\u6f22\U0001f4a5"})

    assert "(U+1F4A5), which the character set utf8mb3 lacks" in text
    execute(mysql_url, CODE.search(text)[0])
    require_hit(opened(model, tmp_path, mysql_url), {"x": "\u6f22\U0001f4a5"})


def test_id_is_refused_too_and_so_is_a_folder_that_no_row_could_name(latin1_url, tmp_path):
    store = opened(model_of(int), tmp_path, latin1_url)

    if store.database.dialect == "postgresql":
        with pytest.raises(ParameterError, match=r"the id '漢' holds '漢'"):
            store.run_or_retrieve({"x": 1, "id": "\u6f22"})
    with pytest.raises(SchemaError, match=r"results/漢', cannot be in the column result_file: it holds '漢'"):
        Store(Runner(), model_of(int), tmp_path / "results" / "\u6f22", ".txt", latin1_url)
    assert store.runner.seen == []


def test_memoized_function_and_a_store_that_travelled_refuse_too(latin1_url, tmp_path):
    @memoize(db_url=latin1_url, results_dir=tmp_path / "functions", wait_timeout_s=3)
    def f(x: Odd) -> int:
        return len(x.name)

    assert f(Odd.ONE) == 3
    with pytest.raises(ParameterError, match=r"f\.x holds '漢'"):
        f(Odd.漢)
    travelled = pickle.loads(pickle.dumps(opened(Texts, tmp_path, latin1_url)))
    assert "Texts.x holds" in refusal(travelled, {**GOOD, "x": "\u6f22"})


@pytest.mark.parametrize(
    ("text", "charset", "lacking"),
    [
        ("\u20ac", "latin1", None),
        ("\u20ac", "LATIN1", "\u20ac"),
        ("\u20ac\x85", "LATIN9", None),
        ("a\u0416", "KOI8R", None),
        ("a\u0416", "koi8r", None),
        ("\u20ac\u0416", "WIN1251", None),
        ("\u6f22", "EUC_JP", None),
        ("\u6f22", "big5", None),
        ("\u6f22", "utf8mb3", None),
        ("\u6f22", "MULE_INTERNAL", "\u6f22"),
        ("\U0001f4a5", "utf8mb4", None),
        ("\U0001f4a5", "utf8", "\U0001f4a5"),
        ("ascii", "swe7", None),
    ],
)
def test_character_sets_have_what_their_servers_say(text, charset, lacking):
    assert foreign_character(text, charset) == lacking


# Widths


class Wide(Base):
    __tablename__ = "capacity_wide"
    count: Mapped[int]
    name: Mapped[str] = mapped_column(String(200))
    fine: Mapped[Decimal] = mapped_column(Numeric(40, 20))
    large: Mapped[Decimal] = mapped_column(Numeric(40, 0))
    ratio: Mapped[float]
    moment: Mapped[datetime]
    daily: Mapped[time]
    member: Mapped[Odd] = mapped_column(Enum(Odd, native_enum=False, length=20))


NARROW = {
    "count": ("INTEGER", "INTEGER"),
    "name": ("VARCHAR(3)", "VARCHAR(3)"),
    "fine": ("NUMERIC(8, 2)", "NUMERIC(8, 2)"),
    "large": ("NUMERIC(8, 0)", "NUMERIC(8, 0)"),
    "ratio": ("NUMERIC(8, 2)", "NUMERIC(8, 2)"),
    "moment": ("TIMESTAMP(3) WITH TIME ZONE", "DATETIME(3)"),
    "daily": ("TIME(0)", "TIME"),
    "member": ("VARCHAR(2)", "VARCHAR(2)"),
}
HELD = {
    "count": 7,
    "name": "abc",
    "fine": Decimal("0.25"),
    "large": Decimal(12),
    "ratio": 0.5,
    "moment": datetime(2026, 1, 2, tzinfo=UTC),
    "daily": time(3, 4, 5),
}
TOO_MUCH = {
    "count": 2**40,
    "name": "abcd",
    "fine": Decimal("0.125"),
    "large": Decimal(10**30),
    "ratio": 1e20,
    "moment": datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    "daily": time(3, 4, 5, 6),
    "member": Odd.ONE,
}


def test_value_that_the_table_is_too_narrow_for_is_refused_with_what_widens_it(server_url, tmp_path):
    is_mysql = opened(Wide, tmp_path, server_url).database.dialect == "mysql"
    change = "MODIFY {} {}" if is_mysql else "ALTER COLUMN {} TYPE {}"
    narrow = [change.format(name, kinds[is_mysql]) for name, kinds in NARROW.items()]
    execute(server_url, *(f"ALTER TABLE capacity_wide {each}" for each in narrow))
    store = opened(Wide, tmp_path, server_url)

    texts = [refusal(store, {**HELD, "member": Odd.漢, name: value}) for name, value in TOO_MUCH.items()]

    execute(server_url, *(CODE.search(text)[0] for text in texts))
    require_hit(opened(Wide, tmp_path, server_url), TOO_MUCH)


def test_older_table_of_sqlite_has_doubles_for_decimals_and_says_so(sqlite_url, tmp_path):
    model = model_of(Decimal, Numeric(40, 2))
    opened(model, tmp_path, sqlite_url)
    (made,) = rows(sqlite_url, "SELECT sql FROM sqlite_master WHERE name = 'capacity'")
    execute(sqlite_url, "DROP TABLE capacity", made[0].replace("x VARCHAR", "x NUMERIC(40, 2)"))
    store = opened(model, tmp_path, sqlite_url)

    text = refusal(store, {"x": Decimal("1234567890123456.5")})

    assert (
        "has more than the 15 digits of the column in the database, which is NUMERIC(40, 2): SQLite" in text
    )
    require_hit(store, {"x": Decimal("-1234567890123.45")})
    assert store.records(x=Decimal("-1234567890123.45"))
    assert not store.check()


@pytest.mark.parametrize("kind", [Numeric(), Numeric(5), None], ids=shown)
@pytest.mark.parametrize("text", ["12345678901234567", "6.62607015e-34", "1.5", "1e70"])
def test_declaration_that_a_refusal_names_holds_the_value(sqlite_url, tmp_path, kind, text):
    value = Decimal(text)
    store = opened(model_of(Decimal, *([] if kind is None else [kind])), tmp_path, sqlite_url)
    try:
        require_hit(store, {"x": value})
    except ParameterError as error:
        assert store.runner.seen == []
        advised = map(int, re.search(r"Numeric\((\d+), (\d+)\)", str(error)).groups())
        url = f"{sqlite_url}.new"
        require_hit(opened(model_of(Decimal, Numeric(*advised)), tmp_path / "new", url), {"x": value})
        assert (
            opened(model_of(str), tmp_path / "text", f"{sqlite_url}.text").run_or_retrieve({"x": text}).x
            == text
        )
