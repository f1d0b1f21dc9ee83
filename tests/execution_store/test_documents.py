"""Documents by themselves, where a service finds its database, and what importing costs."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from entropic import Database
from entropic.execution_store import ExecutionStore, KeyDocument, KeyPolicy, StoreDocument
from entropic.sql.versions import ensure_schema

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_policy_is_a_text():
    assert KeyPolicy.EVICT == "evict"
    assert [one.value for one in KeyPolicy] == ["persist", "evict"]
    assert str(KeyPolicy.EVICT) == "KeyPolicy.EVICT"
    with pytest.raises(ValueError, match="x"):
        KeyPolicy("x")


def test_document_has_the_documented_fields():
    document = KeyDocument("s", "k", 1)
    assert (document._id, document.dataset_id, document.updated_at, document.expires_at) == (None,) * 4
    assert document.policy is KeyPolicy.PERSIST
    assert abs(document.created_at - datetime.now(UTC)) < timedelta(minutes=1)

    store = StoreDocument("s")
    assert (store.key, store.value, store.metadata) == ("__store__", None, {})
    assert StoreDocument("s", value={"a": 1}).metadata == {"a": 1}
    assert isinstance(store, KeyDocument)


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, "persist"), ({"expires_at": NOON}, "evict"), ({"policy": None, "expires_at": NOON}, "evict"),
        ({"policy": "persist", "expires_at": NOON}, "persist"), ({"policy": "evict"}, "evict"),
        ({"policy": KeyPolicy.EVICT}, "evict"),
    ],
)  # fmt: skip
def test_policy_of_a_dict_is_its_own_or_follows_from_its_expiry(given, policy):
    before = {"store_name": "s", "key": "k", "value": 1, **given}
    document = KeyDocument.from_dict(before)

    assert document.policy is KeyPolicy(policy)
    assert (document.key, document.value) == ("k", 1)
    assert before.keys() == {"store_name", "key", "value", *given}


def test_dict_that_makes_no_document_is_refused():
    with pytest.raises(TypeError, match="colour"):
        KeyDocument.from_dict({"store_name": "s", "key": "k", "value": 1, "colour": "red"})
    with pytest.raises(ValueError, match="x"):
        KeyDocument.from_dict({"store_name": "s", "key": "k", "value": 1, "policy": "x"})
    store = StoreDocument.from_dict({"store_name": "s", "value": {"a": 1}})
    assert (type(store), store.key, store.metadata) == (StoreDocument, "__store__", {"a": 1})


def test_document_becomes_a_dict_and_one_again():
    document = KeyDocument("s", "k", [1], expires_at=NOON, policy=KeyPolicy.EVICT)
    found = document.to_mongo_dict()

    assert sorted(found) == [
        "created_at", "dataset_id", "expires_at", "key", "policy", "store_name", "updated_at", "value",
    ]  # fmt: skip
    assert found["policy"] == "evict"
    assert type(found["policy"]) is str
    assert document.to_mongo_dict(exclude_id=False).keys() == {*found, "_id"}
    assert KeyDocument.from_dict(found) == document
    document.policy = "evict"
    assert document.to_mongo_dict() == found


@pytest.mark.parametrize("ttl", [60, 0, -5, 0.5])
def test_expiration_counts_from_now(ttl):
    assert KeyDocument.get_expiration(None) is None
    found = KeyDocument.get_expiration(ttl)
    assert abs(found - datetime.now(UTC) - timedelta(seconds=ttl)) < timedelta(minutes=1)


def test_database_is_that_of_the_options(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'lab.sqlite3'}"
    monkeypatch.setenv("ENTROPIC_DB_URL", url)

    ExecutionStore.create("s").set("k", 1)

    assert ExecutionStore.create("s", database=url).get("k") == 1


def test_plain_store_has_nothing_to_do_with_it(tmp_path):
    url = f"sqlite:///{tmp_path / 'plain.sqlite3'}"
    ensure_schema(Database(url), [])  # else all tables are made, and imported for that
    script = f"""
import sys
from entropic import Base, Mapped, Store
class Plain(Base):
    __tablename__ = "plain"
    x: Mapped[int]
Store(print, Plain, {str(tmp_path / "results")!r}, ".txt", {url!r}).count()
from entropic.sql.tables import LibraryBase
print(sorted(name for name in sys.modules if "execution" in name), len(LibraryBase.metadata.tables))
from entropic.execution_store import ExecutionStore
ExecutionStore.create("s", database={url!r}).set("k", 1)
print(*sorted({{"numpy", "pydantic", "pandas"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "[] 5\n\n"
