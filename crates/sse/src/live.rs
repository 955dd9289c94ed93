//! Streams that have been shown everything so far. What is new is written to all of them without waiting.

use bytes::Bytes;
use tokio::time::Instant;

use crate::hub::Hub;
use crate::stream::{Stream, WriteOutcome};

/// What a job keeps for a stream that is up to date.
pub trait Member {
    /// Returns the stream.
    fn stream(&mut self) -> &mut Stream;
}

/// A list of streams that are up to date, in no order.
pub struct LiveList<M>(Vec<M>);

impl<M> Default for LiveList<M> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<M: Member> LiveList<M> {
    /// Adds a stream that is up to date.
    pub fn push(&mut self, member: M) {
        self.0.push(member);
    }

    /// Returns the streams in the list.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut M> {
        self.0.iter_mut()
    }

    /// Removes all streams and returns them.
    pub fn take_all(&mut self) -> Vec<M> {
        std::mem::take(&mut self.0)
    }

    /// Removes the streams whose client has left or whose time is over, and returns them.
    pub fn remove_ended(&mut self) -> Vec<M> {
        self.0.extract_if(.., |member| member.stream().is_over()).collect()
    }

    /// Removes the streams for which `wanted` returns true, and returns them.
    pub fn take_if(&mut self, mut wanted: impl FnMut(&M) -> bool) -> Vec<M> {
        self.0.extract_if(.., |member| wanted(member)).collect()
    }

    /// Gives each stream an end within the drain window.
    pub fn drain(&mut self, hub: &Hub) {
        for member in &mut self.0 {
            hub.drain_stream(member.stream());
        }
    }

    /// Writes to each stream the bytes that `bytes_for` returns for it, if any, as far as its socket takes them. Removes
    /// the streams whose socket did not take all, and returns them with what became of the bytes.
    #[must_use = "a stream that is returned has to be served or ended"]
    pub fn write(
        &mut self,
        hub: &Hub,
        mut bytes_for: impl FnMut(&mut M) -> Option<Bytes>,
    ) -> Vec<(M, WriteOutcome)> {
        let now = Instant::now();
        let mut removed = Vec::new();
        let (mut frames, mut length, mut at) = (0, 0, 0);
        while let Some(member) = self.0.get_mut(at) {
            let Some(bytes) = bytes_for(member) else {
                at += 1;
                continue;
            };
            let bytes_length = bytes.len() as u64;
            let stream = member.stream();
            match stream.try_write(bytes) {
                WriteOutcome::Complete => {
                    stream.last_write = now;
                    frames += 1;
                    length += bytes_length;
                    at += 1;
                }
                outcome => {
                    if matches!(outcome, WriteOutcome::Partial(_)) {
                        hub.metrics().fell_behind.inc();
                    }
                    removed.push((self.0.swap_remove(at), outcome));
                }
            }
        }
        hub.metrics().deliveries.inc_by(frames);
        hub.metrics().delivered_bytes.inc_by(length);
        removed
    }
}
