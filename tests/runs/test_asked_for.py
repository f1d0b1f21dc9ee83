"""What is returned is what was asked for, also where another process had finished a run under the same explicit id."""

from __future__ import annotations

import pytest

from entropic import HashCollisionError
from tests.support.gone import Left, dead, elsewhere, living


@pytest.mark.parametrize("process", [dead, living, elsewhere])
@pytest.mark.parametrize("call", ["run_or_retrieve", "sweep"])
def test_finished_run_of_other_parameters_under_the_id_is_a_collision_and_kept(place, process, call):
    store = place.store()
    Left(place, process()).finish(5.0, "1", record_id="best")
    asked = {"id": "best", "a": 6.0}

    with pytest.raises(HashCollisionError, match=r"a: asked for 6\.0, stored 5\.0"):
        store.sweep([asked]) if call == "sweep" else store.run_or_retrieve(asked)

    assert place.runner().calls == []
    assert [(row.id, row.a) for row in place.sql("SELECT id, a FROM protocol_sims")] == [("best", 5.0)]
    assert store.run_or_retrieve({"id": "best", "a": 5.0}).a == 5.0


@pytest.mark.parametrize("process", [dead, living])
def test_finished_run_of_the_same_parameters_under_the_id_is_taken(place, process):
    store = place.store()
    Left(place, process()).finish(5.0, "1", record_id="best")

    assert store.run_or_retrieve({"id": "best", "a": 5.0}).a == 5.0
    assert place.runner().calls == []
