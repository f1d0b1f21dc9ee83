"""Options: which place counts, what is refused, and what a memoized function makes of them."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from entropic import SchemaError, memoize
from entropic.options import Options
from entropic.process.patience import LEASE_S
from entropic.process.settings import NAMES, find_settings
from tests.support.processes import ProcessesFailedError
from tests.support.users import ALICE, BOB, place_for_all


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home; the working directory is that of a project below it."""
    folder = tmp_path / "home"
    project = folder / "project"
    project.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.chdir(project)
    return folder


@pytest.fixture
def project(home):
    return home / "project"


def personal(home, text):
    path = home / ".config" / "entropic" / "entropic.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)


def test_options_are_those_that_settings_are_looked_for():
    assert tuple(Options.model_fields) == NAMES
    assert Options.model_fields["lease_s"].default == 120.0


def test_options_of_nobody_are_the_defaults_in_the_working_directory(project):
    assert find_settings() == []
    options = Options()
    assert options.type == "sql"
    assert options.db_url == f"sqlite:///{project}/db.sqlite3"
    assert (options.runs_base_dir, options.results_dir) == (project / "runs", project / "results")
    assert (options.lease_s, options.wait_timeout_s) == (LEASE_S, None)


def test_arguments_count_more_than_the_environment_and_that_more_than_files(home, project, monkeypatch):
    personal(home, "lease_s = 1\nwait_timeout_s = 11")
    assert (Options().lease_s, Options().wait_timeout_s) == (1, 11)
    (project / "entropic.toml").write_text('lease_s = 2\ntype = "files"')
    assert (Options().lease_s, Options().wait_timeout_s, Options().type) == (2, 11, "files")
    monkeypatch.setenv("ENTROPIC_LEASE_S", "3")
    assert (Options().lease_s, Options().type) == (3, "files")
    assert (Options(lease_s=4).lease_s, Options(type="sql").type) == (4, "sql")


@pytest.mark.parametrize(
    ("name", "text"),
    [("entropic.toml", "{}"), ("pyproject.toml", "[project]\nname = 'x'\n[tool.entropic]\n{}")],
)
def test_file_is_found_in_the_folders_above_up_to_the_project(project, monkeypatch, name, text):
    (project / name).write_text(
        text.format("runs_base_dir = 'kept'\nresults_dir = '/abs'\ndb_url = 'sqlite:///a/b.db'")
    )
    (project / "deep" / "down").mkdir(parents=True)
    monkeypatch.chdir(project / "deep" / "down")

    options = Options()

    assert options.runs_base_dir == project / "kept"
    assert options.results_dir == Path("/abs")
    assert options.db_url == f"sqlite:///{project}/a/b.db"


@pytest.mark.parametrize("border", [".git", "pyproject.toml"])
def test_file_above_the_project_is_another_projects(home, project, border):
    (home / "entropic.toml").write_text("lease_s = 7")
    assert Options().lease_s == 7
    (project / border).touch()
    assert Options().lease_s == LEASE_S


SCRIPT = (
    "from entropic.options import Options\noptions = Options()\nprint(options.lease_s, options.runs_base_dir)"
)


def test_file_beside_the_script_counts_before_that_of_the_working_directory(project, tmp_path):
    beside = tmp_path / "scripts"
    beside.mkdir()
    (beside / "train.py").write_text(SCRIPT)
    (project / "entropic.toml").write_text("lease_s = 1")

    def run():
        return subprocess.run(
            [sys.executable, beside / "train.py"], capture_output=True, text=True, check=True
        ).stdout.split()

    assert run() == ["1.0", f"{project}/runs"]
    (beside / "entropic.toml").write_text("lease_s = 2\nruns_base_dir = 'r'")
    assert run() == ["2.0", f"{beside}/r"]


def test_file_that_the_environment_names_is_the_projects(project, tmp_path, monkeypatch):
    (project / "entropic.toml").write_text("lease_s = 1")
    other = tmp_path / "other.toml"
    other.write_text("lease_s = 9")
    monkeypatch.setenv("ENTROPIC_OPTIONS_FILE", str(other))
    assert Options().lease_s == 9
    other.unlink()
    with pytest.raises(FileNotFoundError, match=r"ENTROPIC_OPTIONS_FILE names '.*other\.toml'"):
        Options()


@pytest.mark.parametrize(
    ("name", "text"), [("entropic.toml", "lease_s = 1"), ("pyproject.toml", "[tool.entropic]\nlease_s = 1")]
)
def test_file_that_another_left_where_all_may_write_is_refused_and_named(project, monkeypatch, name, text):
    own = project / "mine"
    own.mkdir()
    monkeypatch.chdir(own)
    (project / name).write_text(text)
    project.chmod(0o1777)
    assert Options().lease_s == 1

    os.chown(project / name, ALICE.uid, ALICE.uid)
    for read in (Options, find_settings):
        with pytest.raises(ValueError, match=rf"{project / name}.*uid {ALICE.uid}.*ENTROPIC_OPTIONS_FILE"):
            read()

    project.chmod(0o775)
    assert Options().lease_s == 1
    project.chmod(0o1777)
    monkeypatch.setenv("ENTROPIC_OPTIONS_FILE", str(project / name))
    assert Options().lease_s == 1
    monkeypatch.delenv("ENTROPIC_OPTIONS_FILE")
    (own / "entropic.toml").write_text("lease_s = 2")
    assert Options().lease_s == 2


def settings_in(folder):
    os.chdir(folder)
    return find_settings()


