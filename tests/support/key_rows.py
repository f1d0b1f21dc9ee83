"""The rows of `tests.support.key_pairs`: column, one value, another, what they must be, why.

An error is raised by the second value of a row; the first is one that the column takes.
"""

from __future__ import annotations

from typing import Any

S, D, E, U = "same", "different", "ParameterError", "UnhashableParamError"
OUT = "—"

ON_MYSQL = {"mysql": E}  # MariaDB too

FLOATS = [
    ("1.0", "1", S, "an int for a float column is a float"),
    *(
        ("1.0", f"np.{name}(1)", S, "a NumPy scalar is its Python value")
        for name in [
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float16",
            "float32",
            "float64",
            "intp",
            "ulonglong",
        ]
    ),
    ("1.0", "np.array(1.0)", S, "an array of no dimensions is its scalar"),
    ("1.0", "np.array([1.0])", E, "an array of one element is no number"),
    ("1.0", "np.longdouble(1)", E, "it may hold more digits than a double"),
    ("1.0", "np.complex128(1)", E, "a complex number is no float"),
    ("1.0", "1 + 0j", E, "a complex number is no float"),
    ("1.0", "np.bool_(True)", E, "a bool for a number is a mistake"),
    ("1.0", "True", E, "a bool for a number is a mistake"),
    ("1.0", "'1.0'", E, "a string for a number is a mistake"),
    ("1.0", "None", E, "the column is not nullable"),
    ("1.0", "np.timedelta64(1, 's')", E, "a time has a unit"),
    ("1.0", "Level.LOW", E, "an Enum is no number, even if it is an int"),
    ("1.0", "Quantity(1.0, 'm')", E, "its unit would be lost"),
    ("1.0", "pd.NA", E, "a missing value is None"),
    ("1.0", "pd.Series([1.0])", E, "a Series is no number"),
    ("1.0", "[1.0]", E, "a list is no number"),
    ("1.0", "10**400", E, "it is larger than any double"),
    ("1.0", "float('nan')", E, "NaN is equal to nothing"),
    ("1.0", "Decimal('NaN')", E, "NaN is equal to nothing"),
    ("1.0", "np.float32('nan')", E, "NaN is equal to nothing"),
    ("5.0", "Metres(5)", S, "a subclass is its number, and the runner is given that"),
    ("0.5", "np.float16(0.5)", S, "half precision holds it exactly"),
    ("0.1", "np.float64(0.1)", S, "the same double"),
    ("0.1", "np.float32(0.1)", D, "single precision's 0.1 is 0.10000000149"),
    ("0.1", "np.float16(0.1)", D, "half precision's 0.1 is 0.09997558594"),
    ("0.1", "Decimal('0.1')", S, "the nearest double"),
    ("1 / 3", "Fraction(1, 3)", S, "the nearest double"),
    ("0.3", "0.1 + 0.2", S, "they differ beyond 12 decimals only"),
    ("0.3", "0.1 * 3", S, "they differ beyond 12 decimals only"),
    ("1.0", "sum([0.1] * 10)", S, "they differ beyond 12 decimals only"),
    ("1.0", "np.nextafter(1, 2)", S, "they differ beyond 12 decimals only"),
    ("1.0", "1.0 + 1e-13", S, "they differ beyond 12 decimals only"),
    ("1.0", "1.0 + 1e-11", D, "they differ in the 11th decimal"),
    ("0.0", "-0.0", S, "a float column has one zero"),
    ("0.0", "0", S, "an int for a float column is a float"),
    ("0.0", "np.float32(-0.0)", S, "a float column has one zero"),
    ("1.5", "-1.5", D, "the sign counts"),
    ("1e-13", "2e-13", D, "12 decimals would make both 0, so 12 significant digits count"),
    ("1e-13", "0.0", D, "12 decimals would make it 0, so 12 significant digits count"),
    ("1e-13", "-1e-13", D, "the sign counts"),
    ("1e-13", "1.0000000000001e-13", S, "they agree in 12 significant digits"),
    ("1e-5", "1e-5 + 1e-15", S, "they agree to 1e-9 of themselves, and in 12 decimals"),
    ("1e-5", "1.0000001e-5", D, "they differ in the 12th decimal"),
    ("3e-10", "3.0000000001e-10", S, "they agree to 1e-9 of themselves, and in 12 decimals"),
    ("3e-10", "3.00000001e-10", D, "12 decimals would move it by more than 1e-9 of itself"),
    ("5e-13", "5.1e-13", D, "12 decimals would make it 0 or 1e-12"),
    ("1e-12", "1.4e-12", D, "12 decimals would make both 1e-12"),
    ("5e-324", "0.0", D, "the smallest double is not nothing"),
    ("5e-324", "1e-323", D, "denormal numbers count"),
    ("sys.float_info.min", "sys.float_info.min * 2", D, "tiny numbers count"),
    ("sys.float_info.max", "sys.float_info.max * (1 - 1e-15)", D, "no digit of a large number is rounded"),
    ("1e16", "1e16 + 2", D, "no digit of a large number is rounded"),
    ("1e22", "10**22", S, "the same double"),
    ("2.0**53", "2**53 + 1", S, "a double holds no more: the runner is given 2.0**53"),
    ("1e308", "float('inf')", D, "an infinity is a value, where the database has one", ON_MYSQL),
    ("299792458.0", "299792458", S, "the speed of light, as an int"),
    ("299792458.0", "2.99792458e8", S, "the same double"),
    ("6.02214076e23", "6.02214076e23 * (1 + 1e-15)", D, "no digit of a large number is rounded"),
    ("np.pi", "22 / 7", D, "they differ in the 3rd decimal"),
]

