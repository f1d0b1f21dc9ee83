"""What a component is: its type, version and parameters are its identity; these and its inputs are its state.

A component is any object with the attributes `parameters`, `input` and `version`; nothing is inherited. Its state is
told by a document that holds what the parameters say, types included, so that no two states that a computation can
tell apart have one key, and none of them depends on the order in which a dict has its keys, or on the process.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from entropic.errors import HashCollisionError, UnhashableParamError
from entropic.process.scripts import MAIN, module_of
from entropic.values.documents import MARKER
from entropic.values.hashing import NoForm, canonical
from entropic.values.parameter_documents import Documents

__all__ = [
    "KeyGenerator",
    "State",
    "chain_of",
    "check_text",
    "collision",
    "filter_digests",
    "full_type",
    "hash_state",
    "join_with_underscores",
    "parameter_digests",
    "state_of",
]

KeyGenerator = Callable[[Any], str]

NAME_LENGTH = 255
LARGEST = 1 << 20  # characters of parameters, or of a key: every server takes as much in a statement
MOST = 100_000  # components that one of them depends on

_REPLACED = str.maketrans({"/": "_", " ": "_", **dict.fromkeys("[]:,")})


@dataclass(frozen=True)
class State:
    """The state of a component.

    Attributes
    ----------
    key : str
        What the key generator made of it.
    digest : str
        SHA-256 of the key; by it rows and files are named.
    identity : str
        SHA-256 of type, version, parameters and inputs, whatever the key generator makes of them.
    document : object
        Of the parameters.
    url : str or None
        From where the parameters were read.
    inputs : tuple of State
    """

    key: str
    digest: str
    identity: str
    full_type: str
    version: str
    document: Any = field(repr=False)
    text: str = field(repr=False)
    url: str | None = field(repr=False)
    inputs: tuple[State, ...] = field(repr=False)


# Key generators


def hash_state(component: Any) -> str:
    """Return the key of a component's state: the SHA-256, in hex, of its type, version, parameters and inputs.

    Parameters
    ----------
    component : object
        Has `parameters`, `input` and `version`.

    Raises
    ------
    AttributeError
        If it is no component.
    UnhashableParamError
        If a parameter has no stable form.
    ValueError
        If components are inputs of each other.

    Notes
    -----
    The same in every process and on every machine; the order of parameters does not count. An int and a float are two
    values, and so are a list and a tuple.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> one = SimpleNamespace(full_type="lab.Source", version="0.1", parameters={"rate": 8.0, "n": 3}, input=None)
    >>> hash_state(one)[:16]
    '81af2326d8f4129f'
    """
    return _described(component)[-1][-1].identity


def join_with_underscores(component: Any) -> str:
    """Return the key of a component's state in words: type, version and parameters, and the keys of its inputs.

    Raises
    ------
    AttributeError
        If it is no component.
    ValueError
        If components are inputs of each other.

    Notes
    -----
    For keys that people read, or that an older store has. It depends on the order of the parameters and gives different
    states one key, such as those of ``{"a": "1 2"}`` and ``{"a": "1_2"}``; a store tells them apart and raises
    `HashCollisionError`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> one = SimpleNamespace(full_type="lab.Source", version=0.1, parameters={"rate": 8.0, "n": 3}, input=None)
    >>> join_with_underscores(one)
    "lab.Source-r0.1_{'rate'_8.0_'n'_3}"
    """
    ordered = _in_order(component)
    uses = Counter(id(below) for _, inputs in ordered for below in inputs)
    keys: dict[int, str] = {}
    for one, inputs in ordered:
        own = f"{_type_as_it_is(one)}-r{_part(one, 'version')}_{_part(one, 'parameters')}".translate(
            _REPLACED
        )
        keys[id(one)] = own + "".join(keys[id(below)] for below in inputs)
        if len(keys[id(one)]) > LARGEST:
            raise ValueError(
                f"the key of {full_type(one)} has more than {LARGEST} characters, as it has those of all inputs in it: "
                "use hash_state"
            )
        for below in inputs:
            uses[id(below)] -= 1
            if not uses[id(below)]:  # of a long chain all keys together are longer than its memory
                del keys[id(below)]
    return keys[id(component)]


# What a component says of itself


def full_type(component: Any) -> str:
    """Return the name of a component's type: its `full_type` or, without one, that of its class and module.

    A script has the name of its file there, however it was started, and in the processes that it sends its components
    to. A class can be a component itself.
    """
    said = _full_type_said(component)
    if said is not None:
        return said
    if isinstance(component, ModuleType):
        file = getattr(component, "__file__", None)
        return component.__name__ if component.__name__ not in MAIN or file is None else Path(file).stem
    kind = _class_of(component)
    return f"{module_of(kind)}.{kind.__name__}"


def _class_of(component: Any) -> type:
    return component if isinstance(component, type) else type(component)


def _type_in_full(component: Any, name: str) -> str:
    """Return what tells a type from all others: *name*, and of a class in another one or in a function where it is."""
    if isinstance(component, ModuleType) or _full_type_said(component) is not None:
        return name
    kind = _class_of(component)
    return f"{module_of(kind)}.{kind.__qualname__}"


def _full_type_said(component: Any) -> str | None:
    said = getattr(component, "full_type", None)
    if said is None:
        return None
    if not isinstance(said, str):
        raise TypeError(f"the full_type of a component is text, such as 'module.Class', not {said!r:.200}")
    return str.__str__(said)


def _type_as_it_is(component: Any) -> str:
    """Return the name of a type as `join_with_underscores` has always had it: of a class in a script ``__main__.C``."""
    if isinstance(component, ModuleType):
        return full_type(component)
    kind = _class_of(component)
    module = "__main__" if kind.__module__ in MAIN else kind.__module__
    return _full_type_said(component) or f"{module}.{kind.__name__}"


def inputs_of(component: Any) -> tuple[Any, ...]:
    """Return the components that a component gets its input from."""
    given = _part(component, "input")
    if given is None:
        return ()
    is_many = isinstance(given, Sequence) and not isinstance(given, str) and not hasattr(given, "parameters")
    return tuple(given) if is_many else (given,)


def _part(component: Any, name: str) -> Any:
    try:
        return getattr(component, name)
    except AttributeError as error:
        if hasattr(type(component), name):  # a property that fails by itself
            raise
        raise AttributeError(
            f"{component!r:.200} is no component, for it has no attribute {name!r}: a component has parameters, input "
            "(another component, several in a list, or None) and version",
            name=name,
            obj=component,
        ) from error


def _in_order(component: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """Return a component and its inputs after all that it depends on, each once.

    Raises
    ------
    ValueError
        If one depends on itself.
    """
    done: dict[int, tuple[Any, tuple[Any, ...]]] = {}
    begun: dict[int, tuple[Any, tuple[Any, ...]]] = {}  # by identity: components need not be hashable
    ways: list[tuple[int, Iterator[Any]]] = []

    def begin(one: Any) -> None:
        if id(one) in begun:
            raise ValueError(
                f"recurrent input: {full_type(one)} is, directly or by others, an input of itself, so that none of "
                "them can be computed first"
            )
        if len(done) + len(begun) >= MOST:
            raise ValueError(
                f"recurrent input: {full_type(component)} depends on more than {MOST} components, as where an input is "
                "made anew each time that it is asked for"
            )
        inputs = inputs_of(one)  # once: it may be made when it is asked for
        begun[id(one)] = (one, inputs)
        ways.append((id(one), iter(inputs)))

    begin(component)
    while ways:
        number, left = ways[-1]
        for below in left:
            if id(below) not in done:
                begin(below)
                break
        else:
            ways.pop()
            done[number] = begun.pop(number)
    return list(done.values())


@dataclass(frozen=True)
class _Facts:
    identity: str
    full_type: str
    version: str
    document: Any
    text: str
    url: str | None


def _described(component: Any) -> list[tuple[Any, tuple[Any, ...], _Facts]]:
    """Return a component, its inputs and what tells it, after the same of all that it depends on."""
    known: dict[int, _Facts] = {}
    described = []
    for one, inputs in _in_order(component):
        known[id(one)] = facts = _facts(one, [known[id(below)].identity for below in inputs])
        described.append((one, inputs, facts))
    return described


def _facts(component: Any, inputs: list[str]) -> _Facts:
    given, version = _part(component, "parameters"), _part(component, "version")
    name = check_text(full_type(component), "the full_type of a component")
    revision = _version(version, name)
    document = _document(given, f"the parameters of {name}")
    text = canonical(document)
    if len(text) > LARGEST:
        raise ValueError(
            f"the parameters of {name} take {len(text)} characters, and a row has {LARGEST}: give an array, of which a "
            "digest is kept, or the name of a file"
        )
    kind = _type_in_full(component, name)
    whole = canonical({"type": kind, "version": revision, "parameters": document, "inputs": inputs})
    url = getattr(given, "__dict__", {}).get("_url")
    identity = hashlib.sha256(whole.encode()).hexdigest()
    return _Facts(identity, name, revision, document, text, url if isinstance(url, str) and url else None)


def _version(version: Any, name: str) -> str:
    if isinstance(version, bool) or not isinstance(version, str | Real):
        raise TypeError(f"the version of {name} is text or a number, not {version!r:.200}")
    text = str.__str__(version) if isinstance(version, str) else str(version)
    return check_text(text, f"the version of {name}")


def _document(value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} are a mapping of names to values, not {value!r:.200}")
    try:
        return Documents(takes_any_float=True).of(_plain(value)).stored
    except NoForm as refused:
        message = f"{name}: {''.join(reversed(refused.steps))} {refused}"
    except RecursionError:
        message = f"{name} contain themselves, or are nested too deeply: give flatter ones"
    raise UnhashableParamError(message)


def _plain(value: Any) -> Any:
    """Return *value* with a dict for each mapping, as a set of parameters is one of its own class."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in {list, tuple}:
        return type(value)(_plain(item) for item in value)
    return value


