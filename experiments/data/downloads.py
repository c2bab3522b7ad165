"""Downloads, which end in time whatever a host does."""

import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from typing import Any

# How long the host may take to answer at all, and how long it may pause after that:
# whichever way a network is missing, an attempt is over in less than ten seconds.
ANSWER_SECONDS = 6.0
SILENCE_SECONDS = 8.0
# What has to come in what time: a host that sends byte by byte is left within 40 s, and
# 170 MB have come within an hour and a half, or failed.
PART_BYTES = 1_000_000
PART_SECONDS = 30.0


def receive(url: str) -> Generator[bytes]:
    """Yields what a host sends, as it comes.

    Raises:
        TimeoutError: after `ANSWER_SECONDS` or `SILENCE_SECONDS` without anything,
            whatever the wait is for; or where `PART_BYTES` take longer than
            `PART_SECONDS`.
        OSError: if it cannot be fetched.
        http.client.HTTPException: if the host does not speak HTTP.
    """
    # A socket's timeout bounds neither the look-up of the name nor the sum over the
    # host's addresses, nor a header that comes byte by byte; leaving a thread behind
    # bounds them all.
    arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
    is_left = threading.Event()

    def fetch() -> None:
        try:
            with urllib.request.urlopen(url, timeout=SILENCE_SECONDS) as response:
                while not is_left.is_set() and (chunk := response.read1(1 << 20)):
                    arrived.put(chunk)
            arrived.put(b"")
        except Exception as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # an error page is an open response as well
            arrived.put(error)

    threading.Thread(target=fetch, daemon=True).start()
    seconds = ANSWER_SECONDS
    size, start = 0, time.monotonic()
    try:
        while True:
            try:
                chunk = arrived.get(timeout=seconds)
            except queue.Empty:
                raise TimeoutError(f"no answer within {seconds:g} s") from None
            if isinstance(chunk, Exception):
                raise chunk
            if not chunk:
                return
            yield chunk
            seconds = SILENCE_SECONDS
            size += len(chunk)
            if size >= PART_BYTES:
                size, start = 0, time.monotonic()
            elif time.monotonic() - start > PART_SECONDS:
                raise TimeoutError(f"too slow, {size:,} bytes in {PART_SECONDS:g} s")
    finally:
        is_left.set()
