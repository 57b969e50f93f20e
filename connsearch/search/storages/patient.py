"""A storage that may go away for a while: every call is repeated until it is back, or patience ends.

A call whose answer was lost may have been done. Attributes and parameters can be written twice; a trial
is looked for by its attributes before it is created again; a trial that is finished with the values that
were to be told is told.

A thread may have a trial of its own: what it has read of it is not read again, and what it writes of it in
a block is written together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from connsearch.errors import StudyError
from connsearch.search.storages.bulk import Writes, write
from connsearch.search.storages.lease import LeaseLostError
from connsearch.search.storages.own import Own, among, copied
from connsearch.text import duration, first_line

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class PatientStorage(BaseStorage):
    """Hands every call on, and repeats it while the storage is away.

    Attributes:
        outages: How often the storage went away so far.
        patience: Seconds after which a call gives up; 0 to give up at once.
        say: Whom to tell that the storage is away, and that it is back.

    Args:
        inner: The storage.
        label: How messages name it.
    """

    def __init__(self, inner: BaseStorage, label: str) -> None:
        self._inner, self._label = inner, label
        self._state = threading.Lock()
        self._away_since: float | None = None
        self._thread = threading.local()
        self.outages = 0
        self.patience = 0.0
        self.say: Callable[[str], None] = lambda text: None

    def _try(self, call: Callable[[bool], T]) -> T:
        """Return what a call returns, which is told whether it was tried before."""
        again, pause, start = False, FIRST_PAUSE, time.monotonic()
        while True:
            try:
                answer = call(again)
            except Exception as error:
                if (full := full_disk(error)) is not None:
                    raise StudyError(
                        f"{self._label}: cannot be written: {full}; what was finished is in it: "
                        "make room and run the same command again"
                    ) from error
                reason = reason_away(error)
                if reason is None:
                    raise
                waited = time.monotonic() - start
                if waited >= self.patience:
                    after = f" for {duration(waited)}" if self.patience else ""
                    raise StudyError(f"{self._label}: cannot be reached{after}: {reason}") from error
                self._went_away(reason)
            else:
                self._came_back()
                return answer
            time.sleep(pause)
            again, pause = True, min(2 * pause, LONGEST_PAUSE)

    def _went_away(self, reason: str) -> None:
        with self._state:
            self.outages += 1
            first = self._away_since is None
            self._away_since = self._away_since or time.monotonic()
        if first:
            self.say(f"{self._label} is away ({reason}): waiting for it, up to {duration(self.patience)}")

    def _came_back(self) -> None:
        if self._away_since is None:
            return
        with self._state:
            since, self._away_since = self._away_since, None
        if since is not None:
            self.say(f"{self._label} is back after {duration(time.monotonic() - since)}")

    # ---- a trial of a thread's own -----------------------------------------------------------------

    @contextmanager
    def own(self, study_id: int, trial_id: int) -> Iterator[FrozenTrial]:
        """Let this thread be the one that writes to a trial, which is read now, and not again."""
        trials = self.get_all_trials(study_id, deepcopy=False)
        trial = next(trial for trial in trials if trial._trial_id == trial_id)
        self._thread.own = Own(copied(trial), {study_id: trials})
        try:
            yield trial
        finally:
            self._thread.own = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what this thread writes of its own trial at the end, all of it or nothing.

        Until then the trials of a study are those that were there when they were read first. An error of
        the trial's undoes nothing that was written before it; where the storage fails, the trial is lost, or
        the thread is interrupted, nothing is written.

        Raises:
            UpdateFinishedTrialError, NotWaitingError: at the end, as `connsearch.search.storages.bulk.write`.
            StudyError: if the storage cannot be written.
        """
        own = self._thread.own
        if own.writes is not None:  # a block in a block
            yield
            return
        own.writes = Writes()
        try:
            yield
        except Exception as error:
            if not isinstance(error, StudyError | LeaseLostError):
                self._write(own)
            raise
        else:
            self._write(own)
        finally:
            own.writes = None
            own.trials.clear()

    def _write(self, own: Own) -> None:
        writes = own.writes
        if not writes:
            return

        def send(again: bool) -> None:
            try:
                write(self._inner, own.trial._trial_id, writes)
            except UpdateFinishedTrialError:
                if not (again and writes.states and self._is_told(own.trial._trial_id, *writes.states[-1])):
                    raise

        self._try(send)

    def _is_told(self, trial_id: int, state: TrialState, values: Sequence[float] | None) -> bool:
        trial = self._inner.get_trial(trial_id)
        return trial.state == state and list(trial.values or ()) == list(values or ())

    def _owned(self, trial_id: int) -> Own | None:
        own: Own | None = getattr(self._thread, "own", None)
        return own if own is not None and own.trial._trial_id == trial_id else None

    # ---- studies -----------------------------------------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """See `BaseStorage`."""
        return self._try(lambda again: self._inner.create_new_study(directions, study_name))

    def delete_study(self, study_id: int) -> None:
        """See `BaseStorage`."""
        self._try(lambda again: self._inner.delete_study(study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._try(lambda again: self._inner.set_study_user_attr(study_id, key, value))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        self._try(lambda again: self._inner.set_study_system_attr(study_id, key, value))

    def get_study_id_from_name(self, study_name: str) -> int:
        """See `BaseStorage`."""
        return self._try(lambda again: self._inner.get_study_id_from_name(study_name))

    def get_study_name_from_id(self, study_id: int) -> str:
        """See `BaseStorage`."""
        return self._try(lambda again: self._inner.get_study_name_from_id(study_id))

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """See `BaseStorage`."""
        return self._try(lambda again: self._inner.get_study_directions(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """See `BaseStorage`."""
        return self._try(lambda again: self._inner.get_study_user_attrs(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """See `BaseStorage`."""
        return self._try(lambda again: self._inner.get_study_system_attrs(study_id))

    def get_all_studies(self) -> list[FrozenStudy]:
        """See `BaseStorage`."""
        return self._try(lambda again: self._inner.get_all_studies())

    # ---- trials ------------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """See `BaseStorage`; attributes of the template that nobody else writes make it safe to repeat.

        Raises:
            StudyError: if the storage stays away, or came back and the template has no attributes to tell
                by whether the trial was created.
        """

        def create(again: bool) -> int:
            if again:
                attrs = template_trial.user_attrs if template_trial is not None else {}
                if not attrs:
                    raise StudyError(f"{self._label}: went away while a trial was created: run again")
                for trial in self._inner.get_all_trials(study_id, deepcopy=False):
                    if trial.user_attrs == attrs:
                        return trial._trial_id
            return self._inner.create_new_trial(study_id, template_trial)

        return self._try(create)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """See `BaseStorage`."""
        own = self._owned(trial_id)
        if own is not None and own.param(param_name, param_value_internal, distribution):
            return
        self._try(
            lambda again: self._inner.set_trial_param(
                trial_id, param_name, param_value_internal, distribution
            )
        )

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """See `BaseStorage`."""
        return self._try(
            lambda again: self._inner.get_trial_id_from_study_id_trial_number(study_id, trial_number)
        )

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """See `BaseStorage`."""
        own = self._owned(trial_id)
        if own is not None and own.state_values(state, values):
            return True

        def tell(again: bool) -> bool:
            try:
                return self._inner.set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                if again and self._is_told(trial_id, state, values):
                    return True
                raise

        return self._try(tell)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """See `BaseStorage`."""
        self._try(lambda again: self._inner.set_trial_intermediate_value(trial_id, step, intermediate_value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        own = self._owned(trial_id)
        if own is not None and own.user_attr(key, value):
            return
        self._try(lambda again: self._inner.set_trial_user_attr(trial_id, key, value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """See `BaseStorage`."""
        own = self._owned(trial_id)
        if own is not None and own.system_attr(key, value):
            return
        self._try(lambda again: self._inner.set_trial_system_attr(trial_id, key, value))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """See `BaseStorage`."""
        own = self._owned(trial_id)
        if own is not None:
            return copied(own.trial)
        return self._try(lambda again: self._inner.get_trial(trial_id))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """See `BaseStorage`."""
        own: Own | None = getattr(self._thread, "own", None)
        if own is None or own.writes is None or deepcopy:
            return self._try(lambda again: self._inner.get_all_trials(study_id, deepcopy, states))
        if study_id not in own.trials:
            own.trials[study_id] = self._try(lambda again: self._inner.get_all_trials(study_id, False))
        return among(own.trials[study_id], states)

    def remove_session(self) -> None:
        """See `BaseStorage`."""
        self._inner.remove_session()


def patient(study: Study) -> PatientStorage:
    """Return the storage of a study that `connsearch.search.storages` opened."""
    storage = study._storage
    assert isinstance(storage, PatientStorage)
    return storage


def reason_away(error: BaseException) -> str | None:
    """Return why a storage could not be reached, in a line; None if the error is another one."""
    for cause in _causes(error):
        kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(cause).__mro__}
        if "grpc.RpcError" in kinds:
            code = getattr(cause, "code", lambda: None)()
            if getattr(code, "name", "") in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "INTERNAL"):
                return first_line(getattr(cause, "details", lambda: None)() or cause)
        if kinds & {"sqlalchemy.OperationalError", "sqlalchemy.InterfaceError"} or getattr(
            cause, "connection_invalidated", False
        ):
            return first_line(getattr(cause, "orig", None) or cause)
    return None


def full_disk(error: BaseException) -> str | None:
    """Return what a database says that cannot be written, in a line; None if the error is another one."""
    texts = (first_line(getattr(cause, "orig", None) or cause) for cause in _causes(error))
    return next((text for text in texts if "disk is full" in text or "readonly database" in text), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