def check_text(text: Any, what: str) -> str:
    """Return *text* if every database can keep it exactly.

    Raises
    ------
    TypeError
        If it is no text.
    ValueError
        If it has not 1 to 255 characters, or has NUL or half of a surrogate pair.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} is text, not {text!r:.200}")
    if not 0 < len(text) <= NAME_LENGTH:
        raise ValueError(f"{what} has 1 to {NAME_LENGTH} characters, not {len(text)}: {text!r:.100}")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{what} has no NUL and no half of a surrogate pair, as {text!r:.300} has")
    return str.__str__(text)


# States


def chain_of(component: Any, key_generator: KeyGenerator) -> list[State]:
    """Return the state of a component, after those of all that it depends on.

    Raises
    ------
    HashCollisionError
        If two of them that differ have one key.
    """
    states: dict[int, State] = {}
    by_digest: dict[str, State] = {}
    for one, below, facts in _described(component):
        key = facts.identity if key_generator is hash_state else _key(key_generator, one)
        digest = _digest_of(key)
        inputs = tuple(states[id(other)] for other in below)
        state = State(key, digest, inputs=inputs, **vars(facts))
        states[id(one)] = state
        if by_digest.setdefault(digest, state).identity != state.identity:
            raise collision(state)
    last = states[id(component)]
    return [*(state for state in by_digest.values() if state.digest != last.digest), last]


def state_of(component: Any, key_generator: KeyGenerator) -> State:
    """Return the state of a component by itself: what `chain_of` has as the last one, without its inputs."""
    facts = _described(component)[-1][-1]
    key = facts.identity if key_generator is hash_state else _key(key_generator, component)
    return State(key, _digest_of(key), inputs=(), **vars(facts))


def _digest_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _key(key_generator: KeyGenerator, component: Any) -> str:
    key = key_generator(component)
    if not isinstance(key, str):
        raise TypeError(f"a key generator returns text, not {key!r:.200}")
    if not 0 < len(key) <= LARGEST:
        raise ValueError(f"a key has 1 to {LARGEST} characters, not {len(key)}: {key!r:.100}")
    return key


def collision(state: State) -> HashCollisionError:
    """Return the error of a state whose key is another one's."""
    return HashCollisionError(
        f"the key {state.key!r:.300} of {state.full_type} is also that of a component of another type, version, "
        "parameters or inputs. Nothing was read or written: give the DataStore a key_generator that tells them apart, "
        "such as hash_state"
    )


# Parameters that components are found by


def parameter_digests(document: Any) -> set[str]:
    """Return a digest for each parameter in a document, by its name in parts and its value."""
    return {_digest(path, value) for path, value in _leaves(document, ())}


def filter_digests(parameters: Any) -> set[str]:
    """Return the digests of those parameters that are asked for."""
    return (
        parameter_digests(_document(parameters, "the parameters to find components by"))
        if parameters
        else set()
    )


def _leaves(document: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in document.items():
        if isinstance(value, dict) and value and MARKER not in value:
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _digest(path: tuple[str, ...], value: Any) -> str:
    return hashlib.sha256(canonical([*path, value]).encode()).hexdigest()