OPTIONAL_FLOATS = [
    ("None", OUT, S, "the default of a nullable column is None"),
    ("None", "0.0", D, "nothing is not zero"),
    ("0.0", OUT, D, "left out is None"),
    ("None", "float('nan')", E, "a missing value is None"),
    ("None", "pd.NaT", E, "a missing value is None"),
]

DEFAULT_FLOATS = [
    ("0.3", OUT, S, "the default"),
    (OUT, "0.1 + 0.2", S, "it has the default's form"),
    (OUT, "np.float64(0.3)", S, "it is the default once typed"),
    (OUT, "Decimal('0.3')", S, "it is the default once typed"),
    (OUT, "Fraction(3, 10)", S, "it is the default once typed"),
    (OUT, "np.float32(0.3)", D, "single precision's 0.3 is 0.30000001192"),
    (OUT, "0.31", D, "it is not the default"),
    (OUT, "0", D, "it is not the default"),
    (OUT, "None", E, "the column is not nullable"),
    ("0.1 + 0.2", "0.3", S, "both are the default"),
]

DEFAULT_OPTIONAL_FLOATS = [
    ("0.5", OUT, S, "the default"),
    (OUT, "None", D, "None is a value here, and not the default"),
    ("0.0", "None", D, "nothing is not zero"),
]

INTS = [
    *(
        ("1", f"np.{name}(1)", S, "a NumPy scalar is its Python value")
        for name in [
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float32",
            "float64",
        ]
    ),
    ("1", "1.0", S, "an integral float for an int column is an int"),
    ("1", "Decimal('1')", S, "an integral number is an int"),
    ("5", "Fraction(10, 2)", S, "an integral number is an int"),
    ("5", "np.array(5)", S, "an array of no dimensions is its scalar"),
    ("0", "-0.0", S, "an integral float is an int"),
    ("1", "1.5", E, "a fraction would be lost"),
    ("1", "1.0000000000000002", E, "a fraction would be lost"),
    ("1", "True", E, "a bool for a number is a mistake"),
    ("1", "np.True_", E, "a bool for a number is a mistake"),
    ("1", "'1'", E, "a string for a number is a mistake"),
    ("1", "Level.LOW", E, "an Enum is no number, even if it is an int"),
    ("1", "None", E, "the column is not nullable"),
    ("1", "float('nan')", E, "NaN is no integer"),
    ("1", "float('inf')", E, "an infinity is no integer"),
    ("1", "1e300", E, "it does not fit 64 bits"),
    ("1", "10**400", E, "it does not fit 64 bits"),
    ("1", "-1", D, "the sign counts"),
    ("255", "np.uint8(255)", S, "a NumPy scalar is its Python value"),
    ("255", "np.int8(-1)", D, "the same byte, another number"),
    ("2**53", "2**53 + 1", D, "an int is exact, beyond what a double holds"),
    ("2**53", "2.0**53", S, "an integral float is an int"),
    ("2**53 + 1", "2.0**53", D, "an int is exact, beyond what a double holds"),
    ("2**63 - 1", "2**63 - 2", D, "the largest ints"),
    ("-(2**63)", "1 - 2**63", D, "the smallest ints"),
    ("2**63 - 1", "2**63", E, "it does not fit 64 bits"),
    ("-(2**63)", "-(2**63) - 1", E, "it does not fit 64 bits"),
    ("1", "np.uint64(2**64 - 1)", E, "it does not fit 64 bits"),
    ("2**31", "-(2**31)", D, "an int column has 64 bits on every database"),
]

OPTIONAL_INTS = [
    ("None", OUT, S, "the default of a nullable column is None"),
    ("None", "0", D, "nothing is not zero"),
    ("None", "-1", D, "nothing is not a number"),
]

DEFAULT_INTS = [
    ("5", OUT, S, "the default"),
    (OUT, "np.int64(5)", S, "it is the default once typed"),
    (OUT, "5.0", S, "it is the default once typed"),
    (OUT, "6", D, "it is not the default"),
    (OUT, "0", D, "zero is a value"),
    (OUT, "None", E, "the column is not nullable"),
]

