"""The HTTP client: its rate, its patience, and its silence about keys."""

import copy
import dataclasses
import json
import logging
import pickle
import socket
import threading
import time
import traceback
from email.utils import formatdate

import pytest
from fakes.tile_server import TRANSPORT_FAULTS, TileServer, tile_bytes
from hypothesis import given
from hypothesis import strategies as st

from crossview.errors import (
    ContentError,
    DownloadError,
    KeyMissingError,
    ProviderDownError,
    RefusedError,
)
from data_tools import fetch
from data_tools.fetch import Client, Secret, TokenBucket

TILE = (14, 8100, 5200)
KEY = "pk.eyJ1Ijoi-a+b/c=="


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def quick_client(rate_per_s=1000.0, **options):
    defaults = {"timeout_s": 0.3, "backoff_s": 0.01, "default_pause_s": 0.01}
    return Client(rate_per_s, **(defaults | options))


def address(server, tile=TILE):
    return server.root + "/{}/{}/{}".format(*tile)


# ---------------------------------------------------------------- the bucket


def turns(bucket, clock, waits_s):
    """Times at which turns were had, by somebody who waits as told and then idles."""
    times = []
    for idle_s in waits_s:
        while (wait_s := bucket.take()) > 0:
            clock.now_s += wait_s
        times.append(clock.now_s)
        clock.now_s += idle_s
    return times


@given(
    rate=st.floats(0.5, 200),
    idle=st.lists(st.floats(0, 0.5), min_size=2, max_size=60),
    window_s=st.floats(0.01, 5),
)
def test_in_any_time_there_are_at_most_rate_times_time_and_two_turns(rate, idle, window_s):
    clock = Clock()
    times = turns(TokenBucket(rate, clock=clock), clock, idle)
    for first in times:
        within = sum(first <= other <= first + window_s for other in times)
        assert within <= rate * window_s + 2 + 1e-6


def test_a_turn_taken_late_is_made_up_for_once():
    clock = Clock()
    bucket = TokenBucket(10, clock=clock)
    times = turns(bucket, clock, [0] * 20)
    assert times[-1] - times[0] == pytest.approx(1.9)
    clock.now_s += 60
    assert [bucket.take() > 0 for _ in range(3)] == [False, False, True]


def test_after_429_everyone_waits_and_the_rate_is_lower_and_comes_back():
    clock = Clock()
    bucket = TokenBucket(10, clock=clock)
    bucket.take()
    assert bucket.throttled(sent_s=clock.now_s, retry_after_s=7) >= 7
    assert bucket.take() >= 7
    assert bucket.current_rate_per_s() == pytest.approx(7)
    (first, second) = turns(bucket, clock, [0, 0])
    assert second - first == pytest.approx(1 / 7, rel=0.01)
    clock.now_s += fetch.RECOVERY_S
    assert bucket.current_rate_per_s() == 10


def test_many_429_at_once_slow_down_once():
    clock = Clock()
    bucket = TokenBucket(100, clock=clock)
    sent_s = clock.now_s
    clock.now_s += 0.1
    for _ in range(8):
        bucket.throttled(sent_s=sent_s, retry_after_s=1)
    assert bucket.current_rate_per_s() == pytest.approx(70)


