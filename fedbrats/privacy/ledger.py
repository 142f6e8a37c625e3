"""What has been spent, on disk: one ledger per site, over all rounds, runs and restarts.

A release is reserved before it is computed, so a crash can only lose what was counted too much. The ledger is one
JSON file; next to it lies a lock file that also holds how many entries were once durable, so that a ledger which was
deleted, cut or replaced by an old copy is noticed. Who deletes both starts anew, and no program can tell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedbrats.files import PRIVATE_FILE, private_folder, read_json, write_text
from fedbrats.privacy.accounting import Entry

try:
    import fcntl
except ImportError:  # not POSIX: a ledger can be read but not written
    fcntl = None  # type: ignore[assignment]

PATIENT = "patient"
PATIENT_ADJACENCY = "add or remove one patient; the number of patients of a site is public"
FIELDS = ("sigma", "sample_rate", "steps", "run", "round", "mechanism")


class LedgerError(RuntimeError):
    """A ledger that cannot be trusted; nothing may be released until a person has looked at it."""


class Ledger:
    """The ledger of one site (or of the server, whose units are sites).

    Args:
        file: where it is kept; made by the first reservation, as is the file `<file>.lock` next to it.
        site: whose it is; a file of another site is refused.
        unit: what is protected.
        adjacency: what neighbours are, in words.
    """

    def __init__(
        self, file: Path, site: str, *, unit: str = PATIENT, adjacency: str = PATIENT_ADJACENCY
    ) -> None:
        self.file = file
        self.lock = file.with_name(f"{file.name}.lock")
        self._head = {"site": site, "unit": unit, "adjacency": adjacency}

    def entries(self) -> list[Entry]:
        """All that was ever reserved; empty if nothing was.

        Raises:
            LedgerError: the file cannot be read in full, or fewer entries are left than were once written.
        """
        return [Entry(r["sigma"], r["sample_rate"], r["steps"]) for r in self.records()]

    def records(self) -> list[dict[str, Any]]:
        """The reservations as they stand in the file, oldest first.

        Raises:
            LedgerError: the file cannot be read in full, or fewer entries are left than were once written.
        """
        durable = self._durable()  # before the ledger, which only grows
        records = self._read() if self.file.exists() else []
        if len(records) < durable:
            raise LedgerError(
                f"{self.file}: holds {len(records)} entries, but {durable} were written ({self.lock.name}). It was "
                "deleted, cut or replaced by an old copy; restore it, or the epsilon would be too small."
            )
        return records

    def reserve(
        self, entry: Entry, *, run: str, round_: int, mechanism: str = "dp_sgd", **facts: Any
    ) -> None:
        """Append `entry` durably; call it before what it pays for is computed.

        Args:
            entry: the releases that are planned.
            run: name of the run that spends it.
            round_: round of that run, counted from 1.
            mechanism: what is released.
            facts: anything else worth keeping that JSON can hold.

        Raises:
            LedgerError: the ledger cannot be read in full or belongs to another site; nothing is reserved.
            OSError: the disk refuses; nothing may be released.
            ValueError: a fact that is not JSON, or named as a field of the ledger.
        """
        if taken := sorted(facts.keys() & set(FIELDS)):
            raise ValueError(f"{', '.join(taken)}: a field of the ledger, not a fact.")
        record: dict[str, Any] = asdict(entry)
        record |= {"run": run, "round": round_, "mechanism": mechanism, **facts}
        if not self.file.parent.is_dir():
            private_folder(self.file.parent)
        with self._locked() as lock:
            records = [*self.records(), record]
            write_text(
                self.file, json.dumps({**self._head, "entries": records}, indent=1, allow_nan=False), True
            )
            os.pwrite(lock, f"{len(records)}\n".encode(), 0)  # never shorter than before, so never cut
            os.fsync(lock)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        if fcntl is None:
            raise LedgerError(
                f"{self.file}: this system has no file locks, so a ledger cannot be kept safely."
            )
        lock = os.open(self.lock, os.O_RDWR | os.O_CREAT, PRIVATE_FILE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            os.close(lock)

    def _durable(self) -> int:
        try:
            return int(self.lock.read_text() or 0)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise LedgerError(
                f"{self.lock}: cannot be read ({error}); restore it with its ledger."
            ) from error

    def _read(self) -> list[dict[str, Any]]:
        try:
            found = read_json(self.file)
            head = {key: found[key] for key in self._head}
            records: list[dict[str, Any]] = found["entries"]
            if not isinstance(records, list):
                raise TypeError("entries are not a list")
            for r in records:
                if not isinstance(r["round"], int):
                    raise ValueError(f"an entry that is not one: {r}")
                Entry(r["sigma"], r["sample_rate"], r["steps"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LedgerError(
                f"{self.file}: not a readable ledger ({error!r}). Restore it from a backup; training on would report "
                "an epsilon that is too small."
            ) from error
        if head != self._head:
            raise LedgerError(f"{self.file}: is of {head}, asked for {self._head}.")
        return records
