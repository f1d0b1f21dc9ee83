"""The public names: `__all__`, the error tree, and types as a checker sees them."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import entropic
from entropic import errors

ROOT = Path(__file__).parents[1]

TREE = {
    "EntropicError": ("Exception",),
    "ParameterError": ("EntropicError", "ValueError"),
    "UnhashableParamError": ("EntropicError", "TypeError"),
    "HashCollisionError": ("EntropicError", "ValueError"),
    "NotFoundError": ("EntropicError", "LookupError"),
    "ConfigNotFoundError": ("NotFoundError", "KeyError", "ValueError", "FileNotFoundError"),
    "WeightsNotFoundError": ("NotFoundError", "FileNotFoundError"),
    "BestNotFoundError": ("WeightsNotFoundError",),
    "AlreadyExistsError": ("EntropicError", "ValueError"),
    "DuplicateNameError": ("AlreadyExistsError",),
    "DuplicateStoreError": ("DuplicateNameError",),
    "InUseError": ("EntropicError", "ValueError"),
    "InvalidContainerError": ("EntropicError", "ValueError", "AssertionError"),
    "DecodeError": ("EntropicError", "ValueError"),
    "ResultFileError": ("EntropicError", "OSError"),
    "ResultFileMissingError": ("ResultFileError", "FileNotFoundError"),
    "ResultsDirUnavailableError": ("ResultFileError",),
    "CorruptFileError": ("ResultFileError",),
    "ClaimLostError": ("EntropicError", "RuntimeError"),
    "ClaimTimeoutError": ("EntropicError", "TimeoutError"),
    "ClusterError": ("EntropicError", "RuntimeError"),
    "DependencyCycleError": ("EntropicError", "RuntimeError"),
    "SchemaError": ("EntropicError", "RuntimeError"),
    "TransactionError": ("EntropicError", "RuntimeError"),
}
ERRORS = [getattr(errors, name) for name in TREE]

CORE = {
    "Base",
    "Database",
    "Mapped",
    "Store",
    "SweepResult",
    "expand_grid",
    "hash_params",
    "mapped_column",
    "memoize",
    "output",
    "param",
    "register_codec",
    "register_hasher",
    "register_loader",
}

each_error = pytest.mark.parametrize("error", ERRORS, ids=list(TREE))


def exceptions_of(module):
    return {
        n for n, value in vars(module).items() if isinstance(value, type) and issubclass(value, Exception)
    }


def test_all_is_sorted_and_has_no_name_twice():
    assert entropic.__all__ == sorted(set(entropic.__all__))


def test_all_names_exist():
    assert [name for name in entropic.__all__ if not hasattr(entropic, name)] == []


def test_a_name_that_is_loaded_later_is_listed_and_found_once():
    script = (
        "import entropic\n"
        "print('Store' in vars(entropic), set(entropic.__all__) <= set(dir(entropic)))\n"
        "print(entropic.Store.__module__, vars(entropic)['Store'] is entropic.Store)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == ["False True", "entropic.store True"]


def test_a_name_that_there_is_not_is_an_attribute_error_that_names_it():
    with pytest.raises(AttributeError, match="module 'entropic' has no attribute 'Stroe'") as caught:
        entropic.Stroe  # noqa: B018

    assert (caught.value.name, caught.value.obj) == ("Stroe", entropic)


def test_all_has_the_core_and_every_error():
    assert set(entropic.__all__) >= CORE | set(TREE)


def test_every_public_error_is_exported_as_itself():
    assert exceptions_of(errors) == set(errors.__all__) == set(TREE)
    assert all(getattr(entropic, name) is getattr(errors, name) for name in TREE)


@each_error
def test_error_has_exactly_the_bases_of_the_contract(error):
    assert tuple(base.__name__ for base in error.__bases__) == TREE[error.__name__]


@each_error
def test_error_is_caught_as_every_builtin_that_it_promises(error):
    builtin = [base for base in error.__mro__ if base.__module__ == "builtins" and base is not object]

    for base in builtin:
        with pytest.raises(base):
            raise error("It did not work.")


@each_error
def test_error_prints_as_its_sentence(error):
    raised = error("The value 'x' is no number; give one.")

    assert str(raised) == raised.message == "The value 'x' is no number; give one."


@each_error
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_error_survives_pickling_with_its_facts_and_notes(error, protocol):
    raised = error("It did not work.")
    raised.fact = {"n": 1}
    raised.add_note("in set 3")

    again = pickle.loads(pickle.dumps(raised, protocol))

    assert type(again) is error
    assert (str(again), again.args, again.fact, again.__notes__) == (
        "It did not work.",
        raised.args,
        {"n": 1},
        ["in set 3"],
    )


def test_claim_lost_error_travels_without_its_record():
    raised = errors.ClaimLostError("It was taken over.")
    raised.record = lambda: None

    again = pickle.loads(pickle.dumps(raised))

    assert (str(again), again.record) == ("It was taken over.", None)


@pytest.mark.slow
def test_types_of_the_public_names_are_what_the_checker_sees():
    command = [sys.executable, "-m", "mypy", "--strict", "tests/typing"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
