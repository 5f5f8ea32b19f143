"""A polite HTTP client: one rate per host, patience with faults, silence about keys."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import html
import http.client
import logging
import os
import random
import re
import stat
import threading
import time
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import urllib3

from crossview import __version__
from crossview.errors import (
    ContentError,
    DownloadError,
    KeyMissingError,
    ProviderDownError,
    RefusedError,
)

logger = logging.getLogger(__name__)

USER_AGENT = f"crossview/{__version__} (crossview-data; urllib3/{urllib3.__version__})"

THROTTLED_RATE_FACTOR = 0.7
"""What is left of the rate after a 429."""
RECOVERY_S = 300.0
"""From nothing to the configured rate."""
LEAST_RATE_FACTOR = 0.02
LONGEST_DEFAULT_PAUSE_S = 60.0
LONGEST_PAUSE_S = 900.0
"""A server that asks for more has closed for today."""
LONGEST_BACKOFF_S = 30.0
MAX_THROTTLES = 20
"""Of one request; a limit is not a fault, so they are not attempts."""
MAX_REDIRECTS = 3
MAX_BYTES = 64 * 2**20
DEADLINE_FACTOR = 10
"""One attempt may take this many times the timeout, however steadily it trickles."""
CHUNK_BYTES = 2**16
MAX_WORDS_BYTES = 4096
"""Of an answer that is an error, what is looked at to say it in the server's words."""
MAX_WORDS = 300
"""Characters of them that are told."""
HIDDEN = "<key>"

NOT_MODIFIED = 304
_REDIRECTS = (301, 302, 303, 307, 308)
_CONDITIONS = ("If-None-Match", "If-Modified-Since")
_UNWELCOME = (401, 403, 407, 451)
_TRANSIENT = (408, 425)
_KEY_PARAMETER = re.compile(
    r"([?&;](?:[\w-]*(?:key|token|secret|signature|password|passwd|pwd)|sig|auth)=)(?!\{)[^&#;\s'\"]+",
    re.IGNORECASE,
)
_USER_INFO = re.compile(r"((?<=://)|^[^\s/@:]+:)[^\s/?#\"<>]+@")
"""Up to the last @ of the host's part: a password may hold one. Without a scheme, where text begins
with it; elsewhere `layer@EPSG:3857@png` is a path."""
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_MARKUP = re.compile(r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.IGNORECASE | re.DOTALL)


# ---------------------------------------------------------------- keys