BOOLS = [
    ("True", "np.True_", S, "a NumPy scalar is its Python value"),
    ("True", "1", S, "1 for a bool column is True"),
    ("False", "0", S, "0 for a bool column is False"),
    ("True", "np.int8(1)", S, "1 for a bool column is True"),
    ("True", "False", D, "they differ"),
    ("True", "2", E, "it is neither True nor False"),
    ("True", "1.0", E, "a float for a bool is a mistake"),
    ("True", "'True'", E, "a string for a bool is a mistake"),
    ("True", "Level.LOW", E, "an Enum is no bool"),
    ("False", "None", E, "the column is not nullable"),
]

DEFAULT_BOOLS = [
    ("False", OUT, S, "the default"),
    (OUT, "0", S, "it is the default once typed"),
    (OUT, "np.False_", S, "it is the default once typed"),
    (OUT, "True", D, "it is not the default"),
]

STRINGS = [
    ("'ab'", "np.str_('ab')", S, "a NumPy scalar is its Python value"),
    ("'ab'", "Tag('ab')", S, "a subclass is its text"),
    ("'red'", "Colour.RED", S, "an Enum for a string column is its value"),
    ("Flag.RED", "Colour.RED", S, "both are stored, and given to the runner, as 'red'"),
    ("'red'", "Shade.RED", S, "an Enum for a string column is its value"),
    ("'a/b'", "PurePosixPath('a/b')", S, "a path for a string column is its text"),
    ("'a/b'", "PurePosixPath('a/./b/')", S, "pathlib drops what does not count"),
    ("'a/b'", "'a/./b'", D, "a string is compared as it stands"),
    ("'ab'", "'Ab'", D, "case counts on every database"),
    ("'ab'", "'ab '", D, "trailing spaces count on every database"),
    ("'ab'", "' ab'", D, "leading spaces count"),
    ("''", "' '", D, "spaces count"),
    ("'ab'", "'ab\\t'", D, "white space counts"),
    ("'a\\n'", "'a\\r\\n'", D, "line ends count"),
    ("'\\u00e9'", "'e\\u0301'", D, "strings are not normalised: é composed, é decomposed"),
    ("'e'", "'\\u00e9'", D, "accents count on every database"),
    ("'ss'", "'ß'", D, "no folding"),
    ("'a'", "'\\u0430'", D, "Latin and Cyrillic a"),
    ("'A'", "'\\uff21'", D, "A, and A of full width"),
    ("'ab'", "'a\\u200bb'", D, "a space of no width counts"),
    ("'\\U0001f98a'", "'\\U0001f43a'", D, "characters beyond 16 bits"),
    ("'I'", "'\\u0131'", D, "I, and the Turkish dotless one"),
    ("'5'", "'5.0'", D, "a string is no number"),
    ("'true'", "'True'", D, "a string is no bool"),
    ("'a%'", "'ab'", D, "no pattern of LIKE"),
    ("'a_'", "'ab'", D, "no pattern of LIKE"),
    ('"it\'s"', "'it\"s'", D, "quotes count"),
    ("'a\\\\b'", "'a\\\\\\\\b'", D, "backslashes count"),
    ("'x' * 254 + 'a'", "'x' * 254 + 'b'", D, "the last of 255 characters counts"),
    ("'é' * 254 + 'a'", "'é' * 254 + 'b'", D, "characters are counted, not bytes"),
    (
        "'x' * 255",
        "'x' * 5000",
        D,
        "a string is never cut",
        ON_MYSQL,
    ),
    ("'a'", "'a\\0'", E, "PostgreSQL has no NUL"),
    ("'a'", "'\\ud800'", E, "half a character is no Unicode"),
    ("'1'", "1", E, "a number for a string is a mistake"),
    ("'1.0'", "1.0", E, "a number for a string is a mistake"),
    ("'True'", "True", E, "a bool for a string is a mistake"),
    ("'a'", "b'a'", E, "bytes are no text"),
    ("'None'", "None", E, "the column is not nullable"),
    ("'1'", "Level.LOW", E, "the Enum's value is a number"),
    ("'5 m'", "Quantity(5, 'm')", E, "an object's text must be asked for"),
    ("'a'", "['a']", E, "a list is no text"),
]

OPTIONAL_STRINGS = [
    ("None", OUT, S, "the default of a nullable column is None"),
    ("None", "''", D, "nothing is not the empty string"),
    ("None", "'None'", D, "nothing is not its name"),
    ("None", "'null'", D, "nothing is not its name"),
]

DEFAULT_STRINGS = [
    ("'rk4'", OUT, S, "the default"),
    (OUT, "Scheme.FAST", S, "it is the default once typed"),
    (OUT, "np.str_('rk4')", S, "it is the default once typed"),
    (OUT, "'RK4'", D, "case counts"),
    (OUT, "'rk4 '", D, "trailing spaces count"),
    (OUT, "''", D, "the empty string is a value"),
]

NOON = "datetime(2026, 1, 2, 12)"

