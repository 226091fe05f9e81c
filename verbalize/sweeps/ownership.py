"""Whose trial is whose, and what becomes of a killed worker's: nothing is lost, nothing is counted twice.

Optuna's heartbeats exist for databases only, so ownership is kept in the trials' own attributes and works alike in a
journal and in PostgreSQL:

- A worker signs its trial (machine, process, the process's start) and gives signs of life. On the same machine a dead
  process is seen at once. On others a trial is lost when its sign has not changed for `lost_after_s` of the *watcher's*
  clock, so clocks need not agree.
- A lost trial is closed (state FAIL without an `error`) and queued again once, with the parameters it had. Its stages
  lie in content-addressed folders and go on from their checkpoints.
- Whether a trial is in the budget, and which of two successors counts, follows from the trial numbers that the storage
  hands out, so workers that decide at the same moment decide alike.
"""

import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

WORKER, BEAT, RETRY_OF, ORIGIN, REFUSED, ERROR = "worker", "beat", "retry_of", "origin", "refused", "error"
UNSIGNED_S = 10.0
"""A trial is signed right after it is made: one without a signature for so long was killed in between."""
MOST_RETRIES = 3
"""A configuration that took its worker down so often is left alone."""


def signature() -> dict[str, Any]:
    """This process, unmistakably: a pid comes again, with its start time on one boot of one machine it does not."""
    return {"machine": machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def machine() -> str:
    """This boot of this machine, or this container."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        lambda: str(Path("/proc/self/ns/pid").readlink()),
    ):
        try:
            parts.append(read())
        except OSError:
            parts.append("-")
    return " ".join(parts)


def alive(pid: int, started: str) -> bool:
    """Whether the process that signed still runs here."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(pid) == started


class Watch:
    """Tells lost trials from running ones; remembers when each one's sign of life last changed."""

    def __init__(self, lost_after_s: float) -> None:
        self._lost_after_s = lost_after_s
        self._seen: dict[int, tuple[Any, float]] = {}

    def lost(self, trial: FrozenTrial, now: float | None = None) -> bool:
        """True when the process that runs this RUNNING trial is gone. `now`: seconds of any steady clock."""
        now = time.monotonic() if now is None else now
        owner: Mapping[str, Any] | None = trial.user_attrs.get(WORKER)
        if owner is not None and owner["machine"] == machine():
            return not alive(owner["pid"], owner["started"])
        sign = (owner is not None, trial.user_attrs.get(BEAT))
        last, since = self._seen.setdefault(trial.number, (sign, now))
        if sign != last:
            self._seen[trial.number] = (sign, now)
            return False
        patience = self._lost_after_s if owner is not None else min(UNSIGNED_S, self._lost_after_s)
        return now - since > patience


class Heartbeat:
    """Signs a trial and keeps giving signs of life until closed; `taken` is set when others took the trial for lost."""

    def __init__(self, trial: optuna.Trial, lost_after_s: float) -> None:
        trial.set_user_attr(WORKER, signature())
        self.taken = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(trial, lost_after_s / 6), daemon=True)
        self._thread.start()

    def __enter__(self) -> "Heartbeat":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, trial: optuna.Trial, every: float) -> None:
        beat = 0
        while not self._stop.wait(every):
            beat += 1
            try:
                trial.set_user_attr(BEAT, beat)
            except UpdateFinishedTrialError:
                self.taken.set()
                return


def is_lost(trial: FrozenTrial) -> bool:
    """Closed because its worker was gone: neither a configuration that failed nor one too many."""
    return trial.state == TrialState.FAIL and not {ERROR, REFUSED} & trial.user_attrs.keys()


def reclaim(study: optuna.Study, watch: Watch) -> None:
    """Close trials whose worker is gone, and queue each of them again once."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if watch.lost(trial):
            close(study, trial.number)
    trials = study.get_trials(deepcopy=False)
    succeeded = {trial.user_attrs[RETRY_OF] for trial in trials if RETRY_OF in trial.user_attrs}
    for trial in trials:
        if not is_lost(trial) or trial.number in succeeded:
            continue
        origin = trial.user_attrs.get(ORIGIN, trial.number)
        if (
            sum(is_lost(other) for other in trials if other.user_attrs.get(ORIGIN, other.number) == origin)
            > MOST_RETRIES
        ):
            continue
        study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={RETRY_OF: trial.number, ORIGIN: origin},
                system_attrs=trial.system_attrs,
                intermediate_values=trial.intermediate_values,
            )
        )


def close(study: optuna.Study, number: int) -> bool:
    """Set a trial to FAIL. False when it had ended already."""
    try:
        study.tell(number, state=TrialState.FAIL)
    except (UpdateFinishedTrialError, ValueError):  # another worker was faster
        return False
    return True


def place(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """The trial's place in the budget, from 0: how many configurations were proposed before it (or before the one it
    does again)."""
    origin = trial.user_attrs.get(ORIGIN, trial.number)
    return sum(proposed(other) for other in trials if other.number < origin)


def proposed(trial: FrozenTrial) -> bool:
    """Whether this trial was a new configuration, rather than one done again or one too many."""
    return RETRY_OF not in trial.user_attrs and REFUSED not in trial.user_attrs


def admitted(trials: Sequence[FrozenTrial], trial: FrozenTrial, budget: int) -> bool:
    """Whether this trial may run: inside the budget, and the first successor of the one it does again."""
    mine = trial.user_attrs.get(RETRY_OF)
    if mine is not None and any(t.number < trial.number and t.user_attrs.get(RETRY_OF) == mine for t in trials):
        return False
    return place(trials, trial) < budget


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; "dead" for a zombie, "" where that cannot be read."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "dead" if fields[0] in "ZX" else fields[19]
