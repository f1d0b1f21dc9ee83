"""The command line: ``entropic db upgrade | current | check`` for administrators, ``entropic demo`` for the curious.

What entropic or the database has to say about a mistake is printed as a sentence, with exit status 1. Ctrl-C, and a
reader that goes, as ``head`` does, are no mistakes: they end a command without a traceback, with the status of a shell.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from entropic import migrate
from entropic.errors import EntropicError
from entropic.printable import printable
from entropic.process.settings import find_settings
from entropic.sql import versions

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names (default: the process's arguments) and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = _parser(with_demo=arguments[:1] == ["demo"]).parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print(
            "\nentropic: interrupted. What had finished is kept; the same command goes on from there",
            file=sys.stderr,
        )
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # What is not written yet goes nowhere, or Python would complain of it as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except EntropicError as error:
        message = str(error)
    except DBAPIError as error:
        message = ": ".join([str(error.orig), *getattr(error, "__notes__", ())])
    except (SQLAlchemyError, ImportError, OSError, ValueError) as error:
        message = str(error)  # no such URL, driver, folder or option
    print(f"entropic: {printable(message)}", file=sys.stderr)
    return 1


def _run(options: argparse.Namespace) -> int:
    command: Callable[[argparse.Namespace], int] = options.command
    status = command(options)
    sys.stdout.flush()  # here, where a reader that has gone is caught
    return status


def _parser(*, with_demo: bool) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="entropic",
        description="A memoizing experiment cache: the administration of its database, and a demo.",
    )
    parser.add_argument("--version", action="version", version=f"entropic {versions.installed_version()}")
    commands = parser.add_subparsers(required=True, metavar="command")
    database = commands.add_parser("db", help="look after the library's own tables in a database")
    _add_database_commands(database.add_subparsers(required=True, metavar="command"))
    demo = commands.add_parser(
        "demo", help="fit a predator-prey model to a real record, by a sweep through a Store"
    )
    if with_demo:
        # The demo brings the Store with it; upgrading a database must not depend on one.
        from entropic.demo import add_arguments
        from entropic.demo import main as run_demo

        add_arguments(demo)
        demo.set_defaults(command=run_demo)
    return parser


def _add_database_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    for name, command, purpose in (
        ("upgrade", _upgrade, "bring the library's tables to the newest schema, or make them"),
        ("current", _current, "print the schema's revision"),
        ("check", _check, "exit with status 0 if the schema is the one that this version needs"),
    ):
        parser = commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        parser.add_argument(
            "--url",
            help="SQLAlchemy URL of the database (default: $ENTROPIC_DB_URL, or db_url in entropic.toml)",
        )
        parser.set_defaults(command=command, usage=parser)


def _url(options: argparse.Namespace) -> str:
    """Return the database that the command line, the environment or a file of options names."""
    if options.url:
        return str(options.url)
    if places := find_settings():
        from entropic.options import Options

        given = Options()  # which refuses an option that is none, as db_ur
        if any("db_url" in settings.values for settings in places):
            return given.db_url
    usage: argparse.ArgumentParser = options.usage
    usage.error(
        "the following arguments are required: --url, as in --url sqlite:///db.sqlite3; or set ENTROPIC_DB_URL, or put "
        "db_url into an entropic.toml"
    )


def _upgrade(options: argparse.Namespace) -> int:
    migrate.upgrade(_url(options))
    print(f"at {versions.HEAD}, up to date")
    return 0


def _current(options: argparse.Namespace) -> int:
    revision = migrate.current(_url(options))
    print("none" if revision is None else f"{revision} (head)" if revision == versions.HEAD else revision)
    return 0


def _check(options: argparse.Namespace) -> int:
    migrate.check(_url(options))
    print("up to date")
    return 0
