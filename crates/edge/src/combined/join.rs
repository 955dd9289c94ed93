//! A worker's combined streams, each of which joins several streams in one connection.
//!
//! Each part is a stream that has a pipe in place of a socket. A task reads the other ends of the pipes and writes to
//! the client. While the client is slow the task reads nothing, so the parts fall behind as they would with a client of
//! their own.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::select_all;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};
use tutti_sse::coding::Coding;
use tutti_sse::frame::chunk_of;
use tutti_sse::hub::{FINISH, Hub};
use tutti_sse::pipe::{PipeReader, pipe};
use tutti_sse::socket::Socket;
use tutti_sse::stream::{CloseReason, Stream};

use crate::combined::rewrite::{Ids, PartKind, Rewriter};
use crate::http::open::Part;

/// Bytes that the pipe of a part holds while the client is slow.
const HELD_BYTES: usize = 16 * 1024;
/// Time between two checks whether the client is still there.
const LOOK: Duration = Duration::from_secs(1);
/// Number of reads from a part before the others have their turn.
const TURN: usize = 4;
/// How much later than the whole stream a part ends, unless its token expires. The whole ends first and takes its parts
/// with it.
const AFTER: Duration = Duration::from_secs(60);

/// What a combined stream shows.
pub(crate) struct Combined {
    /// The parts of the jobs.
    pub(crate) parts: Vec<(PartKind, Part)>,
    /// The last id of each part that the client was shown.
    pub(crate) ids: Ids,
}

/// A worker's combined streams. Each is a task of its own, so there is no list of them.
pub(crate) struct CombinedStreams {
    hub: Rc<Hub>,
}

/// The end of a part from which the task of a combined stream reads.
struct Inlet {
    pipe: PipeReader,
    rewriter: Rewriter,
    /// Bytes that were read after the end of an event, when the turn of the other parts had come.
    held: Vec<u8>,
}

impl CombinedStreams {
    /// Returns the combined streams of the worker with this hub.
    pub(crate) fn new(hub: Rc<Hub>) -> Rc<Self> {
        Rc::new(Self { hub })
    }

    /// Takes a combined stream over: opens a stream for each of its parts, and joins what they write.
    pub(crate) fn admit(self: Rc<Self>, stream: Stream, hello: Bytes, combined: Combined) {
        let Combined { parts, ids } = combined;
        let mut inlets = Vec::new();
        for (kind, part) in parts {
            let (writer, reader) = pipe(HELD_BYTES);
            let latest = stream.ends_at + AFTER;
            let (ends_at, reason) = match part.expires.map(|left| Instant::now() + left) {
                Some(at) if at < latest => (at, CloseReason::Token),
                _ => (latest, CloseReason::Life),
            };
            let socket = Socket::Part(writer);
            let part_stream = Stream::new(socket, false, Coding::Identity, ends_at, reason, None);
            self.hub.open(part_stream, part.start, None);
            inlets.push(Inlet { pipe: reader, rewriter: Rewriter::new(kind), held: Vec::new() });
        }
        spawn_local(async move {
            let reason = self.join(stream, hello, inlets, ids).await;
            self.hub.metrics().ended(reason);
        });
    }

    /// Writes the events of all parts, each as a whole, until all parts are over, one of them breaks off, or the stream
    /// ends. Returns why the stream ended.
    async fn join(
        &self,
        mut stream: Stream,
        hello: Bytes,
        mut inlets: Vec<Inlet>,
        mut ids: Ids,
    ) -> CloseReason {
        if let Err(end) = self.hub.write(&mut stream, hello).await {
            return end;
        }
        loop {
            if self.hub.is_due(&mut stream) {
                return self.hub.close(stream);
            }
            let mut at = 0;
            // Each part was left between two events.
            while at < inlets.len() && stream.ends_at > Instant::now() {
                match self.pass_on(&mut stream, &mut inlets[at], &mut ids).await {
                    Ok(true) => at += 1,
                    Ok(false) if inlets[at].rewriter.is_over() => drop(inlets.swap_remove(at)),
                    // The part was cut off within an event, which must not look whole to the client.
                    Ok(false) if !inlets[at].rewriter.is_between() => return CloseReason::Stalled,
                    // The client must come back, because without this part it would miss something unnoticed.
                    Ok(false) => {
                        stream.planned_end =
                            if self.hub.is_draining() { CloseReason::Drain } else { CloseReason::Life };
                        return self.hub.close(stream);
                    }
                    Err(end) => return end,
                }
            }
            if inlets.is_empty() {
                stream.ends_at = Instant::now();
                stream.planned_end = CloseReason::Over;
                return self.hub.close(stream);
            }
            if inlets.iter().all(|inlet| inlet.held.is_empty()) {
                let readable = select_all(inlets.iter().map(|inlet| inlet.pipe.readable().boxed_local()));
                tokio::select! {
                    _ = readable => {}
                    () = self.hub.pause(&mut stream, Instant::now() + LOOK) => {}
                }
            }
            if let Err(end) = self.hub.keep_alive(&mut stream, &ids.to_text()).await {
                return end;
            }
        }
    }

    /// Writes what a part has sent, up to the end of an event. Returns whether the part is still open.
    ///
    /// # Errors
    /// Why the whole stream ended.
    async fn pass_on(
        &self,
        stream: &mut Stream,
        inlet: &mut Inlet,
        ids: &mut Ids,
    ) -> Result<bool, CloseReason> {
        let mut rounds = 0;
        loop {
            let held = std::mem::take(&mut inlet.held);
            let read = if held.is_empty() { inlet.pipe.try_take() } else { Some(held) };
            let Some(read) = read else {
                if inlet.rewriter.is_between() {
                    return Ok(true);
                }
                // Within an event of this part nothing else can be written.
                let (now, over_at, end) = (Instant::now(), stream.ends_at + FINISH, stream.planned_end);
                tokio::select! {
                    () = inlet.pipe.readable() => {}
                    () = self.hub.pause(stream, now + LOOK), if stream.ends_at > now => {}
                    () = sleep_until(over_at) => return Err(end),
                }
                if stream.has_left() {
                    return Err(CloseReason::Left);
                }
                continue;
            };
            if read.is_empty() {
                return Ok(false);
            }
            rounds += 1;
            // In the last round only the current event is finished, so that the other parts have their turn or the
            // stream can end.
            let is_last = rounds >= TURN || stream.ends_at <= Instant::now();
            let end = read.windows(2).position(|two| two == b"\n\n").map(|at| at + 2);
            let now = end.filter(|_| is_last).unwrap_or(read.len());
            let mut out = Vec::with_capacity(now + 64);
            inlet.rewriter.push(&read[..now], ids, &mut out);
            inlet.held = read[now..].to_vec();
            if !out.is_empty() {
                self.hub.deliver_all(stream, chunk_of(&out, stream.chunked)).await?;
            }
            if is_last && inlet.rewriter.is_between() {
                return Ok(true);
            }
        }
    }
}
