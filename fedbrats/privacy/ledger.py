"""What has been spent, on disk: one ledger per site, over all rounds, runs and restarts.

A release is reserved before it is computed, so a crash can only lose what was counted too much. The ledger is one
JSON file; next to it lies a lock file that also holds how many entries were once durable, so that a ledger which was
deleted, cut or replaced by an old copy is noticed. Who deletes both starts anew, and no program can tell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
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
# THE statement of what neighbours are: README, privacy page, report and every ledger say it in these words.
PATIENT_ADJACENCY = (
    "all scans of one patient of a site contribute or contribute nothing (zero-out); how many patients and scans a "
    "site has is public, who they are is not"
)
# What ledgers of earlier versions say for the same; theirs are read on.
SAME_ADJACENCY = {"add or remove one patient; the number of patients of a site is public": PATIENT_ADJACENCY}
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
        roles: train, val or test by patient (any name that is always the same). A patient keeps the role that the
            ledger first saw: what it counts for those who train is not all that was said of one who was tested before.
    """

    def __init__(
        self,
        file: Path,
        site: str,
        *,
        unit: str = PATIENT,
        adjacency: str = PATIENT_ADJACENCY,
        roles: Mapping[str, str] | None = None,
    ) -> None:
        self.file = file
        self.lock = file.with_name(f"{file.name}.lock")
        self._head = {"site": site, "unit": unit, "adjacency": adjacency}
        self._roles = dict(roles or {})

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
        return self._content()[0]

    def _content(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """The reservations and the roles of the patients."""
        durable = self._durable()  # before the ledger, which only grows
        records, roles = self._read() if self.file.exists() else ([], {})
        if len(records) < durable:
            raise LedgerError(
                f"{self.file}: holds {len(records)} entries, but {durable} were written ({self.lock.name}). It was "
                "deleted, cut or replaced by an old copy; restore it, or the epsilon would be too small."
            )
        return records, roles

    def hold_roles(self) -> None:
        """Write down who has which role, durably, before anything about these patients leaves.

        Raises:
            LedgerError: as `reserve`.
            OSError: the disk refuses; nothing may be released.
        """
        if self._roles.items() - self._content()[1].items():
            self._append([])

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
        self._append([record])

    def _append(self, more: list[dict[str, Any]]) -> None:
        if not self.file.parent.is_dir():
            private_folder(self.file.parent)
        with self._locked() as lock:
            records, roles = self._content()
            records, roles = [*records, *more], roles | self._roles
            content = {**self._head, **({"roles": roles} if roles else {}), "entries": records}
            write_text(self.file, json.dumps(content, indent=1, allow_nan=False), True)
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

    def _read(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        try:
            found = read_json(self.file)
            head = {key: found[key] for key in self._head}
            head["adjacency"] = SAME_ADJACENCY.get(head["adjacency"], head["adjacency"])
            records: list[dict[str, Any]] = found["entries"]
            roles: dict[str, str] = found.get("roles", {})
            if not isinstance(records, list) or not isinstance(roles, dict):
                raise TypeError("entries are not a list, or roles not a mapping")
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
        self._check_roles(roles)
        return records, roles

    def _check_roles(self, known: Mapping[str, str]) -> None:
        changed = sorted(
            f"{known[patient]} to {role}"
            for patient, role in self._roles.items()
            if known.get(patient, role) != role
        )
        if changed:
            which = ", ".join(f"{changed.count(change)} from {change}" for change in dict.fromkeys(changed))
            raise LedgerError(
                f"{self.file}: {len(changed)} patients have changed their role since it began ({which}), so its "
                "entries are not all that was released about them. Split the patients as before (partition.seed, val, "
                "test, fold, holdout); a new ledger would be right only for other patients."
            )
