"""Where studies are kept: the database, its checks, its lock, and its errors in plain words.

Optuna's RDB storage is opened with a connection of our own, so that a path is never parsed as a URL, a
missing file is never silently created, and a reader cannot write. SQLAlchemy and sqlite3 errors become
`OSError`, `InputError` or `Busy` with one line each.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import quote

from search_spaces.errors import InputError, did_you_mean
from supernets.files import Busy, lock

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import Engine

Storage: TypeAlias = str | os.PathLike[str]
Mode: TypeAlias = Literal["read", "write", "create"]

_LITTLE = 1 << 18  # free bytes below which SQLite's "I/O error" is a full disk
TIMEOUT_S = 60  # how long SQLite waits for another program's transaction
HEADER = b"SQLite format 3\0"
TABLES = {"studies", "trials", "trial_values", "version_info", "alembic_version"}
RECOVER = "restore a backup, or save what is readable: sqlite3 {name} .recover | sqlite3 recovered.db"


@dataclass(frozen=True)
class Location:
    """A database of studies: a SQLite file, or a server.

    Attributes:
        path: the SQLite file; None for a server.
        url: SQLAlchemy URL of a server; empty for a file.
    """

    path: Path | None
    url: str = ""

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        from sqlalchemy.engine import make_url

        return make_url(self.url).render_as_string(hide_password=True)


def locate(storage: Storage) -> Location:
    """The database that `storage` names: a file, a folder that holds study.db, or an SQLAlchemy URL.

    Raises:
        InputError: a URL that cannot be read, or of a database that has no lock we know.
    """
    text = os.fspath(storage)
    if "://" not in text:
        path = Path(text).expanduser().absolute()
        return Location(path / "study.db" if path.is_dir() else path)
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InputError(
            "storage is not a database URL; write a path, sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from None
    kind = url.get_backend_name()
    if kind == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise InputError(f"storage {text} is not a file; a study is kept: write sqlite:///FILE or a path")
        return Location(Path(str(url.database)).expanduser().absolute())
    if kind != "postgresql":
        raise InputError(
            f"storage {kind}:// is not supported; use a SQLite file or postgresql://USER@HOST/NAME"
        )
    return Location(None, text)


def open_storage(location: Location, mode: Mode) -> RDBStorage:
    """Optuna's storage on `location`. "read" and "write" expect a study database, "create" makes one.

    SQLite runs in WAL mode with synchronous=FULL: a reader never blocks the writer, and a committed trial
    survives a power cut.

    Raises:
        InputError: a schema of another Optuna version, or a database driver that is not installed.
        OSError: the database cannot be opened.
    """
    from optuna.storages import RDBStorage

    kwargs: dict[str, object] = {}
    if location.path is None:
        url = location.url.replace("{", "{{").replace("}", "}}")  # Optuna formats the URL
        kwargs["pool_pre_ping"] = True
    else:
        url = "sqlite:///study.db"  # only names the dialect: the connection is ours
        kwargs["creator"] = _connector(location.path, mode)
    with quiet(), plain_errors(location):
        try:
            return RDBStorage(url, engine_kwargs=kwargs, skip_table_creation=mode != "create")
        except RuntimeError as error:
            raise InputError(f"{location} was written by another Optuna version: {error}") from None


def _connector(path: Path, mode: Mode) -> Callable[[], sqlite3.Connection]:
    """A function that opens connections to the SQLite file `path`."""
    query = {"read": "mode=ro", "write": "mode=rw", "create": "mode=rwc"}[mode]
    if mode == "read" and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
        query = "immutable=1"  # a reader of a WAL database needs its -shm file, which cannot be made here

    def connect() -> sqlite3.Connection:
        uri = f"file:{quote(os.fsencode(path))}?{query}"
        connection = sqlite3.connect(uri, uri=True, timeout=TIMEOUT_S, check_same_thread=False)
        if mode != "read":
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        return connection

    return connect


def check_database(location: Location, mode: Mode = "read") -> None:
    """Returns when `location` is an undamaged study database.

    Raises:
        InputError: missing, empty, damaged, or not a study database.
        OSError: it cannot be read.
    """
    path = location.path
    if path is None:
        _check_server(location)
        return
    if not path.exists():
        raise InputError(f"no study at {path}; check the path, or start one with nas search")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a study database")
    with path.open("rb") as file:
        header = file.read(len(HEADER))
    if not header:
        raise InputError(f"{path} is empty (0 bytes), not a study; restore a backup, or start a new search")
    if header != HEADER:
        raise InputError(f"{path} is damaged or not a SQLite database; {RECOVER.format(name=path.name)}")
    with plain_errors(location), closing(_connector(path, mode)()) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            detail = " ".join(str(found).split())
            raise InputError(f"{path} is damaged ({detail}); {RECOVER.format(name=path.name)}")
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
    if missing := sorted(TABLES - tables):
        raise InputError(f"{path} is a SQLite database but not of studies (no table {missing[0]!r})")


def _check_server(location: Location) -> None:
    import sqlalchemy

    with plain_errors(location):
        engine = sqlalchemy.create_engine(location.url)
        tables = set(sqlalchemy.inspect(engine).get_table_names())
        engine.dispose()
    if TABLES - tables:
        raise InputError(f"{location} holds no studies; check its name, or start one with nas search")


@contextmanager
def own(location: Location, study: str | None) -> Iterator[None]:
    """Within it, this process alone may write; the system ends it with the process, however that ends.

    A SQLite file has one owner (a lock beside it), a server one owner per study (an advisory lock).

    Raises:
        Busy: another process, or another part of this one, owns it.
        OSError: the folder is missing or not writable.
    """
    if location.path is None:
        with _server_lock(location, study or ""):
            yield
        return
    folder = Path(
        f"{location.path}.lock"
    )  # beside the database: a run folder may be locked by its run as well
    try:
        folder.mkdir(exist_ok=True)
    except FileNotFoundError:
        missing = str(folder.parent)
        raise FileNotFoundError(
            errno.ENOENT, "no such folder for a study; create it first", missing
        ) from None
    with ExitStack() as stack:
        try:
            stack.enter_context(lock(folder))
        except Busy as busy:
            user = str(busy).rpartition(" in use ")[2]
            name = f"study {study!r} in " if study else "the study "
            raise Busy(f"{name}{location} is in use {user}; wait for it, or stop it") from None
        yield


@contextmanager
def _server_lock(location: Location, study: str) -> Iterator[None]:
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    key = sqlalchemy.text("SELECT pg_try_advisory_lock(hashtext('nas'), hashtext(:name))")
    with plain_errors(location):
        engine = sqlalchemy.create_engine(location.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        connection = engine.connect()
    with closing(connection):
        with plain_errors(location):
            owned = connection.execute(key, {"name": study}).scalar()
        if not owned:
            raise Busy(f"study {study!r} in {location} is in use by another process; wait for it or stop it")
        yield


def close_storage(storage: RDBStorage) -> None:
    """Close all connections. The last one to a SQLite file folds its write-ahead log into it."""
    engine: Engine = storage.engine
    storage.scoped_session.remove()
    engine.dispose()


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna's progress lines and experimental warnings, off for our calls only."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(level, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


@contextmanager
def plain_errors(location: Location) -> Iterator[None]:
    """Database errors inside become one line: `OSError`, `InputError` or `Busy`, by their cause."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except ImportError as error:
        driver = getattr(error.__cause__ or error, "name", None)
        if location.path is not None or driver is None:
            raise
        raise InputError(f"no driver for {location}; pip install '{driver}[binary]'") from None
    except (StorageInternalError, DBAPIError, sqlite3.Error) as error:
        raise _plain(error, location) from error


