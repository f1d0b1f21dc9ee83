"""Names that a Store may use for files, and names of files for any name."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from entropic.disk.names import check_name, decode_name, encode_name, safe_name, safe_suffix

# What file systems and their neighbours mind, more often than chance would have it.
awkward = st.sampled_from(
    [".", " ", "/", "%", "%2E", "\\", ":", "CON", "nul", "com1", "\0", "\n", "é", "e\u0301", "\ud800"]
)
names = st.lists(awkward | st.text(max_size=3), min_size=1, max_size=5).map("".join).filter(bool)
suffixes = st.sampled_from(["", ".yaml", ".value.h5"])
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a\0", ".entropic-root.json", "a ", "x" * 201, "é" * 101]
)
def test_safe_name_of_what_is_no_plain_path_component_raises(name):
    with pytest.raises(ValueError, match="cannot be a file's name"):
        safe_name(name)


@pytest.mark.parametrize("name", ["a", "x" * 200, "é" * 100, "a b", ".hidden", "a..b", "-"])
def test_safe_name_returns_a_plain_path_component(name):
    assert safe_name(name) == name


def test_safe_name_counts_the_suffix():
    with pytest.raises(ValueError, match="200 bytes"):
        safe_name("x" * 198, ".h5")


@given(names, suffixes)
@example("con.tar.gz", "")
@example(" .", "")
def test_any_name_becomes_one_that_every_file_system_takes_and_comes_back(name, suffix):
    file_name = encode_name(name, suffix)

    assert decode_name(file_name, suffix) == name
    assert file_name.isascii()
    assert file_name.isprintable()
    assert not set(file_name) & set('/\\<>:"|?*')
    assert not file_name.startswith(".")
    assert not file_name.endswith((".", " "))
    assert file_name.partition(".")[0].rstrip(" ").casefold() not in RESERVED
    assert len(file_name) <= 255


@given(names, names)
@example("é", unicodedata.normalize("NFD", "é"))
@example("a/b", "a%2Fb")
@example("Run", "run")
def test_names_that_differ_have_files_that_differ(one, other):
    assert (encode_name(one) == encode_name(other)) == (one == other)


@given(st.text(st.sampled_from("%.0123456789ABCDEFabcdef nulé/\ud800"), max_size=8))
def test_name_of_a_file_that_decodes_is_the_one_that_encodes(file_name):
    try:
        name = decode_name(file_name)
    except ValueError:
        return

    assert encode_name(name) == file_name


@pytest.mark.parametrize(
    "name", ["run 7", "Lennard-Jones_(12,6)", "a.b", "x" * 255, "console", "~!@#$^&'[]{}=+;`"]
)
def test_plain_name_stays_as_it_is(name):
    assert encode_name(name) == name


@pytest.mark.parametrize(
    "file_name", ["", ".hidden", "%2e", "%41", "a%", "%zz", "%FF", "a ", "é", "CON", "a:b", "x" * 256]
)
def test_name_of_a_file_of_somebody_else_is_refused(file_name):
    with pytest.raises(ValueError, match=r"no name that entropic gave|must not be empty|too long"):
        decode_name(file_name)


def test_file_of_another_suffix_is_refused():
    with pytest.raises(ValueError, match=r"no name that entropic gave to a file of \.yaml"):
        decode_name("a.yml", ".yaml")


@pytest.mark.parametrize(
    ("name", "suffix"), [("x" * 256, ""), ("x" * 251, ".yaml"), ("é" * 43, ""), ("%" * 86, "")]
)
def test_name_that_makes_too_long_a_file_name_is_refused_with_its_size(name, suffix):
    with pytest.raises(ValueError, match=r"a name of 25[68] bytes"):
        encode_name(name, suffix)


def test_empty_name_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        encode_name("", ".yaml")


@pytest.mark.parametrize(
    "name", [None, 3, "", "x" * 256, "a\0", "run\ud800", "\udc00", "/a", "a//b", ".", "a/.."]
)
def test_what_is_no_name_of_something_stored_is_refused(name):
    with pytest.raises(ValueError, match="a name"):
        check_name(name)


@pytest.mark.parametrize("suffix", ["", ".npy", ".tar.gz", ".H5", ".out.v-1"])
def test_suffix_that_is_one_is_taken(suffix):
    assert safe_suffix(suffix) == suffix


@pytest.mark.parametrize("suffix", ["npy", "a.b", "_out.npy", " .npy"])
def test_suffix_without_its_dot_is_refused_with_the_one_that_is_meant(suffix):
    with pytest.raises(ValueError, match=f"not {suffix!r}: write {'.' + suffix!r}"):
        safe_suffix(suffix)


@pytest.mark.parametrize("suffix", [".", "./x", ".a/b", ".a\\b", ".a\0", ".a ", "." + "x" * 250])
def test_suffix_that_no_file_can_have_is_refused(suffix):
    with pytest.raises(ValueError, match=r"suffix|file's name"):
        safe_suffix(suffix)


@pytest.mark.parametrize("suffix", [None, 5, b".npy", Path(".npy")])
def test_suffix_that_is_no_text_is_refused(suffix):
    with pytest.raises(TypeError, match="a file suffix is a text"):
        safe_suffix(suffix)