DATETIMES = [
    (NOON, "datetime(2026, 1, 2, 12, tzinfo=UTC)", S, "a naive time is UTC"),
    (NOON, "datetime(2026, 1, 2, 14, tzinfo=timezone(timedelta(hours=2)))", S, "one instant"),
    (NOON, "datetime(2026, 1, 2, 13, tzinfo=ZoneInfo('Europe/Berlin'))", S, "one instant"),
    (NOON, "datetime(2026, 1, 2, 12, tzinfo=ZoneInfo('Europe/Berlin'))", D, "another instant"),
    (
        "datetime(2026, 7, 2, 12)",
        "datetime(2026, 7, 2, 14, tzinfo=ZoneInfo('Europe/Berlin'))",
        S,
        "summer time",
    ),
    (
        "datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo('Europe/Berlin'))",
        "datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo('Europe/Berlin'))",
        D,
        "the hour that comes twice",
    ),
    (NOON, "datetime(2026, 1, 2, 12, fold=1)", S, "a fold means nothing in UTC"),
    (NOON, "datetime(2026, 1, 2, 12, 0, 0, 1)", D, "microseconds count on every database"),
    ("datetime(1900, 1, 1)", "datetime(1900, 1, 1, 0, 0, 0, 1)", D, "microseconds count before 1970"),
    (NOON, "np.datetime64('2026-01-02T12:00:00')", S, "a NumPy scalar is its Python value"),
    (NOON, "np.datetime64('2026-01-02T12:00:00.000000000')", S, "no nanoseconds are lost"),
    (NOON, "np.datetime64('2026-01-02T12:00:00.000000001')", E, "nanoseconds would be lost"),
    (NOON, "np.datetime64('NaT')", E, "a missing value is None"),
    (NOON, "pd.Timestamp('2026-01-02 12:00')", S, "a pandas time is its Python value"),
    (NOON, "pd.Timestamp('2026-01-02 13:00', tz='Europe/Berlin')", S, "one instant"),
    (NOON, "pd.Timestamp('2026-01-02 12:00:00.000000001')", E, "nanoseconds would be lost"),
    (NOON, "pd.NaT", E, "a missing value is None"),
    (NOON, "date(2026, 1, 2)", E, "a date is no time"),
    (NOON, "'2026-01-02 12:00:00'", E, "text is no time"),
    (NOON, "1767355200.0", E, "a number is no time"),
    (NOON, "None", E, "the column is not nullable"),
    (NOON, "datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2)))", E, "in UTC it is before the year 1"),
]

DEFAULT_DATETIMES = [
    ("datetime(2026, 1, 2)", OUT, S, "the default"),
    (OUT, "datetime(2026, 1, 2, 1, tzinfo=timezone(timedelta(hours=1)))", S, "the default's instant"),
    (OUT, "datetime(2026, 1, 2, 0, 0, 0, 1)", D, "it is not the default"),
]

DATES = [
    ("date(2026, 1, 2)", "date(2026, 2, 1)", D, "day and month"),
    ("date(2026, 1, 2)", "datetime(2026, 1, 2)", E, "the time of day would be lost"),
    ("date(2026, 1, 2)", "pd.Timestamp('2026-01-02')", E, "the time of day would be lost"),
    ("date(2026, 1, 2)", "'2026-01-02'", E, "text is no date"),
    ("date(2026, 1, 2)", "None", E, "the column is not nullable"),
]

DEFAULT_DATES = [
    ("date(2026, 1, 2)", OUT, S, "the default"),
    (OUT, "date(2026, 1, 3)", D, "it is not the default"),
]

TIMES = [
    ("time(1, 2, 3)", "time(1, 2, 3, 1)", D, "microseconds count on every database"),
    ("time(0)", "time(12)", D, "noon is not midnight"),
    ("time(1, 2, 3)", "time(1, 2, 3, tzinfo=UTC)", E, "the zone would be lost"),
    ("time(1, 2, 3)", "datetime(2026, 1, 2, 1, 2, 3)", E, "the day would be lost"),
]

TIMEDELTAS = [
    ("timedelta(hours=24)", "timedelta(days=1)", S, "one duration"),
    (
        "timedelta(seconds=1)",
        "timedelta(seconds=1, microseconds=1)",
        D,
        "microseconds count on every database",
    ),
    ("timedelta(seconds=1)", "timedelta(seconds=-1)", D, "the sign counts"),
    ("timedelta(days=400)", "timedelta(days=401)", D, "longer than a year"),
    ("timedelta(seconds=1)", "pd.Timedelta('1s')", S, "a pandas duration is its Python value"),
    ("timedelta(seconds=1)", "np.timedelta64(1, 's')", S, "a NumPy scalar is its Python value"),
    ("timedelta(0)", "pd.Timedelta(1, 'ns')", E, "nanoseconds would be lost"),
    ("timedelta(seconds=1)", "1.0", E, "a number has no unit"),
]