def _plain(error: BaseException, location: Location) -> Exception:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, sqlite3.Error):
        cause = getattr(cause, "orig", None) or cause.__cause__
    where = str(location)
    if cause is None:
        inner = getattr(error.__cause__ or error, "orig", None) or error.__cause__ or error
        return ConnectionError(f"database {where} failed: {' '.join(str(inner).split())}")
    code = getattr(cause, "sqlite_errorname", "")
    kept = "what was recorded is kept"
    if code == "SQLITE_FULL":
        return OSError(errno.ENOSPC, f"disk full while writing the study; {kept}; free some space", where)
    if code.startswith("SQLITE_IOERR") and location.path is not None:
        if shutil.disk_usage(location.path.parent).free < _LITTLE:
            return OSError(errno.ENOSPC, f"disk full while writing the study; {kept}; free some space", where)
        if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
            return OSError(errno.EFBIG, f"file size limit reached while writing the study; {kept}", where)
        return OSError(errno.EIO, f"reading or writing the study failed ({code}); {kept}", where)
    if code.startswith("SQLITE_READONLY"):
        return PermissionError(errno.EACCES, "the study cannot be written; check its permissions", where)
    if code.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM")):
        return PermissionError(
            errno.EACCES, "the study cannot be opened; check folder and permissions", where
        )
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(f"{where} has been locked by another program for {TIMEOUT_S} s; close it and try again")
    if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return InputError(f"{where} is damaged ({cause}); {RECOVER.format(name=Path(where).name)}")
    return OSError(errno.EIO, f"the study failed ({code or 'sqlite'}: {cause})", where)


def choose(storage: RDBStorage, location: Location, name: str | None) -> str:
    """The name of the study that is meant: `name`, or the only one there is.

    Raises:
        InputError: it is not there, or there are several.
    """
    with quiet(), plain_errors(location):
        known = [study.study_name for study in storage.get_all_studies()]
    if name is None and len(known) == 1:
        return known[0]
    if name is None:
        listed = ", ".join(map(repr, known)) or "none"
        raise InputError(f"{location} holds {len(known)} studies; name the one you mean (known: {listed})")
    if name not in known:
        raise InputError(f"no study {name!r} in {location}{did_you_mean(name, known)}")
    return name


def drop_unfinished(storage: RDBStorage, name: str, mark: str) -> None:
    """Delete the study `name` when its creation was interrupted: it has no attribute `mark` and no trial."""
    for study in storage.get_all_studies():
        unfinished = study.study_name == name and mark not in study.user_attrs
        if unfinished and storage.get_n_trials(study._study_id) == 0:
            storage.delete_study(study._study_id)