class Secret:
    """A provider's key: it is told to the provider and shown to nobody.

    Its value is left out of everything that `redacted` sees.

    Raises:
        KeyMissingError: The value is too short to be a key, or holds white space.
    """

    SHORTEST = 4
    _known: ClassVar[set[str]] = set()
    """One for all, so that every message can be cleaned."""

    def __init__(self, value: str) -> None:
        value = value.strip()
        if len(value) < self.SHORTEST or any(c.isspace() or not c.isprintable() for c in value):
            raise KeyMissingError(
                f"A key has at least {self.SHORTEST} characters and no white space; the one that "
                "was given has not."
            )
        self._value = value
        self._known.add(value)

    def reveal(self) -> str:
        """The value; for the request itself only."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({HIDDEN})"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return HIDDEN

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key is not written anywhere; look it up where it is needed.")


def redacted(text: str) -> str:
    """Text without the keys that are known, nor what looks like one in a URL."""
    for value in sorted(Secret._known, key=len, reverse=True):
        for spelled in (value, urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value)):
            text = text.replace(spelled, HIDDEN)
    return _KEY_PARAMETER.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(f"{HIDDEN}@", text))


def split_login(url: str) -> tuple[str, Secret | None]:
    """A URL without user name and password, and these as the token of an HTTP Basic login.

    Args:
        url: Of http or https, or a template of one.

    Raises:
        ValueError: The host cannot be told from the login; the message quotes neither.
    """
    user_info, rest = _split_user_info(url)
    if not user_info:
        return rest, None
    user, _, password = user_info.partition(":")
    with contextlib.suppress(KeyMissingError):
        # a server may repeat it; what is too short to be looked for is in no message of ours
        Secret(urllib.parse.unquote(password or user))
    login = urllib.parse.unquote(user_info if ":" in user_info else f"{user_info}:")
    return rest, Secret(base64.b64encode(login.encode()).decode())


def login_headers(login: Secret | None) -> dict[str, str]:
    """The header that tells a login (see split_login); none without one."""
    return {} if login is None else {"Authorization": f"Basic {login.reveal()}"}


def _split_user_info(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    user_info, _, host = parts.netloc.rpartition("@")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError(
            "The port in a URL is no number. In a user name or password write : as %3A, / as %2F, "
            "? as %3F, # as %23 and @ as %40."
        ) from None
    return user_info, url if not user_info else url.replace(parts.netloc, host, 1)


def key_variable(name: str) -> str:
    """Environment variable of a key: CROSSVIEW_MAPTILER_KEY for maptiler, see Provider.key_name."""
    return f"CROSSVIEW_{name.upper()}_KEY"


def key_file(environ: Mapping[str, str] = os.environ) -> Path:
    """The file of keys: TOML, one `provider = "key"` a line, readable by its owner only."""
    folder = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "crossview" / "keys.toml"


def key(
    name: str,
    *,
    environ: Mapping[str, str] = os.environ,
    file: str | os.PathLike[str] | None = None,
) -> Secret:
    """A provider's key from the environment or from the file of keys, never from an argument.

    Args:
        name: Of the key: letters, digits and underscores; capitals do not matter.
        environ: The environment.
        file: Of keys; by default key_file.

    Raises:
        KeyMissingError: There is none, or the file can be read by others.
    """
    variable = key_variable(name)
    if environ.get(variable):
        return Secret(environ[variable])
    path = key_file(environ) if file is None else Path(file)
    keys = {entry.lower(): value for entry, value in _keys_of(path).items()}
    if isinstance(keys.get(name.lower()), str):
        return Secret(keys[name.lower()])
    raise KeyMissingError(
        f"{name} needs a key. Put it into the environment variable {variable}, or as "
        f'{name.lower()} = "..." into {path} (permissions 600).'
    )


def _keys_of(path: Path) -> dict[str, Any]:
    try:
        handle = path.open("rb")
    except FileNotFoundError:
        return {}
    with handle:
        # of the open file: a path could be exchanged between two looks
        mode = stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
        if os.name == "posix" and mode & 0o077:
            raise KeyMissingError(
                f"{path} can be read by others (permissions {mode:03o}), so its keys are not used. "
                f"Run: chmod 600 {path}"
            )
        try:
            return tomllib.load(handle)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            # what the parser quotes may be part of a key
            raise KeyMissingError(f'{path} is not TOML; expected lines name = "key".') from None


class _NoKeys(logging.Filter):
    """Cleans the records of a library that logs whole URLs."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        return True


_NO_KEYS = _NoKeys()


# ---------------------------------------------------------------- the rate


