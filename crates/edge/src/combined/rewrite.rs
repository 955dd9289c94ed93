//! Rewriting the bytes of a part into bytes of the combined stream: one id of all parts, and control events that name
//! their stream. This is pure code without IO.

use tutti_model::events::{END, RESET, STATUS};

/// A kind of stream that a combined stream can have as a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartKind {
    Inbox,
    Room,
    Map,
}

impl PartKind {
    const ALL: [Self; 3] = [Self::Inbox, Self::Room, Self::Map];

    /// Returns the name of the part in control events.
    fn word(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Room => "room",
            Self::Map => "map",
        }
    }

    /// Returns the letter that stands before the id of the part.
    fn letter(self) -> char {
        match self {
            Self::Inbox => 'i',
            Self::Room => 'r',
            Self::Map => 'm',
        }
    }
}

/// The last id of each part. The text form is `iID!rID!mID`, in which parts without an id are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids([Option<String>; 3]);

impl Ids {
    /// Reads the text form. Returns `None` for anything that [`Ids::to_text`] does not write.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut ids = Self::default();
        for id in text.split('!') {
            let mut rest = id.chars();
            let letter = rest.next()?;
            let part = PartKind::ALL.into_iter().find(|part| part.letter() == letter)?;
            let id = rest.as_str();
            // The id is repeated in each event, where a line feed in it would begin another line.
            let is_text = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_text || ids.0[part as usize].replace(id.to_owned()).is_some() {
                return None;
            }
        }
        Some(ids)
    }

    /// Returns the last id of a part.
    pub(crate) fn of(&self, part: PartKind) -> Option<&str> {
        self.0[part as usize].as_deref()
    }

    /// Removes the ids of all other parts.
    pub(crate) fn only(&mut self, parts: impl Iterator<Item = PartKind>) {
        let all = std::mem::take(self);
        parts.filter_map(|part| Some((part, all.of(part)?))).for_each(|(part, id)| self.set(part, id));
    }

    /// Replaces the last id of a part.
    pub(crate) fn set(&mut self, part: PartKind, id: &str) {
        self.0[part as usize] = Some(id.to_owned());
    }

    /// Returns the text form.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for part in PartKind::ALL {
            if let Some(id) = self.of(part) {
                if !text.is_empty() {
                    text.push('!');
                }
                text.push(part.letter());
                text.push_str(id);
            }
        }
        text
    }
}

/// Turns the bytes of one part's stream into bytes of the combined stream, as they come. It holds at most one line, and
/// never a line of data.
#[derive(Debug)]
pub(crate) struct Rewriter {
    part: PartKind,
    /// The beginning of the current line, until it is known what becomes of it.
    line: Vec<u8>,
    /// Whether the rest of the current line passes unchanged.
    passing: bool,
    /// Whether the current event is one that every stream has, so that its data must name the stream.
    control: bool,
    /// Whether the current event is one that the combined stream has of its own, so that only its id counts.
    skipped: bool,
    /// Whether something of the current event has been written.
    begun: bool,
    /// Whether the event `end` has come.
    over: bool,
}

impl Rewriter {
    /// Returns a rewriter at the beginning of the stream of a part.
    pub(crate) fn new(part: PartKind) -> Self {
        Self {
            part,
            line: Vec::new(),
            passing: false,
            control: false,
            skipped: false,
            begun: false,
            over: false,
        }
    }

    /// Whether the bytes so far end between two events, so that an event of another part may follow.
    pub(crate) fn is_between(&self) -> bool {
        !self.begun && !self.skipped && !self.passing && self.line.is_empty()
    }

    /// Whether the part has ended for good, by the event `end`.
    pub(crate) fn is_over(&self) -> bool {
        self.over && self.is_between()
    }

    /// Takes the next bytes of the part, appends to `out` what the client receives, and updates the id of the part.
    pub(crate) fn push(&mut self, mut bytes: &[u8], ids: &mut Ids, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (line, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            bytes = rest;
            if self.passing {
                if !self.skipped {
                    out.extend_from_slice(line);
                }
                self.passing = end.is_none();
                continue;
            }
            self.line.extend_from_slice(line);
            if self.line.starts_with(b"data: ") && (self.line.len() > b"data: ".len() || end.is_some()) {
                self.data(end.is_some(), out);
            } else if end.is_some() {
                let line = std::mem::take(&mut self.line);
                self.whole_line(&line, ids, out);
            }
        }
    }

