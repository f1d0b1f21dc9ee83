"""The documentation is complete and leads somewhere; that its Python runs, Sybil shows."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

import entropic
from entropic import cli, demo, errors
from entropic.diagnosis import integrity
from entropic.functions.memoized import MemoizedFunction
from tests.test_layers import WINGS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.parent.name != "changes")
LINKED = [ROOT / "README.md", ROOT / "CHANGELOG.md", *PAGES]
COMMANDS = ["", "db", "db upgrade", "db current", "db check", "demo"]


def text_of(path):
    return path.read_text(encoding="utf-8")


def sections(page):
    """Return what stands under each second-level heading of a page."""
    parts = re.split(r"^## (.+)$", text_of(DOCS / page), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def anchors(path):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text_of(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(path):
    """Return the targets of a page's links, but for those that lead to the web."""
    prose = re.sub(r"^```.*?^```", "", text_of(path), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose)
    return [target for target in found if not target.startswith(("http://", "https://", "mailto:"))]


@pytest.mark.parametrize("name", entropic.__all__)
def test_public_name_is_in_the_documentation(name):
    assert any(re.search(rf"\b{name}\b", text_of(page)) for page in PAGES)


def modules_of_the_index():
    table = sections("index.md")["The public names"].partition("modules of its own")[2]
    return re.findall(r"^\| `(entropic\.\w+)` \|(.*?)\|", table, flags=re.MULTILINE)


def test_index_has_every_module_that_says_what_is_public():
    package = Path(entropic.__file__).parent
    found = {path.stem for path in package.glob("*.py")} | {
        path.parent.name for path in package.glob("*/__init__.py")
    }
    public = {name for name in found if vars(import_module(f"entropic.{name}")).get("__all__")}

    # `entropic` itself has the Store; the command line and the demo are programs, the last two are not for users.
    others = {"__init__", "store", "cli", "demo", "extras", "printable"}
    assert {name for name, _ in modules_of_the_index()} == {f"entropic.{name}" for name in public - others}


@pytest.mark.parametrize(("module", "row"), modules_of_the_index(), ids=lambda one: one[:30].strip())
def test_index_names_all_that_a_module_has_for_users(module, row):
    names = import_module(module).__all__

    if module != "entropic.errors":  # a page has these
        assert [name for name in names if f"`{name}`" not in row and not name.endswith("Error")] == []


@pytest.mark.parametrize(
    "cls", [entropic.Store, entropic.SweepResult, MemoizedFunction], ids=lambda cls: cls.__name__
)
def test_every_public_method_is_in_the_documentation(cls):
    everything = "\n".join(text_of(page) for page in PAGES)
    own = [name for name in vars(cls) if not name.startswith("_")]

    missing = [name for name in own if not re.search(rf"\b{name}\b", everything)]

    assert own
    assert missing == []


def test_error_page_has_a_heading_for_each_error():
    assert sorted(sections("reference/errors.md")) == sorted(errors.__all__)


@pytest.mark.parametrize("name", errors.__all__)
def test_error_section_says_when_what_to_do_and_which_builtins(name):
    section = sections("reference/errors.md")[name]
    builtins = [base.__name__ for base in getattr(errors, name).__bases__ if base.__module__ == "builtins"]

    assert "**When:**" in section
    assert "**What to do:**" in section
    if name != "EntropicError":
        assert [base for base in builtins if f"`{base}`" not in section] == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command or "entropic")
def test_command_line_page_shows_the_help_as_it_is(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("ENTROPIC_DB_URL", raising=False)

    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])

    section = sections("reference/cli.md")[f"entropic {command}".strip()]
    assert f"```\n{capsys.readouterr().out.strip()}\n```" in section


def test_command_line_page_has_no_other_commands():
    assert list(sections("reference/cli.md")) == [f"entropic {command}".strip() for command in COMMANDS]


def test_recovery_guide_explains_every_kind_of_finding():
    kinds = set(re.findall(r'\bFinding\(\s*"([a-z-]+)"', text_of(Path(integrity.__file__))))
    table = set(
        re.findall(r"^\| `([a-z-]+)` \|", text_of(DOCS / "guides" / "recovery.md"), flags=re.MULTILINE)
    )

    assert kinds
    assert table == kinds


@pytest.mark.parametrize("page", LINKED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_to_a_file_and_a_heading(page):
    broken = []
    for target in links(page):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)

    assert broken == []


def test_every_page_is_reached_from_the_index():
    reached, waiting = set(), [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md" and page.is_file():
            reached.add(page)
            waiting += [(page.parent / target.partition("#")[0]).resolve() for target in links(page)]

    assert set(PAGES) - reached == set()


def wings_of_the_page():
    section = sections("explanation/architecture.md")["The wings"]
    return re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)


def test_architecture_page_has_a_line_for_each_wing():
    package = Path(entropic.__file__).parent
    folders = [path.parent.name for path in package.glob("*/__init__.py")]
    modules = [path.stem for path in package.glob("*.py") if path.stem != "__init__"]

    assert sorted(wings_of_the_page()) == sorted(folders + modules)


def test_architecture_page_lists_the_wings_in_the_order_of_the_rule():
    table = wings_of_the_page()

    assert table == [wing for wing in " ".join(WINGS).split() if wing in table]


def test_readme_tells_how_many_runs_the_demo_has():
    assert f"a sweep of {len(demo.grid())} runs" in text_of(ROOT / "README.md")


def test_fragments_are_named_by_issue_and_type_and_are_short():
    fragments = sorted((DOCS / "changes").iterdir())

    pattern = re.compile(r"\d+\.(added|changed|deprecated|removed|fixed)\.md")
    assert fragments
    assert [path.name for path in fragments if not pattern.fullmatch(path.name)] == []
    assert [path.name for path in fragments if not 0 < len(text_of(path)) < 500] == []


@pytest.mark.slow
def test_env_py_of_the_schema_guide_migrates_the_users_tables_and_no_others(tmp_path):
    """Autogenerate sees a stranger's table and entropic's own, and proposes to drop neither."""
    guide = text_of(DOCS / "guides" / "schema.md")
    (env,) = re.findall(r"skip: next -->\n\n```python\n(.*?)```", guide, flags=re.DOTALL)
    url = f"sqlite:///{tmp_path / 'flows.sqlite3'}"
    (tmp_path / "models.py").write_text(
        "from entropic import Base, Mapped\n\n\n"
        "class Flow(Base):\n    __tablename__ = 'flows'\n    speed: Mapped[float]\n"
    )
    cli.main(["db", "upgrade", "--url", url])
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE strangers (id INTEGER)")
    before = set(inspect(engine).get_table_names())

    alembic(tmp_path, "init", "migrations")
    (tmp_path / "migrations" / "env.py").write_text(env)
    template = tmp_path / "migrations" / "script.py.mako"
    template.write_text(
        template.read_text().replace(
            "import sqlalchemy as sa", "import sqlalchemy as sa\nimport entropic.sql.columns"
        )
    )
    alembic(tmp_path, "-x", f"url={url}", "revision", "--autogenerate", "-m", "flows")
    alembic(tmp_path, "-x", f"url={url}", "upgrade", "head")

    (script,) = (tmp_path / "migrations" / "versions").glob("*.py")
    after = set(inspect(engine).get_table_names())
    engine.dispose()
    assert after - before == {"flows", "alembic_version"}
    assert before - after == set()
    assert "drop_table" not in script.read_text().partition("def downgrade")[0]


def alembic(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "", "PYTHONPATH": f"{folder}:{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
