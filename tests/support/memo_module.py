"""A module that memoizes a function, as a user's does; nothing is opened by importing it."""

from entropic import memoize


@memoize(results_dir="/nonexistent/results", db_url="sqlite:////nonexistent/db.sqlite3")
def area(side: float) -> float:
    return side**2
