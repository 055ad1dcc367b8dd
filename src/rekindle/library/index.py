"""The index of a library in SQLite or PostgreSQL: a copy of the facts in its run folders, made anew from them at will.

Its tables have versions, and migrations lead from each to the next (`migrations/`, by Alembic). An index that a newer
rekindle made is left alone.
"""

import contextlib
import functools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import filelock
import sqlalchemy as sa
from sqlalchemy.event import listen
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from rekindle.core.errors import ConfigError, LibraryError
from rekindle.library.rows import Link, Row

VERSION = "0002"
"""Of the tables that this code reads and writes: the last of `migrations/versions`."""
_PATIENCE_SECONDS = 60.0
"""How long one waits for other processes."""
_MANY = 500
"""Parameters in one query; SQLite takes a limited number."""
_PASSING = ("locked", "busy", "deadlock", "could not serialize", "schema has changed")
_NO_ROOM = ("disk I/O error", "disk is full", "readonly database", "unable to open database file")
_TABLES = sa.MetaData()
_TEXT = [name for name in Row._fields if name not in ("id", "stamp")]
_RUNS = sa.Table(
    "rekindle_runs",
    _TABLES,
    sa.Column("library", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("stamp", sa.Text, nullable=False),
    *(sa.Column(name, sa.Text) for name in _TEXT),
)
_KIN = sa.Table(
    "rekindle_kin",
    _TABLES,
    *(sa.Column(name, sa.Text, primary_key=True) for name in ("library", "child", "parent", "role")),
)
_VERSION = sa.table("rekindle_version", sa.column("version_num", sa.Text))
_ROW = [_RUNS.c[name] for name in Row._fields]
Value = TypeVar("Value")


class NoRoom(LibraryError):
    """The database cannot be written, for want of space or of the right to; its questions can be asked of another."""


class Index:
    """The open index of one library; safe to use from several processes and machines at once."""

    def __init__(self, url: sa.URL, library: str = "") -> None:
        """Open, or create, or bring to this version.

        Args:
            url: of SQLite or PostgreSQL.
            library: whose rows, in a database that several libraries share.

        Raises:
            LibraryError: it is damaged, cannot be reached or written, or a newer rekindle made it.
            ConfigError: a database of another kind, or one whose driver is not installed.
        """
        self._url, self._library = url, library
        self.name = url.database or "" if url.get_backend_name() == "sqlite" else _without_secrets(url)
        self._engine = _engine(url)
        if (version := self._try(_version)) != VERSION:
            self._migrate(version)

    def stamps(self) -> dict[str, str]:
        """The stamp of every run it knows; empty for those with a problem, which are read again each time."""
        query = sa.select(_RUNS.c.id, _RUNS.c.stamp, _RUNS.c.problem.is_(None)).where(self._own)
        return {id: stamp if good else "" for id, stamp, good in self._all(query)}

    def change(self, put: Iterable[Row], kin: Iterable[Link], drop: Iterable[str]) -> None:
        """Add or replace rows with their links, and forget runs, all at once.

        `kin` holds every link whose child is among the rows.
        """
        rows = sorted(({"library": self._library, **row._asdict()} for row in put), key=lambda row: str(row["id"]))
        links = sorted({(link.child, link.parent, link.role) for link in kin})
        old = sorted({str(row["id"]) for row in rows} | set(drop))

        def write(connection: sa.Connection) -> None:
            if gone := sorted(set(drop)):
                forget = sa.delete(_RUNS).where(self._own, _RUNS.c.id == sa.bindparam("gone"))
                connection.execute(forget, [{"gone": id} for id in gone])
            if rows:
                upsert = self._insert(_RUNS)
                columns = {name: upsert.excluded[name] for name in Row._fields if name != "id"}
                connection.execute(upsert.on_conflict_do_update(index_elements=["library", "id"], set_=columns), rows)
            if old:
                unlink = sa.delete(_KIN).where(_KIN.c.library == self._library, _KIN.c.child == sa.bindparam("old"))
                connection.execute(unlink, [{"old": id} for id in old])
            if links:
                named = [dict(zip(("library", *Link._fields), (self._library, *link), strict=True)) for link in links]
                connection.execute(self._insert(_KIN).on_conflict_do_nothing(), named)

        self._try(write)

    def rows(self, *, whole: bool, limit: int | None = None, **equal: str | None) -> list[Row]:
        """The rows, newest first, whose columns equal what is given; None leaves a column open.

        With `whole` those whose manifest can be read, else those with a problem.
        """
        query = self._where(sa.select(*_ROW), equal)
        query = query.where(_RUNS.c.manifest.is_not(None) if whole else _RUNS.c.problem.is_not(None))
        return [Row(*row) for row in self._all(query.limit(limit))]

    def count(self, **equal: str | None) -> int:
        """How many whole rows `rows` would give without a limit."""
        query = self._where(sa.select(sa.func.count()).select_from(_RUNS), equal, ordered=False)
        return int(self._all(query.where(_RUNS.c.manifest.is_not(None)))[0][0])

    def beginning(self, text: str, limit: int) -> list[Row]:
        """Rows whose id begins with `text`, newest first."""
        begins = sa.func.substr(_RUNS.c.id, 1, len(text)) == text
        query = sa.select(*_ROW).where(self._own, begins).order_by(_RUNS.c.id.desc())
        return [Row(*row) for row in self._all(query.limit(limit))]

    def called(self, name: str, limit: int) -> list[Row]:
        """Whole rows of this name, whatever the case, newest first."""
        same = sa.func.lower(_RUNS.c.name) == name.lower()
        query = sa.select(*_ROW).where(self._own, same, _RUNS.c.manifest.is_not(None)).order_by(_RUNS.c.id.desc())
        return [Row(*row) for row in self._all(query.limit(limit))]

    def some(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids, those that it knows."""
        found: list[Row] = []
        for i in range(0, len(ids), _MANY):
            query = sa.select(*_ROW).where(self._own, _RUNS.c.id.in_(ids[i : i + _MANY]))
            found += [Row(*row) for row in self._all(query)]
        return found

    def ids(self, limit: int) -> list[str]:
        """The newest ids."""
        return [
            id for (id,) in self._all(sa.select(_RUNS.c.id).where(self._own).order_by(_RUNS.c.id.desc()).limit(limit))
        ]

    def specs(self) -> dict[str, str]:
        """For each distinct spec the facts of one policy that was made for it."""
        some = sa.select(sa.func.min(_RUNS.c.id)).where(self._own, _RUNS.c.spec.is_not(None)).group_by(_RUNS.c.spec)
        query = sa.select(_RUNS.c.spec, _RUNS.c.policy).where(self._own, _RUNS.c.id.in_(some))
        return {spec: policy for spec, policy in self._all(query)}

    def priors(self, specs: Sequence[str]) -> list[Row]:
        """Rows with a policy for one of `specs`, newest first, without the long columns."""
        short = [c if c.name not in ("manifest", "policy", "problem") else sa.null().label(c.name) for c in _ROW]
        query = sa.select(*short).where(self._own, _RUNS.c.spec.in_(specs)).order_by(_RUNS.c.id.desc())
        return [Row(*row) for row in self._all(query)]

    def kin(self, ids: Sequence[str], *, up: bool) -> list[Link]:
        """The links to the parents (`up`) or to the children of any of `ids`."""
        mine = _KIN.c.child if up else _KIN.c.parent
        found: list[Link] = []
        for i in range(0, len(ids), _MANY):
            query = sa.select(_KIN.c.child, _KIN.c.parent, _KIN.c.role)
            query = query.where(_KIN.c.library == self._library, mine.in_(ids[i : i + _MANY]))
            found += [Link(*row) for row in self._all(query.order_by(_KIN.c.child, _KIN.c.parent, _KIN.c.role))]
        return found

    def clear(self) -> None:
        """Forget everything about this library."""

        def forget(connection: sa.Connection) -> None:
            for table in (_RUNS, _KIN):
                connection.execute(sa.delete(table).where(table.c.library == self._library))

        self._try(forget)

    def problem(self) -> str | None:
        """What SQLite's own check finds wrong, or None; PostgreSQL checks its pages itself."""
        if self._engine.dialect.name != "sqlite":
            return None
        found = self._try(lambda connection: connection.exec_driver_sql("PRAGMA quick_check").scalar())
        return None if found == "ok" else f"{self.name} is damaged ({found}); run `rekindle library reindex`."

    @property
    def _own(self) -> sa.ColumnElement[bool]:
        return _RUNS.c.library == self._library

    def _where(self, query: Any, equal: dict[str, str | None], *, ordered: bool = True) -> Any:
        query = query.where(self._own, *(_RUNS.c[name] == value for name, value in equal.items() if value is not None))
        return query.order_by(_RUNS.c.id.desc()) if ordered else query

    def _insert(self, table: sa.Table) -> Any:
        if self._engine.dialect.name == "sqlite":
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert
        return insert(table)

    def _all(self, query: Any) -> Sequence[Any]:
        return self._try(lambda connection: connection.execute(query).all())

    def _try(self, work: Callable[[sa.Connection], Value]) -> Value:
        """Do `work` in a transaction; what other processes hinder is tried again, what cannot be is one sentence."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                passing = any(word in str(error.orig).lower() for word in _PASSING)
                if not passing or time.monotonic() > until:
                    raise self._sentence(error) from None
            except ImportError as error:
                raise _missing(self._url, error) from None
            time.sleep(random.uniform(0.01, 0.1))

    def _sentence(self, error: DBAPIError) -> LibraryError:
        reason = " ".join(str(error.orig).split())
        local = self._engine.dialect.name == "sqlite"
        if isinstance(error, OperationalError) or not local:
            mend = (
                "give yourself the right to write there and free some space, or set REKINDLE_HOME to a folder of yours"
                if local
                else "start the server, check address and rights in REKINDLE_DB, or unset it to use SQLite"
            )
            kind = NoRoom if local and any(word in reason for word in _NO_ROOM) else LibraryError
            return kind(f"cannot use the index {self.name}: {reason}; {mend}.")
        return LibraryError(f"{self.name} is damaged ({reason}); run `rekindle library reindex`.")

    def _migrate(self, version: str | None) -> None:
        """Lead the tables to `VERSION`, one process at a time."""
        if version is not None and version > VERSION:
            raise LibraryError(
                f"the index {self.name} was made by a newer rekindle (version {version}; this one reads {VERSION}): "
                "upgrade this one, or name another database in REKINDLE_DB, such as sqlite:////tmp/index.sqlite."
            )
        with self._alone():
            if self._try(_version) != VERSION:
                self._try(_upgrade)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self._engine.dialect.name == "sqlite":
            if self._url.database in (None, "", ":memory:"):
                yield
                return
            try:
                with filelock.FileLock(f"{self._url.database}.lock", timeout=_PATIENCE_SECONDS, mode=0o666):
                    yield
            except filelock.Timeout:
                raise LibraryError(f"another process has been making {self.name} for a minute; try again.") from None
            except OSError as error:
                raise NoRoom(f"cannot make the index {self.name}: {error.strerror}; set REKINDLE_HOME.") from None
            return
        with self._engine.connect() as connection:
            number = sa.literal(0x72656B)  # the same for every process of this program
            connection.execute(sa.select(sa.func.pg_advisory_lock(number)))
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(number)))


def address(text: str) -> sa.URL:
    """`REKINDLE_DB` as a URL.

    Raises:
        ConfigError: it is no URL of SQLite or PostgreSQL.
    """
    example = "such as postgresql://user@host/name"
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(f"REKINDLE_DB takes the URL of a database, {example}; it is not one.") from None
    if url.get_backend_name() in ("postgresql", "postgres"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite") or url.query:
        raise ConfigError(f"REKINDLE_DB takes PostgreSQL ({example}) or SQLite; got {url.drivername!r}.")
    return url


def _without_secrets(url: sa.URL) -> str:
    """For people: no password, wherever it stands."""
    hidden = {name: "***" for name in url.query if "pass" in name or "key" in name}
    return url.update_query_dict(hidden).render_as_string()


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        in_memory = url.database in (None, "", ":memory:")
        pool = sa.StaticPool if in_memory else sa.NullPool
        engine = sa.create_engine(url, poolclass=pool, connect_args={"timeout": _PATIENCE_SECONDS})
        listen(engine, "connect", _set_up)
        return engine
    try:
        return sa.create_engine(url, poolclass=sa.NullPool, connect_args={"connect_timeout": 10})
    except (ImportError, NoSuchModuleError) as error:
        raise _missing(url, error) from None


def _missing(url: sa.URL, error: Exception) -> ConfigError:
    return ConfigError(
        f"REKINDLE_DB names {url.get_backend_name()}, whose driver is not installed ({error}); "
        "install it with `pip install -e '.[postgres]'`."
    )


def _set_up(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("rekindle_version"):
        return None
    found = connection.execute(sa.select(_VERSION.c.version_num)).scalars().all()
    return str(max(found)) if found else None


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command

    config = _alembic()
    config.attributes["connection"] = connection
    command.upgrade(config, VERSION)


@functools.cache
def _alembic() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
