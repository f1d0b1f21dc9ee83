"""Which errors of a database pass, and which blame the row, whatever its driver has for a code."""

import pytest
from sqlalchemy.exc import DBAPIError, InternalError, OperationalError

from entropic.sql.outages import is_lost, is_refused, is_transient

KINDS = (is_transient, is_lost, is_refused)


class Driver(Exception):
    """What a driver raises: with a number, a SQLSTATE, or both."""

    def __init__(self, number: int | str, sqlstate: str | None) -> None:
        super().__init__(number, "some text")
        self.sqlstate = sqlstate


@pytest.mark.parametrize("has_state", [True, False], ids=["with a SQLSTATE", "without"])
@pytest.mark.parametrize(
    ("number", "sqlstate", "kind"),
    [
        (1205, "HY000", is_transient), (1213, "40001", is_transient), (2013, "HY000", is_lost),
        (1927, "70100", is_lost), (1644, "45000", is_refused), (1366, "22007", is_refused),
        (4025, "23000", is_refused), (1153, "08S01", is_refused), (1142, "42000", None), (1114, "HY000", None),
    ],
)  # fmt: skip
def test_error_of_mysql_is_known_by_its_number(number, sqlstate, kind, has_state):
    for wrapper in (OperationalError, InternalError):
        assert (
            kinds_of(wrapper("", {}, Driver(number, sqlstate if has_state else None))) == [kind][: bool(kind)]
        )


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("40P01", is_transient), ("57P01", is_lost), ("08006", is_lost), ("22012", is_refused),
        ("23505", is_refused), ("P0001", is_refused), ("42501", None), ("53100", None),
    ],
)  # fmt: skip
def test_error_of_postgresql_is_known_by_its_sqlstate(sqlstate, kind):
    assert kinds_of(DBAPIError("", {}, Driver("some text", sqlstate))) == [kind][: bool(kind)]


def kinds_of(error):
    return [kind for kind in KINDS if kind(error)]
