"""Sending on a channel so that nothing ever comes after the channel's end.

paramiko decides under the channel's lock that it is open and sends after it let go. When the
command ends at that moment, its own thread says so in between, and OpenSSH answers the late
message by ending the whole connection ("data packet referred to nonexistent channel").
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import paramiko

DATA = b"\x5e"
"""SSH_MSG_CHANNEL_DATA, RFC 4254, 9."""


def send_all(raw: paramiko.Channel, data: bytes | memoryview) -> None:
    """Send all of `data`. Raises `OSError` when the channel is closed, `TimeoutError` on a stall."""
    import paramiko

    channel: Any = raw
    view = memoryview(data)
    while view:
        with channel.lock:
            _check_open(channel)
            size = channel._wait_for_send_window(len(view))  # noqa: SLF001 - nothing public keeps the order
            _check_open(channel)
        message: Any = paramiko.Message()
        message.add_byte(DATA)
        message.add_int(channel.remote_chanid)
        message.add_string(bytes(view[:size]))
        _send(channel, message)
        view = view[size:]


def send_end(raw: paramiko.Channel) -> None:
    """Say that nothing more comes, once. Raises `OSError` when the channel is closed."""
    channel: Any = raw
    with channel.lock:
        message = channel._send_eof()  # noqa: SLF001 - it notes that it was said
    if message is not None:
        _send(channel, message)


def _send(channel: Any, message: Any) -> None:  # noqa: ANN401
    """Send a message while the channel is open.

    While new keys are agreed on, the channel's lock is let go: whoever reads the answer may need it.
    """
    transport = channel.transport
    end = time.monotonic() + transport.clear_to_send_timeout
    while True:
        with channel.lock:
            _check_open(channel)
            with transport.clear_to_send_lock:
                if transport.clear_to_send.is_set():
                    transport._send_message(message)  # noqa: SLF001
                    return
        transport.clear_to_send.wait(0.1)
        if not transport.active or time.monotonic() > end:
            raise OSError("the connection is gone")


def _check_open(channel: Any) -> None:  # noqa: ANN401
    if channel.closed or channel.transport is None:
        raise OSError("the channel is closed")
