"""Names that mean something to SQL, to SQLAlchemy or to a record: as parameters, columns and outputs."""

import keyword
import types
from pathlib import Path
from typing import Annotated, Any

import pytest
from sqlalchemy import BigInteger, text

from entropic import Base, Database, ParameterError, SchemaError, Store, mapped_column, memoize, output, param
from entropic.model.base import HIDING, RESERVED
from entropic.sql.columns import ByteString
from entropic.sql.limits import SYSTEM_COLUMNS

KEYWORDS = {
    "postgresql": "SELECT word FROM pg_get_keywords()",
    "mysql": "SELECT word FROM information_schema.keywords",
    "mariadb": "SELECT word FROM information_schema.keywords",
}
STRANGE = ["_", "x_1", "Δt", "a b", "100%", "a:b", "it's", "value_0", "entropic_key", "keys", "ids", "id_0"]
SQLITE = [
    "abort",
    "glob",
    "index",
    "isnull",
    "notnull",
    "oid",
    "pragma",
    "raise",
    "rowid",
    "select",
    "without",
]


def words_of(database):
    """The keywords of the server, which differ from release to release, and Python's."""
    words = {*keyword.kwlist, *STRANGE, *SQLITE, "self", "cls", "limit", "order_by", "params", "key", "where"}
    if database.dialect in KEYWORDS:
        with database.reading() as connection:
            words.update(connection.scalars(text(KEYWORDS[database.dialect])))
    lower = {word.lower(): word for word in words}
    return sorted(lower[word] for word in lower.keys() - set(RESERVED) - SYSTEM_COLUMNS)


def write(params):
    Path(params["result_file"]).touch()
    return {name: 7 for name in params if name not in RESERVED}


def model(**body: Any) -> Any:
    return types.new_class("Named", (Base,), exec_body=lambda b: b.update({"__module__": __name__, **body}))


def test_any_word_can_be_a_column_and_an_output(database, tmp_path):
    words = words_of(database)
    columns = {f"p{n}": param(word, BigInteger(), default=n) for n, word in enumerate(words)}
    outputs = {f"o{n}": output(f"{word}_o"[:60], BigInteger()) for n, word in enumerate(words[:40])}
    named = model(__tablename__="table", **columns, **outputs)
    store = Store(lambda p: write(p) and {"o3": 7}, named, tmp_path, ".txt", database)

    store.run_or_retrieve({"p3": 5})
    again = store.run({"p3": 5})

    assert (again.p3, again.p4, again.o3) == (5, 4, 7)
    assert store.count(named.p3 == 5, p4=4) == len(store.records(order_by=named.p5.desc(), p3=5)) == 1


