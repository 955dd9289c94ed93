//! A worker's combined streams: several in one connection, for browsers' limit of six to an origin.
//!
//! Each part is a stream like any other, only that in place of a socket it has a pipe; a task reads the other
//! ends and writes to the client. While the client is slow it reads nothing, so that the parts fall
//! behind as they would with a client of their own.

use std::rc::Rc;
use std::time::Duration;

use actix_web::rt::spawn;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::select_all;
use tokio::time::{Instant, sleep_until};

use crate::combined::rewrite::{Ids, Part, Rewriter};
use crate::sse::coding::Coding;
use crate::sse::frame::{Events, chunk_of};
use crate::sse::hub::{FINISH, Hub, What};
use crate::sse::pipe::{PipeReader, pipe};
use crate::sse::stream::{End, Socket, Stream};

/// What a part's pipe holds for a client that is slow.
const HELD_BYTES: usize = 16 * 1024;
/// Whether the client is still there is looked at so often.
const LOOK: Duration = Duration::from_secs(1);
/// A part is read so often before the others have their turn.
const TURN: usize = 4;
/// A part ends with the whole; where its own end is no other, it is after that.
const AFTER: Duration = Duration::from_secs(60);

/// What a combined stream shows.
pub(crate) struct Several {
    /// What each shows, and how long its token is valid, if one was needed.
    pub(crate) parts: Vec<(Part, What, Option<Duration>)>,
    /// What the client was shown before.
    pub(crate) ids: Ids,
}

/// One part, as the task reads it.
struct Inlet {
    pipe: PipeReader,
    rewriter: Rewriter,
    /// What was read behind the end of an event, when it was the others' turn.
    held: Vec<u8>,
}

impl Hub {
    /// Takes a stream over, its response head written.
    pub(crate) fn admit_several(self: Rc<Self>, stream: Stream, hello: Bytes, several: Several) {
        let Several { parts, ids } = several;
        let mut inlets = Vec::new();
        for (part, what, expires) in parts {
            let (writer, reader) = pipe(HELD_BYTES);
            let latest = stream.ends_at + AFTER;
            let (ends_at, end) = match expires.map(|left| Instant::now() + left) {
                Some(at) if at < latest => (at, End::Token),
                _ => (latest, End::Life),
            };
            let last_write = Instant::now();
            let socket = Socket::Part(writer);
            let (drained, _counted) = (false, None);
            let (chunked, coding, sum) = (false, Coding::Identity, None);
            let part_stream =
                Stream { socket, chunked, coding, sum, ends_at, end, last_write, drained, _counted };
            self.clone().take_over(part_stream, what, None);
            inlets.push(Inlet { pipe: reader, rewriter: Rewriter::new(part), held: Vec::new() });
        }
        spawn(async move {
            let end = self.join(stream, hello, inlets, ids).await;
            self.ended(end);
        });
    }

    /// Writes what the parts tell, each event whole, until one of them ends, or the client's time is over.
    async fn join(&self, mut stream: Stream, hello: Bytes, mut inlets: Vec<Inlet>, mut ids: Ids) -> End {
        if let Err(end) = self.write(&mut stream, hello).await {
            return end;
        }
        loop {
            if self.draining.is_cancelled() {
                stream.drain(self.drain_end());
            }
            if stream.ends_at <= Instant::now() {
                return stream.close(self.retry());
            }
            let mut at = 0;
            // Each was left between two events.
            while at < inlets.len() && stream.ends_at > Instant::now() {
                match self.pass_on(&mut stream, &mut inlets[at], &mut ids).await {
                    Ok(true) => at += 1,
                    Ok(false) if inlets[at].rewriter.is_over() => drop(inlets.swap_remove(at)),
                    // It was cut off within an event, which must not look whole.
                    Ok(false) if !inlets[at].rewriter.is_between() => return End::Stalled,
                    // The client is to come back: without this part it would miss something in silence.
                    Ok(false) => {
                        stream.end = if self.draining.is_cancelled() { End::Drain } else { End::Life };
                        return stream.close(self.retry());
                    }
                    Err(end) => return end,
                }
            }
            if inlets.is_empty() {
                stream.ends_at = Instant::now();
                stream.end = End::Over;
                return stream.close(self.retry());
            }
            if inlets.iter().all(|inlet| inlet.held.is_empty()) {
                let readable = select_all(inlets.iter().map(|inlet| inlet.pipe.readable().boxed_local()));
                tokio::select! {
                    _ = readable => {}
                    () = self.pause(&mut stream, Instant::now() + LOOK) => {}
                }
            }
            if let Err(end) = self.keep_alive_at(&mut stream, &ids.to_text()).await {
                return end;
            }
        }
    }

    /// Writes what a part has to tell, up to the end of an event; whether there may be more.
    async fn pass_on(&self, stream: &mut Stream, inlet: &mut Inlet, ids: &mut Ids) -> Result<bool, End> {
        let mut rounds = 0;
        loop {
            let held = std::mem::take(&mut inlet.held);
            let read = if held.is_empty() { inlet.pipe.try_take() } else { Some(held) };
            let Some(read) = read else {
                if inlet.rewriter.is_between() {
                    return Ok(true);
                }
                // Within an event nothing else can be written.
                let (now, over_at, end) = (Instant::now(), stream.ends_at + FINISH, stream.end);
                tokio::select! {
                    () = inlet.pipe.readable() => {}
                    () = self.pause(stream, now + LOOK), if stream.ends_at > now => {}
                    () = sleep_until(over_at) => return Err(end),
                }
                if stream.has_left() {
                    return Err(End::Left);
                }
                continue;
            };
            if read.is_empty() {
                return Ok(false);
            }
            rounds += 1;
            // The other parts are to have their turn, or the stream its end: up to the end of an event.
            let is_last = rounds >= TURN || stream.ends_at <= Instant::now();
            let end = read.windows(2).position(|two| two == b"\n\n").map(|at| at + 2);
            let now = end.filter(|_| is_last).unwrap_or(read.len());
            let mut out = Vec::with_capacity(now + 64);
            inlet.rewriter.push(&read[..now], ids, &mut out);
            inlet.held = read[now..].to_vec();
            if !out.is_empty() {
                self.deliver_all(stream, chunk_of(&out, stream.chunked)).await?;
            }
            if is_last && inlet.rewriter.is_between() {
                return Ok(true);
            }
        }
    }

    /// A stream of any kind. It begins with a heartbeat, so that bytes flow at once, which tells the client's last id
    /// again: a client forgets it at the first event of a connection on which it has not been told another.
    pub(crate) fn take_over(self: Rc<Self>, mut stream: Stream, what: What, last_id: Option<&str>) {
        self.metrics.opened.inc();
        self.metrics.streams.inc();
        let begin = stream.begin();
        let mut hello = Events::default();
        hello.heartbeat().retry(Duration::from_secs(1));
        if let Some(id) = last_id {
            hello.id(id);
        }
        let hello = stream.encode(&hello.frame());
        let hello = if begin.is_empty() { hello } else { [begin, hello].concat().into() };
        match what {
            What::Room(visit) => self.admit_visitor(stream, hello, visit),
            What::Topic(listen) => self.admit_listener(stream, hello, listen),
            What::Inbox(device) => self.admit_device(stream, hello, device),
            What::Several(several) => self.admit_several(stream, hello, several),
            What::Map(look) => self.admit_viewer(stream, hello, look),
        }
    }
}
