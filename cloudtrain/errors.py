"""The one tree of errors that cloudtrain raises on purpose.

    CloudtrainError
    ├── UsageError             exit 2   a flag or an argument that cannot work
    │   └── ConfigError        exit 2   cloudtrain.yaml, every problem at once
    ├── CloudError             exit 3   the cloud said no, or cannot be asked
    │   ├── CredentialsError            none, wrong or expired
    │   ├── AuthorizationError          valid credentials without the right
    │   ├── AccountError                the account itself: not verified, not enabled, free plan
    │   ├── QuotaError                  the account's limit, not the cloud's
    │   ├── CapacityError               the cloud has none now; later or elsewhere
    │   ├── GoneError                   it existed and exists no more
    │   └── LostAnswerError             nobody knows whether it took effect
    ├── ConnectError           exit 4   the machine cannot be reached or trusted
    │   ├── EndedError                  it was ended: nobody will ever answer there
    │   ├── HostKeyMismatch             somebody else answered; nothing was sent
    │   └── AuthenticationFailed        the machine refused our key
    ├── StepError              exit 5   a step on the machine failed
    │   └── DidNotConverge              it ran, and its check still fails
    ├── TransferError          exit 6   bytes did not arrive, or not whole
    │   └── TornCheckpoint              a checkpoint whose container is not whole
    └── RefusedError           exit 7   possible, but it would lose something

Every error carries a message (what happened), a hint (what to do next) and an
exit code. Messages start in lower case; commands stand in backticks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file the user wrote. `line` is 1-based, 0 when unknown."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.message}"


class CloudtrainError(Exception):
    """Anything cloudtrain says no with. Subclasses fix the exit code."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(CloudtrainError):
    """A flag, an argument or a folder that cannot work."""

    exit_code = 2


class ConfigError(UsageError):
    """All problems of a configuration at once."""

    def __init__(self, problems: tuple[Problem, ...], *, hint: str = "") -> None:
        super().__init__("\n".join(str(problem) for problem in problems), hint=hint)
        self.problems = problems


class CloudError(CloudtrainError):
    """The cloud refused, or did not answer. `code` is the cloud's own word."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class CredentialsError(CloudError):
    """No credentials, wrong ones, or expired ones."""


class AuthorizationError(CloudError):
    """The credentials are good, the right is missing."""


class AccountError(CloudError):
    """The account as a whole may not do this yet; no right and no quota would change that."""


class QuotaError(CloudError):
    """The account's own limit: waiting does not help, asking does."""


class CapacityError(CloudError):
    """The cloud has no such machine now: later, or elsewhere."""


class GoneError(CloudError):
    """It existed and exists no more."""


class LostAnswerError(CloudError):
    """The answer to a change was lost: it may have taken effect."""


class ConnectError(CloudtrainError):
    """The machine cannot be reached."""

    exit_code = 4


class EndedError(ConnectError):
    """The machine was ended, and will never answer again."""


class HostKeyMismatch(ConnectError):
    """Another key answered than the one pinned. Raised before authentication."""


class AuthenticationFailed(ConnectError):
    """The machine refused our key."""


class StepError(CloudtrainError):
    """A step on the machine failed."""

    exit_code = 5


class DidNotConverge(StepError):
    """A step reported success and its own check still fails."""


class TransferError(CloudtrainError):
    """Bytes did not arrive, or not whole."""

    exit_code = 6


class TornCheckpoint(TransferError):
    """A checkpoint whose container format is not whole."""


class RefusedError(CloudtrainError):
    """It could be done, but it would lose something the user did not give up."""

    exit_code = 7
