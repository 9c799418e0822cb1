"""The training on the machine: started under screen, watched, followed, ended.

A session is one folder of small files on the machine: who supervises it, when it
began, how it ended. Everything here reads and writes those files by scripts of
bash and coreutils, one round trip a question, so that any terminal, today's or
tomorrow's, finds the same answer. Nothing here knows of clouds, prices or of
bringing files home.
"""

from cloudtrain.training.command import build_command, task_of
from cloudtrain.training.follow import follow
from cloudtrain.training.progress import guard_status, parse_results, status
from cloudtrain.training.services import ensure_jupyter, ensure_tensorboard, stop_services
from cloudtrain.training.session import attach_command, sessions, start, stop

__all__ = [
    "attach_command",
    "build_command",
    "ensure_jupyter",
    "ensure_tensorboard",
    "follow",
    "guard_status",
    "parse_results",
    "sessions",
    "start",
    "status",
    "stop",
    "stop_services",
    "task_of",
]