DECIMALS = [
    ("Decimal('1.5')", "Decimal('1.50')", S, "one number: the column has 12 decimals"),
    ("Decimal('1.5')", "1.5", S, "a float is what it shows"),
    ("Decimal('0.1')", "0.1", S, "a float is what it shows"),
    ("Decimal('0.3')", "0.1 + 0.2", S, "the column has 12 decimals"),
    ("Decimal('1')", "1", S, "an int is a number"),
    ("Decimal('1')", "np.int64(1)", S, "a NumPy scalar is its Python value"),
    ("Decimal('0.1')", "np.float64(0.1)", S, "a NumPy scalar is its Python value"),
    ("Decimal('0')", "Decimal('-0')", S, "a column of numbers has one zero"),
    ("Decimal('100')", "Decimal('1E+2')", S, "one number"),
    ("Decimal('1E-12')", "Decimal('2E-12')", D, "the column has 12 decimals"),
    ("Decimal('0')", "Decimal('1E-13')", S, "the column has 12 decimals: the runner is given 0"),
    (
        "Decimal('123456789012345678.123456789012')",
        "Decimal('123456789012345678.123456789013')",
        D,
        "exact, beyond what a double holds",
    ),
    ("Decimal('1')", "Decimal('1E+18')", E, "the column has 30 digits"),
    ("Decimal('1')", "Decimal('NaN')", E, "NaN is equal to nothing"),
    ("Decimal('1')", "Decimal('Infinity')", E, "a column of numbers has no infinity"),
    ("Decimal('1.5')", "'1.5'", E, "a string for a number is a mistake"),
    ("Decimal('1')", "True", E, "a bool for a number is a mistake"),
]

DEFAULT_DECIMALS = [
    ("Decimal('0.3')", OUT, S, "the default"),
    (OUT, "Decimal('0.300')", S, "it is the default once typed"),
    (OUT, "0.1 + 0.2", S, "it is the default once typed"),
    (OUT, "Decimal('0.31')", D, "it is not the default"),
]

ENUMS = [
    ("Colour.RED", "Colour.BLUE", D, "two members"),
    ("Colour.RED", "Colour.ROUGE", S, "two names of one member"),
    ("Colour.RED", "'RED'", S, "a member's name, as SQLAlchemy stores it"),
    ("Colour.RED", "'red'", E, "a member's value is not what the column holds"),
    ("Colour.RED", "'GREEN'", E, "no member"),
    ("Colour.RED", "Flag.RED", E, "a member of another class"),
    ("Colour.RED", "Shade.RED", E, "a member of another class"),
    ("Colour.RED", "1", E, "no member"),
    ("Colour.RED", "None", E, "the column is not nullable"),
]

DEFAULT_ENUMS = [
    ("Colour.RED", OUT, S, "the default"),
    (OUT, "Colour.BLUE", D, "it is not the default"),
]

UUIDS = [
    ("uuid.UUID(int=1)", "uuid.UUID(int=2)", D, "they differ"),
    (
        "uuid.UUID('abcdef00000000000000000000000000')",
        "uuid.UUID('{ABCDEF00-0000-0000-0000-000000000000}')",
        S,
        "one",
    ),
    ("uuid.UUID(int=1)", "str(uuid.UUID(int=1))", E, "text is no UUID"),
    ("uuid.UUID(int=1)", "1", E, "a number is no UUID"),
]

BYTES = [
    ("b'a'", "b'A'", D, "bytes are compared as they stand"),
    ("b'a'", "b'a '", D, "bytes are compared as they stand"),
    ("b'a'", "b'a\\0'", D, "zero bytes count"),
    ("b''", "b'\\0'", D, "zero bytes count"),
    ("b'\\xff'", "b'\\xfe'", D, "bytes need be no text"),
    ("b'a'", "np.bytes_(b'a')", S, "a NumPy scalar is its Python value"),
    ("bytes(100_000)", "bytes(99_999) + b'a'", D, "the last of 100 000 bytes counts"),
    ("b'a'", "'a'", E, "text is no bytes"),
    ("b'a'", "[97]", E, "a list is no bytes"),
]