def test_what_may_not_be_looked_at_is_passed_over(monkeypatch):
    with place_for_all() as base:
        monkeypatch.setenv("HOME", str(base / "closed"))
        (base / "closed").mkdir(mode=0o700)
        (base / "open").mkdir()
        (base / "open").chmod(0o1777)
        (base / "open" / "pyproject.toml").write_text("[tool.entropic]\nlease_s = 1")
        (base / "open" / "pyproject.toml").chmod(0o600)
        os.chown(base / "open" / "pyproject.toml", ALICE.uid, ALICE.uid)
        monkeypatch.chdir(base / "closed")

        assert BOB.does(find_settings) == []
        assert BOB.does(settings_in, base / "open") == []


def test_file_that_may_not_be_read_is_told():
    with place_for_all() as base:
        (base / "entropic.toml").write_text("lease_s = 1")
        (base / "entropic.toml").chmod(0o600)

        with pytest.raises(ProcessesFailedError, match=r"ValueError.*entropic.toml.*Permission denied"):
            BOB.does(settings_in, base)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lease = 3", r"entropic\.toml: there is no option 'lease'; did you mean 'lease_s'\?"),
        ("type = 'mongo'", r"the option type \(.*entropic\.toml\): Input should be 'sql' or 'files'"),
        ("lease_s = -1", r"the option lease_s \(.*entropic\.toml\): .* greater than 0"),
        ("lease_s = ", r"the options in '.*entropic\.toml' cannot be read: "),
        ("a = '\udcff'", r"the options in '.*entropic\.toml' cannot be read: "),
    ],
)
def test_wrong_option_is_told_with_its_place(project, text, told):
    (project / "entropic.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=told):
        Options()


def test_wrong_argument_and_variable_are_told(project, monkeypatch):
    with pytest.raises(ValueError, match=r"an argument: there is no option 'db_ur'; did you mean 'db_url'\?"):
        Options(db_ur="x")
    monkeypatch.setenv("ENTROPIC_TYPE", "mongo")
    with pytest.raises(ValueError, match=r"the option type \(ENTROPIC_TYPE\)"):
        Options()
    monkeypatch.setenv("ENTROPIC_SOMETHING_ELSE", "1")  # is not read
    assert Options(type="files").type == "files"


def test_empty_file_is_no_options(project):
    (project / "entropic.toml").touch()
    (project / "pyproject.toml").write_text("[tool.entropic]\n")
    assert Options().lease_s == LEASE_S


def test_own_file_says_nothing_of_places(home):
    personal(home, "lease_s = 5\ndb_url = 'sqlite:///mine.db'")
    with pytest.raises(ValueError, match=r"sets db_url: where results are is a matter of each project"):
        Options()


def settings_at(home):
    os.environ["HOME"] = str(home)
    os.environ.pop("XDG_CONFIG_HOME", None)
    os.chdir("/")
    return find_settings()


def test_home_that_may_not_be_looked_into_has_no_options():
    """As under ``sudo``, or ``su`` without a dash: HOME is another user's."""
    with place_for_all() as folder:
        home = folder / "home"
        personal(home, "lease_s = 5")
        home.chmod(0o700)

        assert ALICE.does(settings_at, home) == []


def test_home_that_nobody_knows_has_no_options(project, monkeypatch):
    """As in a container whose user has no name."""

    def getpwuid(uid):
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", getpwuid)

    assert find_settings() == []


def test_password_is_not_in_the_text_of_options():
    options = Options(db_url="postgresql://me:secret@host/db")
    assert "secret" not in repr(options)
    assert "secret" not in str(options)


# Memoized functions


def power(n: int, exponent: int = 2) -> int:
    return n**exponent


def test_memoized_function_keeps_its_results_where_the_options_say(project, monkeypatch):
    (project / "entropic.toml").write_text(
        "db_url = 'sqlite:///o/mine.db'\nresults_dir = 'o/results'\nlease_s = 33"
    )
    (project / "o").mkdir()

    kept = memoize(power)

    assert kept(3) == 9
    assert (project / "o" / "mine.db").is_file()
    assert kept.results_dir.parent == project / "o" / "results"
    assert kept.store._table.claims.lease_s == 33
    assert not (project / "db.sqlite3").exists()
    own = memoize(results_dir=project / "own", db_url=f"sqlite:///{project}/own.db", lease_s=5)(power)
    assert own(3) == 9
    assert own.results_dir.parent == project / "own"
    assert own.store._table.claims.lease_s == 5


def test_options_are_read_once_at_the_decoration(project, monkeypatch):
    kept = memoize(power)
    (project / "entropic.toml").write_text("db_url = 'sqlite:///other.db'")
    assert kept(2) == 4
    assert (project / "db.sqlite3").is_file()
    assert not (project / "other.db").exists()


def test_results_of_before_the_options_are_not_lost_sight_of(project):
    assert memoize(power)(2) == 4
    (project / "entropic.toml").write_text("db_url = 'sqlite:///other.db'\nresults_dir = 'other'")
    moved = memoize(power)

    with pytest.raises(
        SchemaError, match=r"other\.db'?, which has none of 'power'; but there are some in .*/db\.sqlite3"
    ):
        moved(2)

    assert not (project / "other").exists()
    assert memoize(results_dir="results", db_url="sqlite:///db.sqlite3")(power).retrieve(2) == 4
    (project / "db.sqlite3").rename(project / "away.sqlite3")
    assert moved(2) == 4


def test_function_without_options_imports_no_pydantic(project):
    code = (
        "import sys\nfrom entropic import memoize\n@memoize\ndef f(n: int) -> int:\n    return n\n"
        "assert f(1) == 1\nprint('pydantic' in sys.modules)"
    )
    (project / "script.py").write_text(code)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
