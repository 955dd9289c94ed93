//! The text of Server-Sent Events.

use std::fmt::{Display, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::frame::Frame;
use tutti_model::events::HEARTBEAT;

/// The text of some events, each a block with a name and data.
///
/// An `id:` or `retry:` belongs to an event. Many client libraries hand a block without data to their program as
/// an empty message, and a comment to nobody; so neither is ever written.
#[derive(Clone, Debug, Default)]
pub struct Events(String);

impl Events {
    /// Returns whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A named event; `data` must be one line. No `id:`.
    pub fn event(&mut self, name: &str, data: &str) -> &mut Self {
        debug_assert!(!data.contains(['\n', '\r']), "data is one line");
        let _ = write!(self.0, "event: {name}\ndata: {data}\n\n");
        self
    }

    /// A named event whose data may have line feeds, but no carriage returns. No `id:`.
    pub fn lines(&mut self, name: &str, data: &str) -> &mut Self {
        debug_assert!(!data.contains('\r'), "a stream turns it into a line feed");
        let _ = writeln!(self.0, "event: {name}");
        for line in data.split('\n') {
            let _ = writeln!(self.0, "data: {line}");
        }
        self.0.push('\n');
        self
    }

    /// Gives the last of these events an id; if there is none, adds a heartbeat for it. All events that the id covers
    /// must have been sent before.
    pub fn id(&mut self, id: &str) -> &mut Self {
        self.field("id", id)
    }

    /// Tells the client, in the last of these events, how long it is to wait before it comes back.
    pub fn retry(&mut self, after: Duration) -> &mut Self {
        self.field("retry", after.as_millis())
    }

    /// Adds a field to the last event.
    fn field(&mut self, name: &str, value: impl Display) -> &mut Self {
        if self.is_empty() {
            self.heartbeat();
        }
        // The blank line that ends the event is taken back.
        self.0.pop();
        let _ = write!(self.0, "{name}: {value}\n\n");
        self
    }

    /// An event that says only that the connection is alive, and what time it is here (milliseconds since 1970).
    /// An EventSource passes over it unless its program listens to that name; a comment would reach no program.
    pub fn heartbeat(&mut self) -> &mut Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        self.event(HEARTBEAT, &format!(r#"{{"at":{at}}}"#))
    }

    /// An event after which the body ends and the client is to come back: its data has the reason and the time to wait.
    pub fn come_back(&mut self, name: &str, reason: &str, after: Duration) -> &mut Self {
        let data = format!(r#"{{"reason":"{reason}","retryMs":{}}}"#, after.as_millis());
        self.event(name, &data).retry(after)
    }

    /// An event whose data is an array of these JSON objects; no event if there are none.
    pub fn array<'a>(&mut self, name: &str, items: impl Iterator<Item = &'a str>) -> &mut Self {
        let mut items = items.peekable();
        if items.peek().is_none() {
            return self;
        }
        let _ = write!(self.0, "event: {name}\ndata: [");
        for (i, item) in items.enumerate() {
            if i > 0 {
                self.0.push(',');
            }
            self.0.push_str(item);
        }
        self.0.push_str("]\n\n");
        self
    }

    /// Appends the events of `events`.
    pub fn append(&mut self, events: &Self) {
        self.0.push_str(&events.0);
    }

    /// Returns the events as a frame. There must be an event: an empty chunk would end the body.
    pub fn frame(&self) -> Frame {
        Frame::new(&self.0)
    }

    /// Returns the length of the text in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the text.
    pub fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_the_event_before_it() {
        let mut events = Events::default();
        events.event("a", "1").event("b", "2").id("x");
        assert_eq!(events.clone().into_text(), "event: a\ndata: 1\n\nevent: b\ndata: 2\nid: x\n\n");
    }

    #[test]
    fn every_block_has_a_name_and_data() {
        let mut events = Events::default();
        events.id("x").retry(Duration::from_secs(1));
        let text = events.into_text();
        let (head, rest) = text.split_at("event: heartbeat\ndata: {\"at\":".len());
        assert_eq!(head, "event: heartbeat\ndata: {\"at\":");
        assert!(rest.ends_with("}\nid: x\nretry: 1000\n\n"), "{rest}");
        assert!(rest.starts_with(|first: char| first.is_ascii_digit()), "{rest}");
    }

    #[test]
    fn a_client_that_is_to_come_back_hears_why_and_when() {
        let mut events = Events::default();
        events.come_back("reconnect", "drain", Duration::from_millis(700));
        let expected = "event: reconnect\ndata: {\"reason\":\"drain\",\"retryMs\":700}\nretry: 700\n\n";
        assert_eq!(events.into_text(), expected);
    }

    #[test]
    fn an_empty_array_is_no_event() {
        let mut events = Events::default();
        events.array("a", [].into_iter()).array("b", ["1", "2"].into_iter());
        assert_eq!(events.into_text(), "event: b\ndata: [1,2]\n\n");
    }
}