DICTS = [
    ("{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}", S, "the order of keys does not count"),
    ("{'a': {'b': 1, 'c': 2}}", "{'a': {'c': 2, 'b': 1}}", S, "at any depth"),
    ("{'a': 1}", "collections.OrderedDict(a=1)", S, "a subclass of dict is a dict"),
    ("{'a': 1}", "collections.defaultdict(int, a=1)", S, "a subclass of dict is a dict"),
    ("{'a': 1}", "{'a': 1, 'b': None}", D, "JSON has no defaults: None is a value"),
    ("{}", "{'a': {}}", D, "an empty dict is a value"),
    ("{'a': 1}", "{'a': 1.0}", D, "JSON has no types: an int is no float"),
    ("{'a': 1}", "{'a': True}", D, "a bool is no number"),
    ("{'a': 1}", "{'a': '1'}", D, "a string is no number"),
    ("{'a': 0}", "{'a': None}", D, "nothing is not zero"),
    ("{'a': 1}", "{'a': np.int64(1)}", S, "a NumPy scalar is its Python value"),
    ("{'a': 0.5}", "{'a': np.float32(0.5)}", S, "a NumPy scalar is its Python value"),
    ("{'a': True}", "{'a': np.True_}", S, "a NumPy scalar is its Python value"),
    ("{'a': 'b'}", "{'a': np.str_('b')}", S, "a NumPy scalar is its Python value"),
    ("{'1': 'a'}", "{1: 'a'}", S, "JSON's keys are text"),
    ("{'true': 1}", "{True: 1}", S, "JSON's keys are text"),
    ("{'1': 'a'}", "{1: 'a', '1': 'b'}", U, "two keys with one text"),
    ("{'1': 'a'}", "{(1, 2): 'a'}", U, "JSON's keys are text, numbers and bools"),
    ("{'a': 1}", "{'A': 1}", D, "case counts"),
    ("{'a': 1}", "{'a ': 1}", D, "spaces count"),
    ("{'\\u00e9': 1}", "{'e\\u0301': 1}", D, "strings are not normalised"),
    ("{'a': 0.3}", "{'a': 0.1 + 0.2}", S, "they differ beyond 12 decimals only"),
    ("{'a': 1e-13}", "{'a': 2e-13}", D, "12 significant digits count"),
    ("{'a': 1e-13}", "{'a': 0.0}", D, "12 significant digits count"),
    ("{'a': 0.0}", "{'a': -0.0}", D, "JSON has two zeros"),
    ("{'a': None}", "{'a': float('nan')}", E, "JSON has no NaN"),
    ("{'a': None}", "{'a': [1, {'b': float('inf')}]}", E, "JSON has no infinity"),
    ("{'a': 2**53}", "{'a': 2**53 + 1}", D, "an int is exact, beyond what a double holds"),
    ("{'a': 2**64}", "{'a': 2**64 + 1}", D, "an int is exact, beyond 64 bits"),
    ("{'a': 'x' * 70_000 + 'a'}", "{'a': 'x' * 70_000 + 'b'}", D, "the last of 70 001 characters counts"),
    ("{}", "None", E, "the column is not nullable"),
    ("{'solver': Rk4(0.1)}", "{'solver': Euler(0.1)}", D, "the class counts"),
    ("{'solver': Rk4(0.1)}", "{'solver': Rk4(dt=0.1, order=4)}", S, "equal fields"),
    ("{'solver': Rk4(0.1)}", "{'solver': {'dt': 0.1, 'order': 4}}", D, "an object is no dict"),
    ("{'mesh': [1], 'of': Colour.RED}", "{'mesh': [1], 'of': 'red'}", S, "an Enum in JSON is its value"),
]

LISTS = [
    ("[1, 2]", "(1, 2)", S, "JSON has one kind of sequence"),
    ("[1, 2]", "[2, 1]", D, "order counts"),
    ("[1, 2]", "[1, 2, 2]", D, "repetition counts"),
    ("[[1, 2], [3]]", "[[1], [2, 3]]", D, "nesting counts"),
    ("[]", "[[]]", D, "nesting counts"),
    ("[1, 2]", "Point(1, 2)", S, "a named tuple is a sequence"),
    ("[0, 1, 2]", "range(3)", U, "turn it into a list"),
    ("[1, 2]", "{1, 2}", D, "a set has no order"),
    ("[1, 2]", "np.array([1, 2])", D, "an array has a dtype and a shape"),
    ("[1, 2]", "collections.deque([1, 2])", U, "turn it into a list"),
    ("[1]", "cyclic()", U, "it contains itself"),
    ("[0.1, 0.2]", "[0.1, np.float64(0.2)]", S, "a NumPy scalar is its Python value"),
    ("list(range(3000))", "[*range(1500), 0, *range(1501, 3000)]", D, "each element counts"),
]