    /// Writes the beginning of a line of data, or all of it if `whole`.
    fn data(&mut self, whole: bool, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.line);
        self.passing = !whole;
        if self.skipped {
            return;
        }
        match line.strip_prefix(b"data: {") {
            Some(rest) if self.control => {
                out.extend_from_slice(format!("data: {{\"stream\":\"{}\",", self.part.word()).as_bytes());
                out.extend_from_slice(rest);
            }
            _ => out.extend_from_slice(&line),
        }
        self.begun = true;
    }

    /// Writes a line that is not data, or what replaces it.
    fn whole_line(&mut self, line: &[u8], ids: &mut Ids, out: &mut Vec<u8>) {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if text.is_empty() {
            if std::mem::take(&mut self.begun) {
                out.push(b'\n');
            }
            (self.control, self.skipped) = (false, false);
        } else if let Some(id) = text.strip_prefix(b"id: ") {
            ids.set(self.part, &String::from_utf8_lossy(id));
            if !self.skipped {
                out.extend_from_slice(format!("id: {}\n", ids.to_text()).as_bytes());
                self.begun = true;
            }
        } else if [&b"event: heartbeat"[..], b"event: reconnect"].contains(&text) {
            self.skipped = true;
        } else if !self.skipped {
            if let Some(name) = text.strip_prefix(b"event: ") {
                self.control = [STATUS, RESET, END].iter().any(|own| own.as_bytes() == name);
                self.over |= name == END.as_bytes();
            }
            out.extend_from_slice(line);
            self.begun = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewritten(part: PartKind, pieces: &[&[u8]], ids: &mut Ids) -> (String, Rewriter) {
        let (mut rewriter, mut out) = (Rewriter::new(part), Vec::new());
        for piece in pieces {
            rewriter.push(piece, ids, &mut out);
        }
        (String::from_utf8(out).unwrap(), rewriter)
    }

    #[test]
    fn ids_are_one_and_control_events_say_of_which_stream_they_are() {
        let mut ids = Ids::parse("mABC").unwrap();
        let text = b"event: heartbeat\ndata: {\"at\":1}\nretry: 1000\n\n\
            event: connected\ndata: {\"unread\":1}\nid: u.AA\n\n\
            event: status\ndata: {\"state\":\"live\"}\n\nid: u.BB\nevent: notification\ndata: {\"status\":1}\n\n\
            event: heartbeat\ndata: {\"at\":2}\nid: u.CC\n\nevent: reconnect\ndata: {\"reason\":\"drain\"}\nretry: 5\n\n";
        let expected = "event: connected\ndata: {\"unread\":1}\nid: iu.AA!mABC\n\n\
            event: status\ndata: {\"stream\":\"inbox\",\"state\":\"live\"}\n\n\
            id: iu.BB!mABC\nevent: notification\ndata: {\"status\":1}\n\n";
        let (told, rewriter) = rewritten(PartKind::Inbox, &[text], &mut ids);
        assert_eq!(told, expected);
        assert!(rewriter.is_between() && !rewriter.is_over());
        assert_eq!(ids.of(PartKind::Inbox), Some("u.CC"), "the whole's next id tells");
        assert_eq!(Ids::parse(&ids.to_text()), Some(ids));
    }

    #[test]
    fn the_id_of_a_combined_stream_is_the_one_that_earlier_versions_wrote() {
        let text =
            "iu.AQECAwSsAoGA4sTyopkD!rAQECAwSsAoGA4sTyopkD!mAQECAwSsAoGA4sTyopkD.12.2143.1432.2145.1435";
        let mut ids = Ids::default();
        ids.set(PartKind::Map, "AQECAwSsAoGA4sTyopkD.12.2143.1432.2145.1435");
        ids.set(PartKind::Inbox, "u.AQECAwSsAoGA4sTyopkD");
        ids.set(PartKind::Room, "AQECAwSsAoGA4sTyopkD");
        assert_eq!(ids.to_text(), text);
        assert_eq!(Ids::parse(text), Some(ids));
    }

    #[test]
    fn an_end_is_an_end_and_what_is_no_id_is_none() {
        let mut ids = Ids::default();
        let (told, rewriter) =
            rewritten(PartKind::Room, &[b"event: end\ndata: {\"reason\":\"closed\"}\n\n"], &mut ids);
        assert_eq!(told, "event: end\ndata: {\"stream\":\"room\",\"reason\":\"closed\"}\n\n");
        assert!(rewriter.is_over());
        for text in ["", "x", "i", "iA!", "iA!iB", "zA", "0", "iA\nevent: x", "iA B", "i\u{e4}", "i\0"] {
            assert_eq!(Ids::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_same_is_told(cuts in proptest::collection::vec(0usize..400, 0..20)) {
            let text = "event: heartbeat\ndata: {\"at\":1}\nretry: 5\n\nevent: reset\ndata: {\"reason\":\"gap\"}\nid: 0\n\n\
                event: liveMapLocation\ndata: [{\"ä\":1},{\"b\":2}]\nid: XYZ\n\nevent: a\ndata: x\ndata: \ndata: y\n\n\
                event: heartbeat\ndata: {\"at\":1}\nid: W\n\nevent: status\ndata: {\"state\":\"live\"}\n\n".as_bytes();
            let (whole, _) = rewritten(PartKind::Map, &[text], &mut Ids::default());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % text.len()).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            let (told, rewriter) = rewritten(PartKind::Map, &pieces, &mut Ids::default());
            prop_assert_eq!(told, whole);
            prop_assert!(rewriter.is_between());
        }
    }
}
