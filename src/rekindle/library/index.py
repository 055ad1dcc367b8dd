"""The SQLite index of a library: a copy of the facts in its run folders that can always be made anew from them."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.schema import CreateTable, DropTable

from rekindle.core.errors import LibraryError
from rekindle.library.rows import Row

VERSION = 1
"""Of the tables; an index of another version is emptied and filled again."""
_BUSY_SECONDS = 30.0
_TABLES = sa.MetaData()
_RUNS = sa.Table(
    "runs",
    _TABLES,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("stamp", sa.Text, nullable=False),
    sa.Column("kind", sa.Text),
    sa.Column("env_id", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("manifest", sa.Text),
    sa.Column("policy", sa.Text),
    sa.Column("problem", sa.Text),
)


class Index:
    """The open index; safe to use from several processes at once."""

    def __init__(self, path: Path) -> None:
        """Open, or create.

        Raises:
            LibraryError: it is damaged, or cannot be written.
        """
        self._path = path
        url = sa.URL.create("sqlite", database=str(path))
        self._engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"timeout": _BUSY_SECONDS})
        with self._connection() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            version = connection.exec_driver_sql("PRAGMA user_version").scalar()
            connection.execute(CreateTable(_RUNS, if_not_exists=True))
            if version not in (0, VERSION):
                connection.execute(DropTable(_RUNS, if_exists=True))
                connection.execute(CreateTable(_RUNS, if_not_exists=True))
            if version != VERSION:
                connection.exec_driver_sql(f"PRAGMA user_version={VERSION}")

    def stamps(self) -> dict[str, str]:
        """The stamp of every run it knows."""
        with self._connection() as connection:
            return {id: stamp for id, stamp in connection.execute(sa.select(_RUNS.c.id, _RUNS.c.stamp))}

    def change(self, put: Iterable[Row], drop: Iterable[str]) -> None:
        """Add or replace rows, and forget runs, all at once."""
        upsert = sqlite.insert(_RUNS)
        columns = {c.name: upsert.excluded[c.name] for c in _RUNS.c if c.name != "id"}
        rows, gone = [row._asdict() for row in put], [{"gone": id} for id in drop]
        with self._connection() as connection:
            if rows:
                connection.execute(upsert.on_conflict_do_update(index_elements=["id"], set_=columns), rows)
            if gone:
                connection.execute(sa.delete(_RUNS).where(_RUNS.c.id == sa.bindparam("gone")), gone)

    def rows(self, **equal: str | None) -> list[Row]:
        """The rows, newest first, whose columns equal what is given; None leaves a column open."""
        query = sa.select(_RUNS).order_by(_RUNS.c.id.desc())
        for column, value in equal.items():
            if value is not None:
                query = query.where(_RUNS.c[column] == value)
        with self._connection() as connection:
            return [Row(*row) for row in connection.execute(query)]

    def clear(self) -> None:
        """Forget everything."""
        with self._connection() as connection:
            connection.execute(sa.delete(_RUNS))

    def problem(self) -> str | None:
        """What SQLite's own check finds wrong, or None."""
        with self._connection() as connection:
            found: Any = connection.exec_driver_sql("PRAGMA quick_check").scalar()
        return None if found == "ok" else f"{self._path} is damaged ({found}); run `rekindle library reindex`."

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            raise LibraryError(
                f"cannot use the index {self._path}: {error.orig}; "
                "give yourself the right to write there, or set REKINDLE_HOME to a folder of yours."
            ) from None
        except DatabaseError as error:
            raise LibraryError(f"{self._path} is damaged ({error.orig}); run `rekindle library reindex`.") from None