def test_pauses_without_a_time_grow_and_begin_again_after_a_success():
    clock = Clock()
    bucket = TokenBucket(1e6, default_pause_s=1, clock=clock)

    def pause():
        clock.now_s += 1000
        return bucket.throttled(sent_s=clock.now_s, retry_after_s=None)

    assert [pause() for _ in range(3)] == pytest.approx([1, 2, 4], abs=1e-3)
    assert [pause() for _ in range(6)][-1] == pytest.approx(60, abs=1e-3)
    clock.now_s += 1000
    bucket.succeeded(sent_s=clock.now_s)
    assert pause() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_is_positive(rate):
    with pytest.raises(ValueError, match="positive"):
        TokenBucket(rate)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "120"}, 120),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": formatdate(1030, usegmt=True), "Date": formatdate(1000, usegmt=True)}, 30),
        ({"Retry-After": formatdate(1030, usegmt=True)}, 10),
        ({"Retry-After": formatdate(900, usegmt=True)}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_servers_clock(headers, seconds):
    assert fetch.retry_after_s(headers, now_s=1020) == seconds


# ---------------------------------------------------------------- answers and faults


def test_an_answer_has_the_servers_bytes_and_validators():
    with TileServer() as server, quick_client() as client:
        response = client.get(address(server))
        assert (response.status, response.body) == (200, tile_bytes(*TILE))
        assert response.content_type == "image/png"
        again = client.get(address(server), etag=response.etag)
        assert (again.status, again.body) == (304, b"")
        assert "crossview" in server.log[0].headers["User-Agent"]


def test_connections_are_kept():
    with TileServer() as server, quick_client(num_connections=1) as client:
        for _ in range(5):
            client.get(address(server))
        (manager,) = client._managers.values()
        pool = manager.connection_from_url(server.root)
        assert (pool.num_connections, pool.num_requests) == (1, 5)


@pytest.mark.parametrize("fault", TRANSPORT_FAULTS)
def test_a_fault_passes_and_the_answer_is_whole(fault):
    with TileServer(faults={TILE: [fault, fault]}) as server, quick_client() as client:
        assert client.get(address(server)).body == tile_bytes(*TILE)
        assert server.requests(TILE) == [fault, fault, "200"]


@pytest.mark.parametrize(
    ("deadline_factor", "min_bytes_per_s"), [(1e9, 512), (2, 0)], ids=["slowness", "deadline"]
)
def test_a_trickle_is_given_up(monkeypatch, deadline_factor, min_bytes_per_s):
    monkeypatch.setattr(fetch, "DEADLINE_FACTOR", deadline_factor)
    with (
        TileServer(faults={TILE: ["drip"]}) as server,
        quick_client(timeout_s=0.2, max_attempts=1, min_bytes_per_s=min_bytes_per_s) as client,
        pytest.raises(ProviderDownError, match=r"only \d+ bytes within"),
    ):
        client.get(address(server))


def test_what_is_not_accepted_is_asked_for_again():
    def check(response):
        if response.content_type == "text/html":
            raise ContentError("a page")

    with TileServer(faults={TILE: ["html"] * 2}) as server, quick_client() as client:
        assert client.get(address(server), check=check).body == tile_bytes(*TILE)
    with TileServer(faults={TILE: ["html"] * 9}) as server, quick_client() as client:
        with pytest.raises(ContentError, match="a page"):
            client.get(address(server), check=check)
        assert len(server.log) == client.max_attempts


def test_a_server_that_stays_broken_is_down_after_some_attempts():
    with TileServer(faults={TILE: ["502"] * 9}) as server, quick_client(max_attempts=3) as client:
        with pytest.raises(ProviderDownError, match=r"status 502, in 3 attempts") as raised:
            client.get(address(server))
        assert isinstance(raised.value, ConnectionError)
        assert len(server.log) == 3


def test_nobody_listening_is_down():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with quick_client(max_attempts=2) as client, pytest.raises(ProviderDownError, match="refused"):
        client.get(f"http://127.0.0.1:{port}/1/1/1")


def test_a_limit_is_not_a_fault_and_uses_up_no_attempt():
    faults = {TILE: ["429 with seconds"] * 5}
    with TileServer(faults=faults) as server, quick_client(max_attempts=1) as client:
        assert client.get(address(server)).status == 200


def test_429_for_ever_is_down(monkeypatch):
    monkeypatch.setattr(fetch, "MAX_THROTTLES", 3)
    with (
        TileServer(faults={TILE: ["429 with seconds"] * 9}) as server,
        quick_client() as client,
        pytest.raises(ProviderDownError, match="429, 4 times"),
    ):
        client.get(address(server))


def test_404_is_an_answer():
    with TileServer(absent=[TILE]) as server, quick_client() as client:
        assert client.get(address(server)).status == 404
        assert len(server.log) == 1


def test_only_http_is_fetched():
    with quick_client() as client, pytest.raises(ValueError, match="http or https"):
        client.get("file:///etc/passwd")


def test_a_body_may_not_be_endless():
    with (
        TileServer() as server,
        quick_client(max_bytes=100, max_attempts=1) as client,
        pytest.raises(ContentError, match="larger than 100 bytes"),
    ):
        client.get(address(server))


def test_closing_wakes_whoever_waits():
    client = quick_client()
    with TileServer() as server:
        client.bucket(server.root).throttled(sent_s=time.monotonic(), retry_after_s=60)
        raised = []

        def wait():
            with pytest.raises(DownloadError, match="closed"):
                client.get(address(server))
            raised.append(True)

        thread = threading.Thread(target=wait)
        thread.start()
        client.close()
        thread.join(timeout=10)
        assert raised
        assert server.log == []


class ScriptedServer:
    """Answers every connection with the next of some raw replies."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.requests = []

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.root = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.socket.close()
        self.thread.join()

    def _serve(self):
        for reply in self.replies:
            connection, _ = self.socket.accept()
            with connection:
                self.requests.append(connection.recv(65536).decode())
                first, rest = reply.replace("ROOT", self.root).split("\r\n", 1)
                connection.sendall(f"{first}\r\nConnection: close\r\n{rest}".encode())


def test_a_redirection_is_followed_and_takes_its_turn():
    moved = "HTTP/1.1 302 Found\r\nLocation: ROOT/there\r\nContent-Length: 0\r\n\r\n"
    answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with ScriptedServer(moved, answer) as server, quick_client() as client:
        assert client.get(f"{server.root}/here").body == b"ok"
        assert [line.split()[1] for line in server.requests] == ["/here", "/there"]


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_token_does_not_go_to_another_server(elsewhere):
    answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    moved = "HTTP/1.1 302 Found\r\nLocation: {}/there\r\nContent-Length: 0\r\n\r\n"
    with ScriptedServer(answer) as other, quick_client(max_attempts=1) as client:
        replies = [moved.format(other.root)] if elsewhere else [moved.format("ROOT"), answer]
        with ScriptedServer(*replies) as server:
            headers = {"Authorization": "OAuth abcdef", "Cookie": "a=b", "user-agent": "me abcdef"}
            client.get(f"{server.root}/here", headers=headers, etag='"e1"', last_modified="then")
            assert "authorization: oauth abcdef" in server.requests[0].lower()
            if not elsewhere:
                # the same server may know it
                assert "authorization: oauth abcdef" in server.requests[1].lower()
                client.get(f"{other.root}/there")
                return
        request = other.requests[0].lower()
    assert "abcdef" not in request
    assert "cookie" not in request
    assert f"user-agent: {fetch.USER_AGENT.lower()}" in request
    assert 'if-none-match: "e1"' in request
    assert "if-modified-since: then" in request


def test_a_redirection_to_a_port_that_is_none_is_a_fault():
    moved = "HTTP/1.1 302 Found\r\nLocation: http://a.example:x/\r\nContent-Length: 0\r\n\r\n"
    with (
        ScriptedServer(moved) as server,
        quick_client(max_attempts=1) as client,
        pytest.raises(ContentError, match="redirects to"),
    ):
        client.get(f"{server.root}/here")


def test_a_redirection_to_something_else_is_refused():
    moved = "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"
    with (
        ScriptedServer(moved) as server,
        quick_client() as client,
        pytest.raises(RefusedError, match="not followed"),
    ):
        client.get(f"{server.root}/here")


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_refusal_is_not_asked_again(status):
    with ScriptedServer(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n") as server:
        with quick_client() as client, pytest.raises(RefusedError, match=status[:3]):
            client.get(f"{server.root}/x")
        assert len(server.requests) == 1


def test_a_server_that_is_closed_for_today_is_not_waited_for():
    reply = "HTTP/1.1 429 No\r\nRetry-After: 86400\r\nContent-Length: 0\r\n\r\n"
    with (
        ScriptedServer(reply) as server,
        quick_client() as client,
        pytest.raises(ProviderDownError, match="wait 86400 s"),
    ):
        client.get(f"{server.root}/x")


def test_whoever_waits_for_a_server_that_closes_is_told_and_it_opens_again():
    clock = Clock()
    bucket = TokenBucket(1, clock=clock)
    for _ in range(3):
        bucket.take()
    raised = threading.Event()

    def wait():
        with pytest.raises(fetch.ClosedForNowError, match="at noon"):
            bucket.acquire()
        raised.set()

    # the clock stands still, so nothing but the message ends the waiting
    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    bucket.shut(1000, "at noon")
    bucket.shut(10, "earlier")
    assert raised.wait(10)
    with pytest.raises(fetch.ClosedForNowError, match="at noon"):
        bucket.take()
    clock.now_s += 1000
    assert bucket.take() == 0


def test_the_proxy_of_the_environment_is_used_and_its_password_not_told(monkeypatch):
    answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ScriptedServer(answer) as server, quick_client(max_attempts=1) as client:
        monkeypatch.setenv("http_proxy", server.root.replace("//", "//me:pa55word@"))
        assert client.get("http://tiles.example/1/2/3").body == b"ok"
        (request,) = server.requests
        assert request.startswith("GET http://tiles.example/1/2/3 HTTP/1.1")
        assert "proxy-authorization: basic bwu6cge1nxdvcmq=" in request.lower()
    with quick_client(max_attempts=1) as client:
        with pytest.raises(ProviderDownError) as raised:
            client.get("http://tiles.example/1/2/3")
        assert "pa55word" not in "".join(traceback.format_exception(raised.value))


# ---------------------------------------------------------------- keys


def test_a_secret_shows_itself_to_nobody():
    secret = Secret(KEY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", "%s" % secret]  # noqa: UP031
    assert all(KEY not in text for text in shown)
    assert secret.reveal() == KEY
    assert copy.deepcopy({"key": secret})["key"] is secret
    with pytest.raises(TypeError, match="not written"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps({"key": secret})


LOGIN = "bob:s3cr%40t@w0rd"
"""The password is s3cr@t@w0rd: one @ is written as it should be, the other is not."""


@pytest.mark.parametrize(
    ("login", "token"),
    [
        (LOGIN, "Ym9iOnMzY3JAdEB3MHJk"),
        ("b%C3%B6b:", "YsO2Yjo="),
        ("only-a-token", "b25seS1hLXRva2VuOg=="),
    ],
)
def test_a_login_in_a_url_is_told_in_a_header(login, token):
    answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with ScriptedServer(answer, answer) as server, quick_client(max_attempts=1) as client:
        url = f"{server.root}/1/2@2x.png".replace("//", f"//{login}@", 1)
        assert client.get(url).body == b"ok"
        client.get(url, headers={"Authorization": "mine"})
    assert server.requests[0].startswith("GET /1/2@2x.png HTTP/1.1")
    assert f"Authorization: Basic {token}\r\n" in server.requests[0]
    assert f"Host: {server.root[7:]}\r\n" in server.requests[0]
    assert "Authorization: mine\r\n" in server.requests[1]


@pytest.mark.parametrize("target", ["OTHER/x", "http://eve:pw@OTHER/x"])
def test_a_login_does_not_follow_to_another_server(target):
    answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    with ScriptedServer(answer) as other:
        host = other.root.removeprefix("http://")
        target = target.replace("OTHER", host if "eve" in target else other.root)
        moved = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n"
        with ScriptedServer(moved) as server, quick_client(max_attempts=1) as client:
            client.get(f"{server.root}/x".replace("//", f"//{LOGIN}@", 1))
    assert "authorization" in server.requests[0].lower()
    assert other.requests[0].startswith("GET /x ")
    assert "authorization" not in other.requests[0].lower()


@pytest.mark.parametrize(
    "fault", ["500", "reset", "stall", "truncated", "403", "429 for a while", "429 with seconds"]
)
def test_no_log_and_no_error_holds_a_password(fault, caplog, monkeypatch):
    monkeypatch.setattr(fetch, "LONGEST_PAUSE_S", 500)
    monkeypatch.setattr(fetch, "MAX_THROTTLES", 2)
    caplog.set_level(logging.DEBUG)
    with (
        TileServer(faults={TILE: [fault] * 3}) as server,
        quick_client(timeout_s=0.1, max_attempts=2) as client,
        pytest.raises(DownloadError) as raised,
    ):
        client.get(address(server).replace("//", f"//{LOGIN}@", 1))
    shown = "".join(traceback.format_exception(raised.value)) + caplog.text
    # this file's own lines are in the traceback
    shown = "\n".join(line for line in shown.splitlines() if "LOGIN" not in line)
    assert server.root[7:] in shown
    assert not any(part in shown for part in ("s3cr", "w0rd", "Ym9iOnMz"))


@pytest.mark.parametrize("url", ["http://bob:s3cr/et@a.example/", "http://bob:s3cr#et@a.example/"])
def test_a_password_that_ends_the_host_is_not_quoted(url):
    with quick_client() as client, pytest.raises(ValueError, match="%2F") as raised:
        client.get(url)
    assert "s3cr" not in str(raised.value)


@pytest.mark.parametrize(
    ("content_type", "body", "words"),
    [
        ("text/plain", "database  is\ngone", "database is gone"),
        (
            "application/vnd.ogc.se_xml",
            '<?xml version="1.0"?><ServiceExceptionReport><ServiceException code="LayerNotDefined">'
            "<![CDATA[No layer <roads>]]></ServiceException></ServiceExceptionReport>",
            "No layer <roads>",
        ),
        (
            "text/html; charset=utf-8",
            "<!DOCTYPE html><style>p > a {}</style><p>Too &lt;many&gt;</p>",
            "Too <many>",
        ),
    ],
)
def test_the_last_error_of_a_server_is_told_in_its_words(content_type, body, words):
    reply = f"HTTP/1.1 503 No\r\nContent-Type: {content_type}\r\n\r\n{body}"
    with (
        ScriptedServer(reply, reply) as server,
        quick_client(max_attempts=2) as client,
        pytest.raises(ProviderDownError) as raised,
    ):
        client.get(f"{server.root}/x")
    assert f"status 503, in 2 attempts. The server says: {words}. Try later." in str(raised.value)


def test_a_refusal_is_told_in_the_servers_words():
    reply = "HTTP/1.1 403 No\r\nContent-Type: text/plain\r\n\r\nThe key has expired."
    with (
        ScriptedServer(reply) as server,
        quick_client() as client,
        pytest.raises(RefusedError, match=r"The server says: The key has expired\.$"),
    ):
        client.get(f"{server.root}/x")


@pytest.mark.parametrize(("length", "padding"), [(99, ""), (99_999, " " + "x" * 50_000)])
def test_an_error_whose_page_is_cut_or_long_is_still_that_error(length, padding):
    head = f"HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
    with (
        ScriptedServer(f"{head}gone{padding}") as server,
        quick_client(max_attempts=1) as client,
        pytest.raises(ProviderDownError, match=r"status 500.*The server says: gone") as raised,
    ):
        client.get(f"{server.root}/x")
    assert len(str(raised.value)) < 600


def test_redaction_finds_a_login_wherever_a_host_is():
    assert fetch.redacted("http://a:b@c@d.example/1@2x") == "http://<key>@d.example/1@2x"
    assert fetch.redacted("bob:secret@d.example does not") == "<key>@d.example does not"
    path = "http://d.example/tms/1.0.0/layer@EPSG:3857@png/1/2/3.png"
    assert fetch.redacted(path) == path


def test_redaction_finds_known_keys_and_what_looks_like_one():
    Secret(KEY)
    url = "https://me:pass@example.org/a/b?x=1&access_token=tk.abc&apiKey=zzz&key=q&size=256"
    clean = fetch.redacted(url)
    assert clean == (
        "https://<key>@example.org/a/b?x=1&access_token=<key>&apiKey=<key>&key=<key>&size=256"
    )
    quoted = "pk.eyJ1Ijoi-a%2Bb%2Fc%3D%3D"
    assert fetch.redacted(f"/tiles/{quoted}/1 {KEY}") == "/tiles/<key>/1 <key>"
    assert fetch.redacted("https://example.org/?monkey=1") == "https://example.org/?monkey=<key>"
    assert fetch.redacted("https://example.org/{z}?k={key}&key={key}").count("{key}") == 2


def test_keys_come_from_the_environment_first(tmp_path):
    file = tmp_path / "keys.toml"
    file.write_text('maptiler = "from-the-file"\n')
    file.chmod(0o600)
    environ = {"CROSSVIEW_MAPTILER_KEY": "from-environ"}
    assert fetch.key("MapTiler", environ=environ, file=file).reveal() == "from-environ"
    assert fetch.key("MapTiler", environ={}, file=file).reveal() == "from-the-file"
    folder = tmp_path / "crossview"
    folder.mkdir()
    file.rename(folder / "keys.toml")
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert fetch.key("maptiler", environ=environ).reveal() == "from-the-file"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_of_keys_that_others_can_read_is_refused(tmp_path, mode):
    file = tmp_path / "keys.toml"
    file.write_text('maptiler = "from-the-file"\n')
    file.chmod(mode)
    with pytest.raises(KeyMissingError, match="chmod 600") as raised:
        fetch.key("maptiler", environ={}, file=file)
    assert "from-the-file" not in str(raised.value)


def test_a_missing_key_says_where_to_put_it(tmp_path):
    with pytest.raises(KeyMissingError, match="CROSSVIEW_HERE_KEY"):
        fetch.key("HERE", environ={}, file=tmp_path / "none.toml")


def test_a_broken_file_of_keys_is_not_quoted(tmp_path):
    file = tmp_path / "keys.toml"
    file.write_text("maptiler = abc-secret-abc\n")
    file.chmod(0o600)
    with pytest.raises(KeyMissingError, match="not TOML") as raised:
        fetch.key("maptiler", environ={}, file=file)
    assert "secret" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("value", ["", "  ", "abc", "two words", "line\nbreak"])
def test_what_cannot_be_a_key_is_refused(value):
    with pytest.raises(KeyMissingError, match="white space"):
        Secret(value)


@pytest.mark.parametrize(
    "fault", ["404", "500", "reset", "stall", "truncated", "html", "429 with seconds"]
)
def test_no_log_and_no_error_holds_the_key(fault, caplog):
    secret = Secret("k3y-" + "x7" * 8)
    caplog.set_level(logging.DEBUG)

    def refuse(response):
        raise ContentError("no")

    shown = ""
    with (
        TileServer(faults={TILE: [fault] * 3}) as server,
        quick_client(timeout_s=0.1, max_attempts=2) as client,
    ):
        url = f"{address(server)}?token={secret.reveal()}"
        try:
            client.get(url, check=refuse if fault in ("html", "404", "429 with seconds") else None)
        except DownloadError as error:
            shown = "".join(traceback.format_exception(error))
    assert shown
    assert caplog.text
    assert secret.reveal() not in shown + caplog.text


def test_a_response_does_not_print_its_body():
    assert "abc" not in repr(fetch.Response(200, b"abc"))
    assert dataclasses.is_dataclass(fetch.Response)