OBJECTS = [
    ("1", "1.0", D, "JSON has no types: an int is no float"),
    ("1", "True", D, "a bool is no number"),
    ("1", "'1'", D, "a string is no number"),
    ("[]", "{}", D, "a list is no dict"),
    ("''", "[]", D, "a string is no list"),
    ("1", "Level.LOW", S, "an Enum in JSON is its value, and the runner is given that"),
    ("Colour.RED", "Flag.RED", S, "an Enum in JSON is its value, and the runner is given that"),
    ("{1, 2, 3}", "{3, 2, 1}", S, "a set has no order"),
    ("{1, 2}", "frozenset({2, 1})", S, "a set has no order"),
    ("{1, 2}", "{1, 3}", D, "each element counts"),
    ("set()", "[]", D, "a set is no list"),
    ("{'a', 'b', 'c'}", "{'c', 'a', 'b'}", S, "whatever order a process has"),
    ("{1}", "{'1'}", D, "a string is no number"),
    ("{(1, 2)}", "{(2, 1)}", D, "the order in a tuple counts"),
    ("np.arange(2000)", "changed(np.arange(2000), 1000, 0)", D, "an element that str() elides"),
    ("np.arange(2000.0)", "changed(np.arange(2000.0), 1000, 1000.0000001)", D, "arrays are not rounded"),
    ("np.arange(10)[::2]", "np.array([0, 2, 4, 6, 8])", S, "a strided view has the same elements"),
    (
        "np.arange(6).reshape(2, 3)",
        "np.asfortranarray(np.arange(6).reshape(2, 3))",
        S,
        "memory order is no value",
    ),
    ("np.arange(4).reshape(2, 2)", "np.arange(4).reshape(2, 2).T", D, "a transposed array"),
    ("np.arange(6).reshape(2, 3)", "np.arange(6).reshape(3, 2)", D, "the shape counts"),
    ("np.zeros((0, 3))", "np.zeros((3, 0))", D, "the shape of nothing counts"),
    ("np.arange(3)[::-1]", "np.array([2, 1, 0])", S, "a reversed view has the same elements"),
    ("np.arange(3)", "read_only(np.arange(3))", S, "flags are no value"),
    ("np.broadcast_to(1.0, 3)", "np.ones(3)", S, "a broadcast view has the same elements"),
    ("np.array([1, 2], '<i4')", "np.array([1, 2], '<i8')", D, "the dtype counts"),
    ("np.array([1, 2], '<i4')", "np.array([1, 2], '<u4')", D, "the dtype counts"),
    ("np.array([1, 2], '<i4')", "np.array([1, 2], '>i4')", D, "the byte order is the dtype's"),
    ("np.array([1, 0], '|u1')", "np.array([True, False])", D, "the dtype counts"),
    ("np.array([0.5], '<f4')", "np.array([0.5], '<f8')", D, "the dtype counts"),
    ("np.array(['a'], '<U1')", "np.array(['a'], '<U2')", D, "the dtype counts"),
    ("np.array(['2026'], 'M8[Y]')", "np.array(['2026'], 'M8[s]')", D, "the unit is the dtype's"),
    ("np.array(5)", "5", D, "an array of no dimensions is an array, in JSON"),
    ("np.array([0.0])", "np.array([-0.0])", D, "arrays are compared by their bytes"),
    ("np.array([np.nan])", "np.array([np.nan])", S, "arrays are compared by their bytes"),
    ("np.array([np.nan])", "np.array([np.inf])", D, "arrays are compared by their bytes"),
    ("np.array([1 + 2j])", "np.array([1 - 2j])", D, "both parts count"),
    ("np.zeros(2, 'i4,f8')", "np.zeros(2, 'i4,f4')", D, "the fields of a structured array count"),
    ("np.zeros(2, [('a', 'i4')])", "np.zeros(2, [('b', 'i4')])", D, "the names of the fields count"),
    ("np.ma.array([1, 2], mask=[0, 1])", "np.ma.array([1, 2], mask=[1, 0])", D, "the mask counts"),
    ("np.ma.array([1, 2])", "np.array([1, 2])", D, "a masked array is no array"),
    ("np.ma.array([1, 2], fill_value=0)", "np.ma.array([1, 2], fill_value=9)", D, "the fill value counts"),
    ("np.ma.array([1, 2], mask=False)", "np.ma.array([1, 2], mask=[0, 0])", S, "no mask, and nothing masked"),
    ("np.arange(2)", "np.array([0, object()])", U, "the bytes of objects are addresses"),
    ("np.arange(2)", "np.arange(2).view(np.matrix)", U, "a subclass may carry more than its elements"),
    ("np.arange(2)", "np.arange(2).astype(np.longdouble)", U, "its bytes differ between machines"),
    ("{'a': np.arange(3)}", "{'a': np.arange(3) + 0}", S, "arrays anywhere"),
    ("[np.arange(3), 1]", "[np.arange(3), 2]", D, "what stands beside an array counts"),
    ("pd.Series([1, 2, 3])", "pd.Series([1, 2, 3])", S, "equal elements"),
    ("pd.Series(range(2000))", "changed(pd.Series(range(2000)), 1000, 0)", D, "an element that str() elides"),
    ("pd.Series([1, 2])", "pd.Series([1, 2], index=[1, 2])", D, "the index counts"),
    ("pd.Series([1, 2])", "pd.Series([1, 2], index=[0, 1])", S, "how an index is kept does not count"),
    ("pd.Series([1, 2])", "pd.Series([1, 2], name='a')", D, "the name counts"),
    ("pd.Series([1, 2])", "pd.Series([1.0, 2.0])", D, "the dtype counts"),
    ("pd.Series([1, 2])", "np.array([1, 2])", D, "a Series is no array"),
    ("pd.Series([1.0, np.nan])", "pd.Series([1.0, np.nan])", S, "missing values are equal here"),
    ("pd.Series(['a', 'b'], dtype='category')", "pd.Series(['a', 'b'])", D, "the dtype counts"),
    (
        "pd.DataFrame({'a': [1], 'b': [2]})",
        "pd.DataFrame({'b': [2], 'a': [1]})",
        D,
        "the order of columns counts",
    ),
    (
        "pd.DataFrame({'a': range(99)})",
        "changed(pd.DataFrame({'a': range(99)}), (50, 0), 0)",
        D,
        "an element that str() elides",
    ),
    ("pd.Timestamp('2026-01-02')", "datetime(2026, 1, 2)", S, "a pandas time is its text"),
    ("0", "None", E, "None is NULL, and the column is not nullable"),
    ("Rk4(0.1)", "Rk4(0.2)", D, "fields count"),
    ("Rk4(0.1)", "Euler(0.1)", D, "the class counts"),
    ("Rk4(0.3)", "Rk4(0.1 + 0.2)", S, "they differ beyond 12 decimals only"),
    ("Mesh(5)", "Grid(5)", D, "the class counts, of attrs"),
    ("Mesh(5)", "Mesh(6)", D, "fields count, of attrs"),
    ("Settings(dt=1.0)", "Settings(dt=1)", S, "pydantic has made it a float"),
    ("Settings(dt=1.0)", "Options(dt=1.0)", D, "the class counts, of pydantic"),
    ("Settings(dt=1.0)", "Settings(dt=2.0)", D, "fields count, of pydantic"),
    ("Quantity(5, 'm')", "Quantity(5, 'km')", D, "its text shows the unit"),
    ("Quantity(5, 'm')", "5", D, "its text shows the unit"),
    ("Decimal('1.5')", "'1.5'", S, "the runner is given the text"),
    ("Decimal('1.5')", "Decimal('1.50')", D, "two texts; a Decimal column would have them one"),
    ("Decimal('1.5')", "1.5", D, "text is no number; a Decimal column would have them one"),
    ("Fraction(1, 3)", "1 / 3", D, "text is no number; a float column would have them one"),
    ("PurePosixPath('a/b')", "'a/b'", S, "the runner is given the text"),
    ("uuid.UUID(int=1)", "str(uuid.UUID(int=1))", S, "the runner is given the text"),
    ("1 + 2j", "1 - 2j", D, "both parts count"),
    ("b'a'", "'a'", D, "bytes are not the text"),
    ("datetime(2026, 1, 2)", "datetime(2026, 1, 2, tzinfo=UTC)", D, "two texts; a datetime column is UTC"),
    ("timedelta(1)", "timedelta(2)", D, "they differ"),
    ("np.timedelta64(5, 'ns')", "5", D, "5 ns is not the number 5"),
    ("1", "Silent()", U, "its repr is an address"),
    ("1", "lambda: 1", U, "a function has no stable form"),
    ("1", "Samples()", U, "a container whose text may elide"),
    ("1", "(i for i in [1])", U, "a generator has no stable form"),
    ("1", "object()", U, "its repr is an address"),
    ("1", "np.random.default_rng(1)", U, "pass the seed instead"),
    ("{'a': 1}", "types.MappingProxyType({'a': 1})", U, "turn it into a dict"),
    ("1", "float('nan')", E, "JSON has no NaN"),
]

