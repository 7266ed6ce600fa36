"""The broker's Java archives: named and hashed in `broker.lock`, fetched once into a cache outside the project.

Each jar is asked for by its coordinate alone. Resolving transitively picks wrong versions (kafka-clients 3.9.1 for Kafka
4.3.1), so the lock file is the whole class path.
"""
import hashlib
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

LOCK = Path(__file__).with_name("broker.lock")
AT_ONCE, TRIES = 8, 3


class JarsMissing(SystemExit):
    """The class path cannot be completed; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Jar:
    """One line of the lock: `group:artifact:version sha256`."""
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's name.

        >>> Jar("org.slf4j", "slf4j-api", "1.7.36", "d3").name
        'slf4j-api-1.7.36.jar'
        """
        return f"{self.artifact}-{self.version}.jar"


def cache() -> Path:
    """The user's folder for what is fetched once: `SLUICE_CACHE`, else `~/.cache/sluice`."""
    return Path(os.environ.get("SLUICE_CACHE") or Path.home() / ".cache" / "sluice").expanduser()


def locked(lock: Path = LOCK) -> list[Jar]:
    """The lock's jars, in its order; a line that is none is refused with its number."""
    jars = []
    for number, line in enumerate(lock.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match line.split():
            case [name, sha256] if name.count(":") == 2 and len(sha256) == 64:
                group, artifact, version = name.split(":")
                jars.append(Jar(group, artifact, version, sha256))
            case _:
                raise JarsMissing(f"{lock}: line {number}: 'group:artifact:version sha256' was expected, not {line!r}")
    return jars


def digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def ensure(folder: Path | None = None, lock: Path = LOCK, say=None) -> list[Path]:
    """The paths of all locked jars, each with its locked bytes; fetches what is missing, eight at a time.

    What is there already is kept, so that an interrupted fetch goes on. A file with other bytes is fetched anew, and
    refused if it then still differs. `say(text)` hears the progress. Raises `JarsMissing`.
    """
    folder = folder or cache() / "jars"
    say = say or (lambda text: print(text, file=sys.stderr, flush=True))
    jars = locked(lock)
    missing = [j for j in jars if not (folder / j.name).is_file() or digest(folder / j.name) != j.sha256]
    if missing:
        fetch_all(missing, folder, say)
    return [folder / j.name for j in jars]


def fetch_all(jars: list[Jar], folder: Path, say) -> None:
    """Fetches the jars into the folder; one error names how many are missing, the first one's why, and the ways out."""
    folder.mkdir(parents=True, exist_ok=True)
    say(f"kafka: fetching {len(jars)} jars into {folder}")
    began, failed = time.monotonic(), {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = {pool.submit(fetch, jar, folder): jar for jar in jars}
        for done, future in enumerate(as_completed(waiting), 1):
            if error := future.exception():
                failed[waiting[future]] = error
            if done % 10 == 0 or done == len(jars):
                say(f"kafka: {done - len(failed)} of {len(jars)} jars, {time.monotonic() - began:.1f} s")
    if failed:
        jar, error = next(iter(failed.items()))
        raise JarsMissing(
            f"kafka: {len(failed)} of {len(jars)} jars could not be had; the first: {jar.group}:{jar.artifact}:{jar.version}: {error}\n"
            f"  they come from Maven Central: is there a network, does it need a proxy (HTTPS_PROXY)?\n"
            f"  or copy {folder} from a machine that has it, or set KAFKA_BOOTSTRAP_SERVERS to a broker of yours")


def fetch(jar: Jar, folder: Path) -> None:
    """One jar by its coordinate, moved into the folder only when its bytes are the locked ones."""
    from jgo.maven import MavenContext  # 0.2 s to import, and needed once in the life of a machine
    scratch = folder / f".{jar.name}.{os.getpid()}"
    for left in reversed(range(TRIES)):
        try:
            found = MavenContext(repo_cache=scratch, timeout=30).project(jar.group, jar.artifact).at_version(jar.version)
            got = Path(found.artifact(packaging="jar").resolve())
            if (sha256 := digest(got)) != jar.sha256:
                raise ValueError(f"sha256 {sha256} is not the locked {jar.sha256}")
            os.replace(got, folder / jar.name)
            return
        except Exception as error:
            if not left:
                raise RuntimeError(f"{type(error).__name__}: {error}") from None
            time.sleep(0.5 * (TRIES - left))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
