"""A port here that is a port there: many at once, whole, and there again after a cut."""

from __future__ import annotations

import http.client
import http.server
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from cloudtrain.errors import AuthenticationFailed, ConnectError, HostKeyMismatch, UsageError
from cloudtrain.events import Event, Note, Silent
from cloudtrain.ssh import keys
from cloudtrain.ssh.remote import Remote, connect
from cloudtrain.ssh.tunnel import Forward, Tunnel
from tests.support.sshd import Sshd, free_port

BODY = bytes(range(256)) * 20_000
SOON = 20.0


class Page(http.server.BaseHTTPRequestHandler):
    """`/big` is 5 MB, `/half` promises 5 MB, sends some and waits; all else echoes its path."""

    half_sent: ClassVar[threading.Event] = threading.Event()
    go_on: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        body = BODY if self.path in ("/big", "/half") else self.path.encode()
        self.send_response(200)
        if self.path != "/half":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/half":
            self.wfile.write(body[:1000])
            self.half_sent.set()
            self.go_on.wait(SOON)
            return
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        return


class Web(http.server.ThreadingHTTPServer):
    request_queue_size = 128


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), thread


@pytest.fixture
def web() -> Iterator[int]:
    """A web server behind the machine's loopback."""
    Page.half_sent.clear()
    Page.go_on.clear()
    with Web(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        Page.go_on.set()
        server.shutdown()
        thread.join()


@dataclass
class Heard:
    """What was reported; `lost` is set at the first loss."""

    notes: list[str] = field(default_factory=list[str])
    lost: threading.Event = field(default_factory=threading.Event)

    def emit(self, event: Event) -> None:
        assert isinstance(event, Note)
        self.notes.append(event.text)
        if "lost" in event.text:
            self.lost.set()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def tunnel(sshd: Sshd, web: int, heard: Heard) -> Iterator[Tunnel]:
    with Tunnel(Forward(0, web), connect=lambda: connect(sshd.target), reporter=heard) as opened:
        opened.serve()
        yield opened


def get(tunnel: Tunnel, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{tunnel.local_port}{path}", timeout=SOON) as answer:
        return bytes(answer.read())


def test_fifty_at_once(sshd: Sshd, tunnel: Tunnel) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(get, [tunnel] * 50, [f"/{n}" for n in range(50)]))
    assert answers == [f"/{n}".encode() for n in range(50)]
    assert sshd.handshakes() == 1


def test_five_megabytes(tunnel: Tunnel) -> None:
    assert get(tunnel, "/big") == BODY


def rest(sock: socket.socket) -> bytes:
    """Read to the end."""
    said = b""
    while data := sock.recv(1 << 16):
        said += data
    return said


def echo_after_the_end(listener: socket.socket) -> None:
    """Answer only when the other side has said everything."""
    sock, _ = listener.accept()
    with sock:
        said = b""
        while data := sock.recv(1 << 16):
            said += data
        sock.sendall(said[::-1])


def test_half_close(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=echo_after_the_end, args=(listener,))
        thread.start()
        forward = Forward(0, listener.getsockname()[1])
        with Tunnel(forward, connect=lambda: connect(sshd.target), reporter=Silent()) as tunnel:
            tunnel.serve()
            with socket.create_connection(("127.0.0.1", tunnel.local_port), SOON) as sock:
                sock.sendall(BODY)
                sock.shutdown(socket.SHUT_WR)
                answer = b""
                while data := sock.recv(1 << 16):
                    answer += data
        thread.join()
    assert answer == BODY[::-1]


def never() -> Remote:
    raise AssertionError("nothing may be connected")


@pytest.mark.parametrize("kind", ["busy", "too big"])
def test_a_port_that_cannot_be_had(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if kind == "busy" else 70_000
        says = "is busy" if kind == "busy" else "cannot be taken"
        tunnel = Tunnel(Forward(port, 1), connect=never, reporter=Silent())
        with pytest.raises(UsageError, match=says) as caught:
            tunnel.bind()
        assert "--port" in caught.value.hint
        tunnel.close()


def test_a_port_is_free_again_and_closing_twice_is_fine(sshd: Sshd, web: int) -> None:
    port = free_port()
    for _ in range(2):
        tunnel = Tunnel(Forward(port, web), connect=lambda: connect(sshd.target), reporter=Silent())
        with tunnel:
            tunnel.serve()
            assert tunnel.local_port == port
            assert get(tunnel, "/x") == b"/x"
        tunnel.close()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_closing_what_never_served() -> None:
    tunnel = Tunnel(Forward(0, 1), connect=never, reporter=Silent())
    tunnel.bind()
    assert tunnel.local_port > 0
    tunnel.close()


def test_closing_ends_what_is_open(tunnel: Tunnel) -> None:
    with socket.create_connection(("127.0.0.1", tunnel.local_port), SOON) as sock:
        sock.sendall(b"GET /half HTTP/1.0\r\n\r\n")
        assert Page.half_sent.wait(SOON)
        tunnel.close()
        with pytest.raises(ConnectionError):
            rest(sock)


def test_nobody_listens_there(sshd: Sshd, heard: Heard) -> None:
    port = free_port()
    with Tunnel(Forward(0, 1), connect=lambda: connect(sshd.target), reporter=heard) as tunnel:
        tunnel.serve(port)
        for _ in range(3):
            with pytest.raises((http.client.RemoteDisconnected, OSError)):
                get(tunnel, "/x")
        with socket.create_server(("127.0.0.1", port)) as listener:
            thread = threading.Thread(target=echo_after_the_end, args=(listener,))
            thread.start()
            with socket.create_connection(("127.0.0.1", tunnel.local_port), SOON) as sock:
                sock.sendall(b"ab")
                sock.shutdown(socket.SHUT_WR)
                assert sock.recv(10) == b"ba"
            thread.join()
    assert heard.notes == []


def test_a_cut_line_is_made_again(sshd: Sshd, tunnel: Tunnel, heard: Heard) -> None:
    for _ in range(3):
        assert get(tunnel, "/x") == b"/x"
        sshd.drop_connections()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(get, [tunnel] * 16, ["/y"] * 16)) == {b"/y"}
    assert sshd.handshakes() == 4  # one of them connected for all
    assert heard.notes[:2] == [
        "the tunnel's connection was lost; connecting again",
        "the tunnel is back",
    ]


def test_half_an_answer_does_not_look_whole(sshd: Sshd, tunnel: Tunnel) -> None:
    with socket.create_connection(("127.0.0.1", tunnel.local_port), SOON) as sock:
        sock.sendall(b"GET /half HTTP/1.0\r\n\r\n")
        assert Page.half_sent.wait(SOON)
        sshd.drop_connections()
        with pytest.raises(ConnectionError):
            rest(sock)


def test_a_stopped_server_is_waited_for(sshd: Sshd, tunnel: Tunnel, heard: Heard) -> None:
    sshd.stop()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(get, tunnel, "/x")
        assert heard.lost.wait(SOON)
        assert not answer.done()
        sshd.start()
        assert answer.result(SOON) == b"/x"
    assert tunnel.failure is None


def test_closing_while_it_waits(sshd: Sshd, tunnel: Tunnel, heard: Heard) -> None:
    sshd.stop()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(get, tunnel, "/x")
        assert heard.lost.wait(SOON)
        tunnel.close()
        assert isinstance(answer.exception(SOON), (OSError, http.client.HTTPException))


def other_host_key(sshd: Sshd) -> None:
    sshd.host_key = keys.generate("somebody else")


def other_user_key(sshd: Sshd) -> None:
    sshd.user_key = keys.generate("somebody else")


@pytest.mark.parametrize(
    ("change", "kind"), [(other_host_key, HostKeyMismatch), (other_user_key, AuthenticationFailed)]
)
def test_what_will_not_change_is_not_tried_again(
    sshd: Sshd, tunnel: Tunnel, heard: Heard, change: Callable[[Sshd], None], kind: type[ConnectError]
) -> None:
    sshd.stop()
    change(sshd)
    sshd.start()
    before = sshd.log.read_text().count("Connection from")
    for _ in range(3):
        with pytest.raises((http.client.HTTPException, OSError)):
            get(tunnel, "/x")
    with pytest.raises(kind):
        tunnel.serve_until(threading.Event())
    assert isinstance(tunnel.failure, kind)
    assert sshd.log.read_text().count("Connection from") <= before + 2  # the fixture's own look, and ours
    assert heard.notes == ["the tunnel's connection was lost; connecting again"]


def test_a_line_lost_for_too_long_is_given_up(sshd: Sshd, web: int) -> None:
    now = iter(range(0, 100_000, 400))
    tunnel = Tunnel(
        Forward(0, web),
        connect=lambda: connect(sshd.target),
        reporter=Silent(),
        clock=lambda: float(next(now)),
    )
    with tunnel:
        tunnel.serve()
        sshd.stop()
        with pytest.raises((http.client.HTTPException, OSError)):
            get(tunnel, "/x")
        with pytest.raises(ConnectError, match="does not answer"):
            tunnel.serve_until(threading.Event())


def test_a_user_error_while_connecting_again_is_its_end(sshd: Sshd, tunnel: Tunnel) -> None:
    (sshd.folder / "key").unlink()
    sshd.drop_connections()
    with pytest.raises((http.client.HTTPException, OSError)):
        get(tunnel, "/x")
    with pytest.raises(UsageError, match="is missing"):
        tunnel.serve_until(threading.Event())


def test_serving_until_told(tunnel: Tunnel) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=tunnel.serve_until, args=(stop,))
    thread.start()
    assert get(tunnel, "/x") == b"/x"
    stop.set()
    thread.join(SOON)
    assert not thread.is_alive()