DEFAULT_DICTS = [
    ("{'tol': 0.3}", OUT, S, "the default"),
    (OUT, "{'tol': 0.1 + 0.2}", S, "it has the default's form"),
    (OUT, "{'tol': np.float64(0.3)}", S, "it is the default once typed"),
    (OUT, "{}", D, "the empty dict is a value"),
    (OUT, "{'tol': 0.3, 'n': 1}", D, "it is not the default"),
]

TYPED_DICTS = [
    ("{'a': 1.0}", "{'a': 1.0 + 1e-13}", S, "they differ beyond 12 decimals only"),
    ("{'a': 1.0}", "{'a': 2.0}", D, "values count"),
    ("{'a': 1.0}", "{'b': 1.0}", D, "keys count"),
]

TYPED_LISTS = [
    ("[1, 2]", "(1, 2)", S, "JSON has one kind of sequence"),
    ("[1, 2]", "[1, 3]", D, "each element counts"),
    ("[]", "[0]", D, "each element counts"),
]

_BY_COLUMN: dict[str, list[Any]] = {
    "float": FLOATS,
    "float | None": OPTIONAL_FLOATS,
    "float = 0.3": DEFAULT_FLOATS,
    "float | None = 0.5": DEFAULT_OPTIONAL_FLOATS,
    "int": INTS,
    "int | None": OPTIONAL_INTS,
    "int = 5": DEFAULT_INTS,
    "bool": BOOLS,
    "bool = False": DEFAULT_BOOLS,
    "str": STRINGS,
    "str | None": OPTIONAL_STRINGS,
    "str = 'rk4'": DEFAULT_STRINGS,
    "datetime": DATETIMES,
    "datetime = datetime(2026, 1, 2)": DEFAULT_DATETIMES,
    "date": DATES,
    "date = date(2026, 1, 2)": DEFAULT_DATES,
    "time": TIMES,
    "timedelta": TIMEDELTAS,
    "Decimal": DECIMALS,
    "Decimal = Decimal('0.3')": DEFAULT_DECIMALS,
    "Colour (an Enum)": ENUMS,
    "Colour = Colour.RED": DEFAULT_ENUMS,
    "UUID": UUIDS,
    "bytes": BYTES,
    "dict (JSON)": DICTS,
    "list (JSON)": LISTS,
    "Any (JSON)": OBJECTS,
    "dict = {'tol': 0.3}": DEFAULT_DICTS,
    "dict[str, float]": TYPED_DICTS,
    "list[int]": TYPED_LISTS,
}

ROWS = [(column, *row) for column, rows in _BY_COLUMN.items() for row in rows]
