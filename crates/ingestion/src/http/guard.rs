//! A connection's guard: it sits between the socket and the HTTP implementation, and keeps what that one does not.
//!
//! - *Framing.* `Content-Length` together with `Transfer-Encoding`, lines that end in a bare LF or CR, folded header
//!   lines and NUL bytes are how requests are smuggled past a proxy. Where one is met, the guard hands on a byte that
//!   no head may contain instead of the rest, so that the request is answered 400 and the connection closed.
//! - *Time.* A head must be complete in time, an idle connection ends, and an answer must be read. (The time of a body
//!   is kept by its reader.)
//!
//! It follows messages only as far as it must to know where a head begins; it never changes a byte of a request that
//! it lets pass, and where it loses its way it closes.

use crate::limits::TransportLimits;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What a connection is found to have died of; the metric's label.
#[derive(Debug, Default)]
pub(super) struct Cause {
    header: AtomicBool,
    idle: AtomicBool,
    write: AtomicBool,
    framing: AtomicBool,
}

impl Cause {
    /// The label, if the guard ended the connection for something that is worth counting.
    pub(super) fn label(&self) -> Option<&'static str> {
        let set = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if set(&self.framing) {
            Some("framing")
        } else if set(&self.header) {
            Some("header_timeout")
        } else if set(&self.write) {
            Some("write_timeout")
        } else {
            None
        }
    }
}

/// What the guard and the requests of its connection share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Requests being answered (0 or 1).
    busy: AtomicUsize,
    /// The connection's task, while the guard waits for the end of an answer to start the time of an idle connection.
    /// The HTTP implementation does not read again by itself when an answer ends.
    waiting: Mutex<Option<Waker>>,
    pub(super) cause: Cause,
}

impl Shared {
    /// A request has begun.
    pub(super) fn begin(&self) {
        let _before = self.busy.fetch_add(1, Ordering::AcqRel);
    }

    /// An answer has ended.
    pub(super) fn end(&self) {
        let _before = self.busy.fetch_sub(1, Ordering::AcqRel);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// `true` while a request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    /// The same; if so, the task is woken when the answer has ended.
    fn wake_when_free(&self, cx: &Context<'_>) -> bool {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = self.is_busy();
        if busy {
            *waiting = Some(cx.waker().clone());
        }
        busy
    }
}

/// A guarded connection.
#[derive(Debug)]
pub(super) struct Guard<S> {
    inner: S,
    shared: Arc<Shared>,
    limits: TransportLimits,
    framing: Framing,
    /// Set for the wait that `armed` names.
    timer: Option<Pin<Box<Sleep>>>,
    armed: Wait,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// The poison was handed on: nothing follows it.
    ended: bool,
}

/// What a read is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The first byte of the next request.
    Idle,
    /// The rest of a head (or the first request of all).
    Head,
    /// Nothing that the guard limits.
    Other,
}

impl<S> Guard<S> {
    pub(super) fn new(inner: S, limits: TransportLimits, shared: Arc<Shared>) -> Self {
        Self {
            inner,
            shared,
            limits,
            framing: Framing::new(),
            timer: None,
            armed: Wait::Other,
            write_timer: None,
            ended: false,
        }
    }

    fn wait(&self) -> Wait {
        match self.framing.place {
            Place::Head if self.framing.fresh => Wait::Head,
            Place::Head if self.framing.between() => Wait::Idle,
            Place::Head => Wait::Head,
            _ => Wait::Other,
        }
    }