def test_any_keyword_can_be_a_parameter_of_a_function(database, tmp_path):
    names = [word for word in words_of(database) if word.isidentifier() and not keyword.iskeyword(word)]
    names = [name for name in names if name not in HIDING]
    names = list({*names[:: max(1, len(names) // 80)], "self", "xmin", "tableoid", "ID", "Created_At"})
    source = (
        f"def total(n: int, {', '.join(f'{name}: int = 0' for name in names)}) -> int:\n    return n + xmin\n"
    )
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(source, namespace)
    total = memoize(results_dir=tmp_path, db_url=database)(namespace["total"])

    assert total(1, xmin=2) == total(1, xmin=2, self=0) == 3
    assert [(r.n, r.xmin, r.ID) for r in total.records(xmin=2, self=0)] == [(1, 2, 0)]


def test_parameter_called_self_can_be_given_by_name(tmp_path):
    @memoize(results_dir=tmp_path, db_url="sqlite://")
    def of_self(self: int, where: int = 2) -> int:
        return self * where

    assert of_self(self=3) == of_self(3) == of_self.run(self=3) == of_self.retrieve(self=3) == 6
    assert of_self.record(self=3).self == 3
    assert [len(of_self.records(self=3)), of_self.store.count(self=3), len(of_self.to_frame(self=3))] == [
        1,
        1,
        1,
    ]
    assert of_self.delete(self=3)


@pytest.mark.parametrize("name", sorted(HIDING - {"registry", "_sa_registry"}))
def test_column_that_would_hide_what_a_record_has_is_refused_with_a_name_that_works(name):
    for body in ({name: param(BigInteger())}, {"__annotations__": {name: "Mapped[int]"}}):
        with pytest.raises(SchemaError, match=rf"'{name}', which would hide .* such as '{name}_'"):
            model(__tablename__="hiding", **body)

    mended = model(__tablename__="hiding", **{f"{name}_": param(name, BigInteger())})

    assert name in mended.__table__.columns
    assert callable(mended.load)


@pytest.mark.parametrize("name", ["load", "open", "apply_patch", "metadata", "registry"])
def test_parameter_or_output_that_would_hide_what_a_record_has_is_refused(name, tmp_path):
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(
        f"def taking({name}: float) -> float: return {name}\ndef giving(n: int) -> dict: return {{}}",
        namespace,
    )

    for make in (
        lambda: memoize(namespace["taking"]),
        lambda: memoize(outputs={name: float})(namespace["giving"]),
    ):
        with pytest.raises(TypeError, match=f"{name!r} would hide what every record has.*{name + '_'!r}"):
            make()


def test_method_of_a_model_may_take_the_place_of_the_records_own():
    assert model(__tablename__="own_load", load=lambda self: "mine", n=param(BigInteger()))().load() == "mine"


@pytest.mark.parametrize("name", sorted(SYSTEM_COLUMNS))
def test_system_column_of_a_model_is_refused_on_postgresql_with_what_works(name, postgres_url, tmp_path):
    database = Database(postgres_url)

    with pytest.raises(SchemaError, match=rf"the column '{name}', which every table.*param\('{name}_'\)"):
        Store(write, model(__tablename__="sys", x=param(name, BigInteger())), tmp_path, ".txt", database)
    mended = model(__tablename__="sys", **{name: param(f"{name}_", BigInteger())})
    record = Store(write, mended, tmp_path, ".txt", database).run_or_retrieve({name: 1})

    assert getattr(record, name) == 1
    database.dispose()


@pytest.mark.parametrize("names", [("n", "N"), ("ID",)])
def test_columns_that_differ_in_case_only_are_refused_where_the_database_does_not_tell(
    database, names, tmp_path
):
    named = model(__tablename__="cases", **{name: param(BigInteger(), default=0) for name in names})
    if database.dialect == "postgresql":
        assert Store(write, named, tmp_path, ".txt", database).run_or_retrieve({names[-1]: 1})
        return

    with pytest.raises(SchemaError, match=rf"'{names[-1]}', beside .*param\('{names[-1]}_'\)"):
        Store(write, named, tmp_path, ".txt", database)


def limited(n: int, limit: int | None = 5, order_by: str = "x") -> int:
    return n


@pytest.fixture
def three(tmp_path):
    function = memoize(results_dir=tmp_path, db_url="sqlite://")(limited)
    for n, limit, order in ((1, 1, "n"), (2, 2, "n"), (3, 2, "m"), (4, None, "m")):
        function(n, limit, order)
    return function


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"limit": 2}, [2, 3]),
        ({"limit": None}, [4]),
        ({"order_by": "n"}, [1, 2]),
        ({"limit": 2, "order_by": "m"}, [3]),
        ({}, [1, 2, 3, 4]),
    ],
)
def test_keyword_of_records_that_is_a_parameter_is_the_parameter(three, asked, found):
    assert [record.n for record in three.records(**asked)] == found
    assert three.store.count(**asked) == len(three.to_frame(**asked)) == len(found)


def test_expression_is_an_order_also_if_there_is_a_parameter_order_by(three):
    model = three.model

    assert [r.n for r in three.records(order_by=model.n.desc(), limit=2)] == [3, 2]
    assert [r.n for r in three.records(order_by=[model.order_by, model.n.desc()])] == [4, 3, 2, 1]


def test_order_may_be_the_name_of_a_column(tmp_path):
    function = memoize(results_dir=tmp_path, db_url="sqlite://")(by_name)
    for n in (2, 3, 1):
        function(n)

    assert [record.n for record in function.records(order_by="n", limit=2)] == [1, 2]
    with pytest.raises(ParameterError, match="no column 'nn' to order by; did you mean 'n'"):
        function.records(order_by="nn")


def by_name(n: int) -> int:
    return n


@pytest.mark.parametrize("kind", [str, Path])
def test_row_that_is_too_wide_for_mariadb_is_said_before_anything_runs_with_what_works(
    kind, mysql_url, tmp_path
):
    ran = []

    def wide(**texts):
        ran.append(texts)
        return len(texts)

    def memoized(annotation):
        names = [f"text_{n}" for n in range(70)]
        source = f"def wide({', '.join(f'{name}: T = D' for name in names)}) -> int:\n    return ran()\n"
        namespace = {"__name__": __name__, "T": annotation, "D": kind("a"), "ran": lambda: wide() + 1}
        exec(source, namespace)
        return memoize(results_dir=tmp_path, db_url=mysql_url)(namespace["wide"])

    with pytest.raises(SchemaError, match=r"70 of them texts.*65 535 bytes.*ByteString\(200\)"):
        memoized(kind)()
    assert ran == []

    assert memoized(Annotated[kind, ByteString(200)])() == 1


def test_type_of_a_column_that_is_too_long_for_mariadb_is_said(mysql_url, tmp_path):
    with pytest.raises(SchemaError, match="x: 20000"):
        Store(
            write,
            model(__tablename__="long", x=mapped_column(ByteString(20000))),
            tmp_path,
            ".txt",
            mysql_url,
        )
