"""Bugs in the transports for httpx: framing, what is sent again, streams that share, and limits."""

from __future__ import annotations

from typing import Final

from mutations.bug import Mutation

_TESTS: Final = "tests/contrib/http/test_"
_HTTP1: Final = _TESTS + "http1.py"
_HTTP2: Final = _TESTS + "http2.py"
_SIMPLE: Final = _TESTS + "simple.py"
_HOSTILE: Final = _TESTS + "hostile.py"
_ERRORS: Final = _TESTS + "errors.py"
_WAYS: Final = _TESTS + "ways.py"
_UPGRADES: Final = _TESTS + "upgrades.py"
_CANCELLED: Final = _TESTS + "cancelled.py"
_SCHEDULES: Final = _TESTS + "schedules.py"


def plant(name: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(name=name, file=f"contrib/_http/{file}", old=old, new=new, tests=tests)


MUTATIONS: Final = (
    # ── HTTP/1.1: where an answer ends ──────────────────────────────────────────
    plant(
        "an answer to HEAD is read as if it had a body",
        "simple.py",
        'frozenset({b"HEAD", b"CONNECT"})',
        'frozenset({b"CONNECT"})',
        _SIMPLE,
        _HTTP1,
    ),
    plant(
        "a 304 is read as if it had a body",
        "simple.py",
        'frozenset({b"204", b"304"})',
        'frozenset({b"204"})',
        _SIMPLE,
        _HTTP1,
    ),
    plant(
        "what comes behind an empty answer is left on the connection",
        "h1.py",
        "self._end(keep=not answer.rest)",
        "self._end(keep=True)",
        _HTTP1,
        _HOSTILE,
    ),
    plant(
        "a connection is kept though one side is not done",
        "h1.py",
        "if keep and (self._talk is None or self._talk.is_complete):",
        "if keep:",
        _HTTP1,
        _HOSTILE,
    ),
    plant(
        "surplus bytes are handed out with the body",
        "h1.py",
        "return bytes(data[:whole])",
        "return bytes(data)",
        _HOSTILE,
    ),
    plant(
        "a body that ends too early has ended",
        "h1.py",
        "        if not data:\n            why =",
        '        if not data:\n            self._end(keep=False)\n            return b""\n'
        "            why =",
        _HOSTILE,
    ),
    plant(
        "interim answers are read for ever",
        "h1.py",
        "for _ in range(MAX_INTERIM + 1):",
        "while True:",
        _HOSTILE,
    ),
    plant(
        "an answer that came before its request is taken for it",
        "h1.py",
        "            self._refuse_early_answer()\n",
        "",
        _HOSTILE,
    ),
    plant(
        "the rest of a body is waited for without end",
        "h1.py",
        "with trio.move_on_after(DRAIN_TIMEOUT):",
        "with trio.move_on_after(math.inf):",
        _HTTP1,
    ),
    plant(
        "the rest of a body is read on, however much it is",
        "h1.py",
        "if self._left <= MAX_DRAINED:",
        "if self._left < math.inf:",
        _HTTP1,
    ),
    # ── HTTP/1.1: bodies that are sent, and the lease ───────────────────────────
    plant(
        "a refusal does not stop the upload",
        "h1.py",
        "return isinstance(answer, Exception) or answer.status_code >= 300",
        "return isinstance(answer, Exception)",
        _HTTP1,
    ),
    plant(
        "the body does not wait for 100 Continue",
        "h1.py",
        "with trio.move_on_after(CONTINUE_TIMEOUT):",
        "with trio.move_on_after(0):",
        _HTTP1,
    ),
    plant(
        "an early answer makes the pool doubt a sound connection",
        "h1.py",
        "                conn.mark_clean()\n",
        "                pass\n",
        _HTTP1,
        _SCHEDULES,
    ),
    plant(
        "what came along with the answer to an upgrade is lost",
        "h1.py",
        "self._network.take_over(self._conn.detach(), talk.surplus)",
        'self._network.take_over(self._conn.detach(), b"")',
        _UPGRADES,
    ),
    plant(
        "a cancelled request leaves its lease behind",
        "h1.py",
        "        except BaseException:\n            self._end(keep=False)\n            raise\n"
        "        pairs =",
        "        except Exception:\n            self._end(keep=False)\n            raise\n"
        "        pairs =",
        _CANCELLED,
    ),
    plant(
        "a trace that breaks off keeps a response open",
        "body.py",
        "                await self._exchange.close()  # noqa",
        "                pass  # noqa",
        _CANCELLED,
    ),
    # ── acquiring ───────────────────────────────────────────────────────────────
    plant(
        "a trace that breaks off loses the connection just acquired",
        "borrow.py",
        "if got is not None:  # the caller",
        "if False:  # the caller",
        _CANCELLED,
    ),
    plant(
        "a cancellation as the watch ends loses the connection just acquired",
        "borrow.py",
        "            pool.release(got[0])\n",
        "            pass\n",
        _CANCELLED,
    ),
    plant(
        "a wait for a turn counts as a slow dial",
        "borrow.py",
        "if stats.connecting >= stats.waiting:",
        "if stats.waiting:",
        _ERRORS,
    ),
    plant(
        "a slow dial is out of time when the queue's time is over",
        "borrow.py",
        'if error.phase != "connect" or to_connect == to_wait:',
        "if error.phase:",
        _ERRORS,
    ),
    plant(
        "a full queue looks like a server that is down",
        "errors.py",
        "    elif isinstance(error, QueueFull):\n        kind = lib.PoolTimeout\n",
        "",
        _ERRORS,
    ),
    plant(
        "the library's error does not tell its cause",
        "transport.py",
        "raise translate(lib, error) from error",
        "raise translate(lib, error) from None",
        _ERRORS,
    ),
    # ── sent again ──────────────────────────────────────────────────────────────
    plant(
        "a POST is sent again though the server may have seen it",
        "outgoing.py",
        "return self.method in IDEMPOTENT and self.can_resend",
        "return self.can_resend",
        _ERRORS,
        _HTTP2,
    ),
    plant(
        "a body that is gone is sent again, empty",
        "outgoing.py",
        "return self._is_plain or not self.body_began",
        "return True",
        _ERRORS,
    ),
    plant(
        "a repeated request goes to the next connection that nobody has looked at",
        "transport.py",
        "needs_fresh = isinstance(made, PlainExchange)",
        "needs_fresh = False",
        _ERRORS,
    ),
    plant(
        "servers may hand a request back for ever",
        "transport.py",
        "or unprocessed >= _UNPROCESSED_TRIES",
        "",
        _HTTP2,
    ),
    # ── HTTP/2 ──────────────────────────────────────────────────────────────────
    plant(
        "answers that have ended never give the connection's window back",
        "multiplex.py",
        "if stream.credit and self.failure is None:",
        "if stream.credit and self.failure is None and not stream.ended:",
        _HTTP2,
    ),
    plant(
        "answers that nobody has read never give the connection's window back",
        "multiplex.py",
        "        self.give_credit(stream)\n        self.flush()\n",
        "        self.flush()\n",
        _HTTP2,
    ),
    plant(
        "a body does not hear that the window of its stream has opened",
        "multiplex.py",
        "        if isinstance(event, h2.events.WindowUpdated):  #",
        "        if isinstance(event, h2.events.WindowUpdated) and not event.stream_id:  #",
        _HTTP2,
    ),
    plant(
        "a status may be anything",
        "multiplex.py",
        'rb"[2-9][0-9][0-9]"',
        'rb".*"',
        _HOSTILE,
    ),
    plant(
        "a server does not hear that nobody wants an answer any more",
        "multiplex.py",
        "if not is_complete and stream.reset_code is None:",
        "if False:",
        _HTTP2,
    ),
    plant(
        "a request that a leaving server has not seen fails",
        "multiplex.py",
        "                stream.is_unprocessed = True\n",
        "",
        _HTTP2,
        _SCHEDULES,
    ),
    plant(
        "a request that a leaving server still serves is sent again",
        "multiplex.py",
        "if number > goaway.last_stream and",
        "if number >= goaway.last_stream and",
        _HTTP2,
    ),
    plant(
        "a connection whose server leaves takes new requests",
        "multiplex.py",
        "        for number, stream in self.streams.items():\n            if number >",
        "        self.is_leaving = False\n"
        "        for number, stream in self.streams.items():\n            if number >",
        _HTTP2,
        _SCHEDULES,
    ),
    plant(
        "a stream that has ended still counts",
        "multiplex.py",
        "        del self.streams[stream.number]\n",
        "",
        _CANCELLED,
        _HTTP2,
    ),
    plant(
        "a lower limit of the server's is not obeyed",
        "multiplex.py",
        "if len(self.streams) >= self.h2.remote_settings.max_concurrent_streams:",
        "if len(self.streams) >= MAX_STREAMS:",
        _HTTP2,
    ),
    plant(
        "after a head that could not be sent the connection goes on",
        "multiplex.py",
        "            self.is_leaving = True\n            raise\n",
        "            raise\n",
        _HTTP2,
    ),
    plant(
        "a body that waits does not hear that the connection is lost",
        "multiplex.py",
        "            for stream in self.streams.values():\n                stream.stop_upload()\n"
        "        self._wake_all()\n",
        "        for stream in self.streams.values():\n            stream.wake()\n",
        _HTTP2,
    ),
    plant(
        "a goodbye is said in the middle of a frame",
        "multiplex.py",
        "if not self._is_sending:  #",
        "if True:  #",
        _HTTP2,
    ),
    plant(
        "frames of no use are taken for ever",
        "frames.py",
        "if self._idle_frames > MAX_IDLE_FRAMES:",
        "if False:",
        _HOSTILE,
    ),
    plant(
        "padding counts as an answer",
        "frames.py",
        "self._count(kind, flags, length - padding)",
        "self._count(kind, flags, length)",
        _HOSTILE,
    ),
    plant(
        "what others do puts a time-out off",
        "h2.py",
        "with trio.CancelScope(deadline=deadline) as scope:",
        "with trio.CancelScope(deadline=trio.current_time() + 0.1) as scope:",
        _HTTP2,
    ),
    # ── the ways ────────────────────────────────────────────────────────────────
    plant(
        "transports that share a context offer what the last one offers",
        "transport.py",
        'offer(context, ("http/1.1",) * http1 + ("h2",) * http2)',
        '(context.set_alpn_protocols(["http/1.1"] * http1 + ["h2"] * http2), context)[1]',
        _WAYS,
    ),
    plant(
        "an HTTP proxy is asked for a path",
        "transport.py",
        '"%s://%s%s" % (url.raw_scheme, url.netloc, outgoing.target)',
        '"%.0s%.0s%s" % (url.raw_scheme, url.netloc, outgoing.target)',
        _WAYS,
    ),
    plant(
        "requests for two servers' names share a connection",
        "routes.py",
        'url.port, extensions.get("sni_hostname"))',
        "url.port, None)",
        _WAYS,
    ),
    plant(
        "a handshake that fails leaves a stream on which plain bytes go out",
        "network.py",
        "            except BaseException as error:\n"
        "                await trio.aclose_forcefully(stream)\n",
        "            except BaseException as error:\n",
        _UPGRADES,
    ),
    plant(
        "plain bytes pass for encrypted ones",
        "network.py",
        "if self._leading:  # they",
        "if False:  # they",
        _UPGRADES,
    ),
    plant(
        "a transport that is closed while it opens stays open",
        "host.py",
        "            self._leave.set()\n",
        "",
        _CANCELLED,
        _HTTP1,
    ),
)