    /// Polls the timer of what is being waited for; `Ready` when the time is over.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut wait = self.wait();
        if wait == Wait::Idle && self.shared.wake_when_free(cx) {
            wait = Wait::Other;
        }
        if wait != self.armed {
            self.armed = wait;
            self.timer = match wait {
                Wait::Idle => Some(Box::pin(sleep(self.limits.idle_timeout))),
                Wait::Head => Some(Box::pin(sleep(self.limits.header_timeout))),
                Wait::Other => None,
            };
        }
        match &mut self.timer {
            Some(timer) => {
                ready!(timer.as_mut().poll(cx));
                let cause = if wait == Wait::Idle {
                    &self.shared.cause.idle
                } else {
                    &self.shared.cause.header
                };
                cause.store(true, Ordering::Relaxed);
                Poll::Ready(())
            }
            None => Poll::Pending,
        }
    }

    /// The answer to a write that waits: an error once nothing was written for too long.
    fn stalled<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let timeout: Duration = self.limits.write_timeout;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(timer.as_mut().poll(cx));
        self.shared.cause.write.store(true, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// What is handed on instead of the rest of a head that may not pass: no token of a head contains NUL.
const POISON: &[u8] = b"\0\r\n\r\n";

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        if guard.ended {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut guard.inner).poll_read(cx, buf) {
            Poll::Pending => {
                ready!(guard.poll_timer(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => {
                let read = buf.filled().get(before..).unwrap_or_default();
                if let Some(good) = guard.framing.advance(read) {
                    guard.shared.cause.framing.store(true, Ordering::Relaxed);
                    guard.ended = true;
                    buf.set_filled(before + good);
                    let fits = POISON.len().min(buf.remaining());
                    buf.put_slice(POISON.get(..fits).unwrap_or_default());
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        match Pin::new(&mut guard.inner).poll_write(cx, buf) {
            Poll::Pending => guard.stalled(cx),
            done @ Poll::Ready(_) => {
                guard.write_timer = None;
                done
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        match Pin::new(&mut guard.inner).poll_flush(cx) {
            Poll::Pending => guard.stalled(cx),
            done @ Poll::Ready(_) => done,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = self.get_mut();
        match Pin::new(&mut guard.inner).poll_shutdown(cx) {
            Poll::Pending => guard.stalled(cx),
            done @ Poll::Ready(_) => done,
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guard = self.get_mut();
        match Pin::new(&mut guard.inner).poll_write_vectored(cx, bufs) {
            Poll::Pending => guard.stalled(cx),
            done @ Poll::Ready(_) => {
                guard.write_timer = None;
                done
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// Longest part of a line that is remembered: enough for the two fields that frame a message.
const LINE: usize = 96;

/// Where in a stream of requests a byte stands.
#[derive(Debug)]
struct Framing {
    place: Place,
    /// No byte of the connection was read yet.
    fresh: bool,
    /// The beginning of the current line, and how long it is in truth.
    line: Vec<u8>,
    line_bytes: usize,
    /// Lines of the current head.
    lines: usize,
    last: u8,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Head,
    /// In a body with this many bytes to come.
    Body(u64),
    /// In the line that gives a chunk's size.
    Size,
    /// In a chunk with this many bytes to come, its line end included.
    Chunk(u64),
    /// In the lines after the last chunk.
    Trailer,
}

impl Framing {
    fn new() -> Self {
        Self {
            place: Place::Head,
            fresh: true,
            line: Vec::with_capacity(LINE),
            line_bytes: 0,
            lines: 0,
            last: 0,
            length: None,
            chunked: false,
        }
    }

    /// Between two messages.
    fn between(&self) -> bool {
        self.place == Place::Head && self.lines == 0 && self.line_bytes == 0
    }

    /// Follows the bytes. `Some(n)`: only the first `n` of them may pass.
    fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        if !bytes.is_empty() {
            self.fresh = false;
        }
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.place {
                Place::Body(rest) | Place::Chunk(rest) => {
                    let there = (bytes.len() - at) as u64;
                    let taken = rest.min(there);
                    at += usize::try_from(taken).unwrap_or(usize::MAX);
                    self.place = match (self.place, rest - taken) {
                        (Place::Body(_), 0) => Place::Head,
                        (Place::Body(_), rest) => Place::Body(rest),
                        (_, 0) => Place::Size,
                        (_, rest) => Place::Chunk(rest),
                    };
                    continue;
                }
                Place::Head | Place::Size | Place::Trailer => {
                    if !self.byte(byte) {
                        return Some(at);
                    }
                }
            }
            at += 1;
        }
        None
    }

    /// One byte of a line; `false` if it may not stand there.
    fn byte(&mut self, byte: u8) -> bool {
        let after_cr = std::mem::replace(&mut self.last, byte) == b'\r';
        match byte {
            b'\n' if after_cr => self.end_of_line(),
            b'\n' | 0 => false,
            _ if after_cr => false,
            b'\r' => true,
            // A line that begins with white space continues the one before: folding.
            b' ' | b'\t' if self.line_bytes == 0 && self.place == Place::Head => false,
            _ => {
                self.line_bytes += 1;
                if self.line.len() < LINE {
                    self.line.push(byte);
                }
                true
            }
        }
    }

    fn end_of_line(&mut self) -> bool {
        let empty = self.line_bytes == 0;
        let whole = self.line_bytes == self.line.len();
        let line = std::mem::take(&mut self.line);
        self.line_bytes = 0;
        let good = match self.place {
            // Empty lines before a request line are tolerated, as RFC 9112 section 2.2 asks.
            Place::Head if empty && self.lines == 0 => true,
            Place::Head if empty => self.end_of_head(),
            Place::Head => {
                self.lines += 1;
                self.lines == 1 || self.field(&line, whole)
            }
            Place::Size => match chunk_size(&line) {
                Some(0) => {
                    self.place = Place::Trailer;
                    true
                }
                Some(size) => {
                    self.place = Place::Chunk(size.saturating_add(2));
                    true
                }
                None => false,
            },
            Place::Trailer => {
                if empty {
                    self.place = Place::Head;
                }
                true
            }
            Place::Body(_) | Place::Chunk(_) => true,
        };
        self.line = line;
        self.line.clear();
        good
    }

    /// Notes the two fields that frame a message.
    fn field(&mut self, line: &[u8], whole: bool) -> bool {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return true;
        };
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = whole && (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            let other = self.length.is_some() && self.length != length;
            self.length = length;
            digits && !other
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let again = std::mem::replace(&mut self.chunked, true);
            whole && !again && value.eq_ignore_ascii_case(b"chunked")
        } else {
            true
        }
    }

    fn end_of_head(&mut self) -> bool {
        self.lines = 0;
        let (length, chunked) = (self.length.take(), std::mem::take(&mut self.chunked));
        self.place = match (length, chunked) {
            (Some(_), true) => return false,
            (_, true) => Place::Size,
            (Some(length), false) if length > 0 => Place::Body(length),
            _ => Place::Head,
        };
        true
    }
}

/// The size that begins a chunk; extensions after `;` are ignored.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii_end();
    if !(1..=15).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes pass, whatever the cuts between reads.
    fn passes(stream: &[u8]) -> usize {
        let whole = Framing::new().advance(stream).unwrap_or(stream.len());
        for cut in 1..8 {
            let mut framing = Framing::new();
            let mut passed = 0;
            for part in stream.chunks(cut) {
                match framing.advance(part) {
                    Some(good) => {
                        passed += good;
                        break;
                    }
                    None => passed += part.len(),
                }
            }
            assert_eq!(passed, whole, "cut {cut}");
        }
        whole
    }

    #[test]
    fn honest_streams_pass_whole() {
        for stream in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\n\0\rbGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(passes(stream.as_bytes()), stream.len(), "{stream:?}");
        }
    }

    #[test]
    fn smuggling_stops_before_the_head_is_complete() {
        for stream in [
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0x10\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 12345678901234567890\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\nY: b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\rY: b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n",
        ] {
            let end = stream.find("\r\n\r\n").unwrap() + 4;
            assert!(passes(stream.as_bytes()) < end, "{stream:?}");
        }
    }

    #[test]
    fn what_follows_a_body_is_looked_at_again() {
        let stream = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}GET / HTTP/1.1\r\nX: a\n\r\n\r\n";
        assert!(passes(stream.as_bytes()) < stream.len());
    }
}