class TokenBucket:
    """One host's rate, shared by all workers: in any T seconds at most rate * T + 2 requests.

    After a 429 everybody pauses, the bucket is empty and the rate is 0.7 of what it was; it comes
    back to the configured one within minutes and never goes above.

    Args:
        rate_per_s: Requests per second, the limit.
        default_pause_s: First pause after a 429 that does not say how long; the next ones double.
        clock: Seconds that only grow.

    Raises:
        ValueError: The rate is not positive.
    """

    def __init__(
        self,
        rate_per_s: float,
        *,
        default_pause_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < rate_per_s < float("inf"):
            raise ValueError(f"A rate is a positive number of requests per second: {rate_per_s}.")
        self.rate_per_s = float(rate_per_s)
        self.default_pause_s = default_pause_s
        self._clock = clock
        self._condition = threading.Condition()
        self._next_s = clock()
        self._reduced_rate_per_s = self.rate_per_s
        self._reduced_s = self._paused_s = -float("inf")
        self._pauses_in_a_row = 0
        self._is_closed = False
        self._shut_s, self._shut_message = -float("inf"), ""

    def acquire(self) -> None:
        """Wait for a turn.

        Raises:
            DownloadError: The bucket was closed meanwhile.
            ClosedForNowError: It was shut.
        """
        with self._condition:
            while (wait_s := self.take()) > 0:
                self._condition.wait(wait_s)

    def take(self) -> float:
        """Take a turn, 0, or the seconds after which to try again."""
        with self._condition:
            if self._is_closed:
                raise DownloadError("The client was closed.")
            now_s = self._clock()
            if now_s < self._shut_s:
                raise ClosedForNowError(self._shut_message)
            if now_s < self._next_s:
                return self._next_s - now_s
            interval_s = 1 / self.current_rate_per_s(now_s)
            # one turn of credit makes up for waking late
            self._next_s = max(self._next_s, now_s - interval_s) + interval_s
            return 0.0

    def current_rate_per_s(self, now_s: float | None = None) -> float:
        """The rate now: the configured one, or less for a while after a 429."""
        now_s = self._clock() if now_s is None else now_s
        recovered = max(0.0, now_s - self._reduced_s) / RECOVERY_S * self.rate_per_s
        return min(self.rate_per_s, self._reduced_rate_per_s + recovered)

    def throttled(self, *, sent_s: float, retry_after_s: float | None) -> float:
        """A request that was sent at a time got a 429; returns the seconds that everybody waits.

        Many workers get theirs at the same time: only the first slows down.
        """
        with self._condition:
            now_s = self._clock()
            if is_new := sent_s >= self._paused_s:
                least = self.rate_per_s * LEAST_RATE_FACTOR
                rate = max(least, self.current_rate_per_s(now_s) * THROTTLED_RATE_FACTOR)
                self._reduced_rate_per_s = rate
                self._pauses_in_a_row += 1
                self._paused_s = now_s
            pause_s = retry_after_s
            if pause_s is None:
                growing_s = self.default_pause_s * 2 ** (self._pauses_in_a_row - 1)
                pause_s = min(growing_s, LONGEST_DEFAULT_PAUSE_S)
            if is_new or retry_after_s is not None:
                # one interval more, for the server's clock and ours do not tick together
                resume_s = now_s + pause_s + 1 / self._reduced_rate_per_s
                self._next_s = max(self._next_s, resume_s)
                self._reduced_s = max(self._reduced_s, resume_s)
            return max(0.0, self._next_s - now_s)

    def succeeded(self, *, sent_s: float) -> None:
        """A request was answered: the next 429 is again a first one."""
        with self._condition:
            if sent_s >= self._paused_s:
                self._pauses_in_a_row = 0

    def shut(self, seconds: float, message: str) -> None:
        """For so long nobody gets a turn, but a ClosedForNowError; whoever waits gets it now."""
        with self._condition:
            until_s = self._clock() + seconds
            if until_s > self._shut_s:
                self._shut_s, self._shut_message = until_s, message
            self._condition.notify_all()

    def close(self) -> None:
        """Whoever waits gets a DownloadError."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()


def retry_after_s(headers: Mapping[str, str], *, now_s: float | None = None) -> float | None:
    """Seconds that a server asks to wait (a number, or an HTTP date), None where it does not say.

    A date is measured against the server's own `Date`, whose clock it is.
    """
    value = headers.get("Retry-After")
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    until_s = _unix_s(value)
    if until_s is None:
        return None
    server_s = _unix_s(headers.get("Date", ""))
    fallback_s = time.time() if now_s is None else now_s
    return max(0.0, until_s - (fallback_s if server_s is None else server_s))


def _unix_s(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


# ---------------------------------------------------------------- the client


@dataclass(frozen=True)
class Response:
    """What a server answered in the end.

    Attributes:
        status: 2xx, 304, or a 4xx that is an answer (404, 410, 400).
        body: The server's bytes, whole.
        content_type: As the server says, without parameters, lower case.
        etag: For a conditional request, None where there is none.
        last_modified: The same, by date.
    """

    status: int
    body: bytes = field(repr=False)
    content_type: str = ""
    etag: str | None = None
    last_modified: str | None = None


class ClosedForNowError(ProviderDownError):
    """A server asks to wait longer than anybody would; nothing is sent to it until then."""


class StatusError(RefusedError):
    """A server refuses.

    Args:
        message: In words.
        status: 401, 403, 407 or 451.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _FaultError(Exception):
    """An attempt failed in a way that may pass.

    Args:
        reason: What happened.
        words: What the server says to it, "" where it says nothing.
    """

    def __init__(self, reason: str, words: str = "") -> None:
        super().__init__(reason)
        self.words = words


class _ThrottledError(Exception):
    def __init__(self, status: int, retry_after_s: float | None) -> None:
        super().__init__(f"status {status}")
        self.retry_after_s = retry_after_s


class Client:
    """Fetches over kept connections, one TokenBucket per host for all threads.

    Args:
        rate_per_s: Requests per second and host, retries included: never more.
        num_connections: Kept per host; as many threads may call `get` at a time.
        timeout_s: For connecting, and for silence; after that time also for slowness.
        user_agent: Who asks; providers want to know.
        max_attempts: Of one request, when the server fails (429 does not count).
        backoff_s: First wait after a fault, about; doubles, with jitter.
        default_pause_s: See TokenBucket.
        min_bytes_per_s: A body that comes slower is asked for again.
        max_bytes: Largest body.

    Example:
        with fetch.Client(10) as client:
            body = client.get(url).body
    """

    def __init__(
        self,
        rate_per_s: float,
        num_connections: int = 8,
        timeout_s: float = 30.0,
        user_agent: str = USER_AGENT,
        max_attempts: int = 6,
        *,
        backoff_s: float = 0.5,
        default_pause_s: float = 1.0,
        min_bytes_per_s: float = 512.0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if num_connections < 1 or max_attempts < 1 or timeout_s <= 0:
            raise ValueError(
                "A client needs at least one connection, one attempt and a positive timeout, got "
                f"{num_connections}, {max_attempts} and {timeout_s}."
            )
        TokenBucket(rate_per_s)  # a wrong rate is said here
        self.rate_per_s = rate_per_s
        self.num_connections = num_connections
        self.timeout_s = timeout_s
        self.max_attempts = max_attempts
        self.backoff_s = backoff_s
        self.default_pause_s = default_pause_s
        self.min_bytes_per_s = min_bytes_per_s
        self.max_bytes = max_bytes
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._buckets: dict[str, TokenBucket] = {}
        self._managers: dict[str | None, urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._random = random.Random()  # noqa: S311
        logging.getLogger("urllib3.connectionpool").addFilter(_NO_KEYS)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End: whoever waits in `get` gets a DownloadError."""
        self._closed.set()
        with self._lock:
            for bucket in self._buckets.values():
                bucket.close()
            for manager in self._managers.values():
                manager.clear()

    def bucket(self, url: str) -> TokenBucket:
        """The bucket of a URL's host."""
        host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2].lower()
        with self._lock:
            if host not in self._buckets:
                pause_s = self.default_pause_s
                self._buckets[host] = TokenBucket(self.rate_per_s, default_pause_s=pause_s)
                if self._closed.is_set():
                    self._buckets[host].close()
            return self._buckets[host]

    def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        etag: str | None = None,
        last_modified: str | None = None,
        check: Callable[[Response], None] | None = None,
    ) -> Response:
        """Fetch, as often as it takes.

        Args:
            url: http or https. A user name and password in it become a header.
            headers: Besides ours; they do not go to another server that is redirected to.
            etag: Of the copy that one has: the answer is 304 if it is still good.
            last_modified: The same, by date.
            check: Raises ContentError where an answer is not what was asked for; it is then
                asked for again, as after any fault.

        Raises:
            ProviderDownError: No answer, or errors, in every attempt.
            ContentError: The wrong content in every attempt.
            ClosedForNowError: The server asked to wait for more than LONGEST_PAUSE_S: now, or
                a while ago; it is not asked again until then.
            StatusError: 401, 403 and their like.
            RefusedError: It redirects to something that is not fetched.
            ValueError: Not a URL of http or https.
        """
        if not url.lower().startswith(("http://", "https://")):
            raise ValueError(f"Expected a URL of http or https, got {redacted(url)!r}.")
        url, login = split_login(url)
        wanted = {**self._headers, **login_headers(login), **(headers or {})}
        if etag is not None:
            wanted[_CONDITIONS[0]] = etag
        if last_modified is not None:
            wanted[_CONDITIONS[1]] = last_modified
        attempts = throttles = 0
        while True:
            try:
                response = self._followed(url, wanted)
                if check is not None:
                    check(response)
                return response
            except _ThrottledError as error:
                throttles += 1
                if throttles > MAX_THROTTLES:
                    raise self._down(
                        url, f"{error}, {throttles} times in spite of pauses"
                    ) from None
            except (_FaultError, ContentError) as error:
                attempts += 1
                if attempts >= self.max_attempts:
                    if isinstance(error, ContentError):
                        raise
                    reason = f"{error}, in {attempts} attempts"
                    if error.words:
                        reason += f". The server says: {error.words.rstrip('.')}"
                    raise self._down(url, reason) from None
                logger.debug("%s: %s", redacted(url), redacted(str(error)))
                # between half and all of a doubling time, so that workers do not come in step
                most_s = min(self.backoff_s * 2 ** (attempts - 1), LONGEST_BACKOFF_S)
                self._closed.wait(most_s * self._random.uniform(0.5, 1.0))

    def _followed(self, url: str, headers: Mapping[str, str]) -> Response:
        """One attempt, and its redirections."""
        first = server_of(url)
        for _ in range(MAX_REDIRECTS + 1):
            bucket = self.bucket(url)
            bucket.acquire()
            sent_s = time.monotonic()
            response, location = self._attempt(url, headers, bucket, sent_s)
            if location is None:
                bucket.succeeded(sent_s=sent_s)
                return response
            try:
                # a login that a server makes up is not ours to tell
                _, target = _split_user_info(urllib.parse.urljoin(url, location))
                origin = server_of(target)
            except ValueError:
                raise ContentError(
                    f"{redacted(url)} redirects to {redacted(location)}, which is no URL."
                ) from None
            if origin[0] not in (("https",) if server_of(url)[0] == "https" else ("http", "https")):
                raise RefusedError(
                    f"{redacted(url)} redirects to {redacted(target)}, which is not followed."
                )
            if origin != first:
                # what the caller sends, a token above all, is for the server that was asked
                ours = {*self._headers, *_CONDITIONS}
                headers = {name: value for name, value in headers.items() if name in ours}
                headers |= self._headers
            url = target
        raise ContentError(f"{redacted(url)} redirects more than {MAX_REDIRECTS} times.")

    def _attempt(
        self, url: str, headers: Mapping[str, str], bucket: TokenBucket, sent_s: float
    ) -> tuple[Response, str | None]:
        """The answer to one request, and where it redirects to."""
        with self._faults(url), self._opened(url, headers) as answer:
            status = answer.status
            wait_s = retry_after_s(answer.headers)
            if status == 429 or (status == 503 and wait_s is not None):
                if wait_s is not None and wait_s > LONGEST_PAUSE_S:
                    raise self._closed_for_now(url, bucket, status, wait_s)
                pause_s = bucket.throttled(sent_s=sent_s, retry_after_s=wait_s)
                logger.debug("%s: status %d, everyone waits %.1f s", redacted(url), status, pause_s)
                raise _ThrottledError(status, wait_s)
            if status >= 500 or status in _TRANSIENT:
                raise _FaultError(f"status {status}", self._words(answer))
            if status in _UNWELCOME:
                words = self._words(answer)
                raise StatusError(
                    f"{redacted(url)}: the provider refuses, status {status}. Check the key, the "
                    "terms, and that the area is one that it serves."
                    + (f" The server says: {words}" if words else ""),
                    status,
                )
            location = answer.headers.get("Location") if status in _REDIRECTS else None
            body = b"" if status in (NOT_MODIFIED, 204) else self._body(answer, url)
        response = Response(
            status,
            body,
            _content_type(answer),
            answer.headers.get("ETag"),
            answer.headers.get("Last-Modified"),
        )
        return response, location

    @contextlib.contextmanager
    def _opened(self, url: str, headers: Mapping[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
        answer = self._manager(url).request(
            "GET",
            url,
            headers=dict(headers),
            preload_content=False,
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=self.timeout_s, read=self.timeout_s),
        )
        try:
            yield answer
        except BaseException:
            # what is left in the connection is not the next answer
            answer.close()
            raise
        finally:
            answer.release_conn()

    def _body(self, answer: urllib3.BaseHTTPResponse, url: str) -> bytes:
        started_s = time.monotonic()
        parts: list[bytes] = []
        num_bytes = 0
        while part := answer.read1(CHUNK_BYTES):
            parts.append(part)
            num_bytes += len(part)
            if num_bytes > self.max_bytes:
                raise ContentError(f"{redacted(url)} is larger than {self.max_bytes:,} bytes.")
            taken_s = time.monotonic() - started_s
            if taken_s > self.timeout_s and (
                num_bytes < self.min_bytes_per_s * taken_s
                or taken_s > DEADLINE_FACTOR * self.timeout_s
            ):
                raise _FaultError(f"only {num_bytes} bytes within {taken_s:.1f} s")
        # a body shorter than its Content-Length is urllib3's IncompleteRead
        return b"".join(parts)

    def _words(self, answer: urllib3.BaseHTTPResponse) -> str:
        """What an error's page says; what does not come soon is not waited for."""
        until_s = time.monotonic() + self.timeout_s
        body = b""
        # the status is the error, whatever becomes of its page
        with contextlib.suppress(urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
            while len(body) < MAX_WORDS_BYTES and time.monotonic() < until_s:
                if not (part := answer.read1(MAX_WORDS_BYTES)):
                    break
                body += part
        return words(body, _content_type(answer))

    @contextlib.contextmanager
    def _faults(self, url: str) -> Iterator[None]:
        """What the network does to an attempt, by one name; libraries quote URLs, we do not."""
        if self._closed.is_set():
            raise DownloadError("The client was closed.")
        try:
            yield
        except (urllib3.exceptions.LocationParseError, UnicodeError):
            raise ValueError(f"Not a URL: {redacted(url)!r}.") from None
        except urllib3.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise self._down(url, f"no trusted connection ({error})") from None
            raise _FaultError(f"SSLError: {error}") from None
        except DownloadError:
            raise
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            # the kind says enough; the words may quote the URL
            raise _FaultError(f"{type(error).__name__}: {error}") from None

    def _down(self, url: str, reason: str) -> ProviderDownError:
        host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
        return ProviderDownError(redacted(f"{host} does not serve {url}: {reason}. Try later."))

    def _closed_for_now(
        self, url: str, bucket: TokenBucket, status: int, wait_s: float
    ) -> ClosedForNowError:
        host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
        until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() + wait_s))
        message = redacted(
            f"{host} answers with status {status} and asks to wait {wait_s:.0f} s, which is "
            f"longer than we do. Run again after {until}."
        )
        bucket.shut(wait_s, message)
        return ClosedForNowError(message)

    def _manager(self, url: str) -> urllib3.PoolManager:
        """Pools of connections: direct, or through the proxy that the environment names."""
        parts = urllib.parse.urlsplit(url)
        proxy = urllib.request.getproxies().get(parts.scheme)
        if proxy is not None and urllib.request.proxy_bypass(parts.hostname or ""):
            proxy = None
        with self._lock:
            if proxy not in self._managers:
                pools: dict[str, Any] = {"maxsize": self.num_connections, "block": True}
                self._managers[proxy] = (
                    urllib3.PoolManager(**pools)
                    if proxy is None
                    else urllib3.ProxyManager(proxy, **_proxy_login(proxy), **pools)
                )
            return self._managers[proxy]


def words(body: bytes, content_type: str) -> str:
    """What a page or a service's report says, in a line and without its markup; "" of a picture."""
    is_markup = "xml" in content_type or "html" in content_type
    if not (is_markup or content_type.startswith("text/") or "json" in content_type):
        return ""
    text = body[:MAX_WORDS_BYTES].decode("utf-8", errors="replace")
    if is_markup:
        # what is in CDATA are words, whose angle brackets are none of the markup
        text = _CDATA.sub(lambda match: html.escape(match[1]), text)
        text = html.unescape(_MARKUP.sub(" ", text))
    return redacted(" ".join(text.split()))[:MAX_WORDS]


def _content_type(answer: urllib3.BaseHTTPResponse) -> str:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def server_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: whom a URL belongs to, and whom its login may be told.

    Raises:
        ValueError: The port is none.
    """
    parts = urllib.parse.urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", default if parts.port is None else parts.port


def _proxy_login(proxy: str) -> dict[str, Any]:
    login = urllib3.util.parse_url(proxy).auth
    if login is None:
        return {}
    headers = urllib3.make_headers(proxy_basic_auth=urllib.parse.unquote(login))
    return {"proxy_headers": headers}
