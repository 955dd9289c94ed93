//! Combined streams in one connection, the pure part: one id for all, and which stream an event is of.

use tutti_model::events::{END, RESET, STATUS};
/// What a combined stream is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartKind {
    Inbox,
    Room,
    Map,
}

impl PartKind {
    const ALL: [Self; 3] = [Self::Inbox, Self::Room, Self::Map];

    /// As control events name it.
    fn word(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Room => "room",
            Self::Map => "map",
        }
    }

    /// Before its id.
    fn letter(self) -> char {
        match self {
            Self::Inbox => 'i',
            Self::Room => 'r',
            Self::Map => 'm',
        }
    }
}

/// The last id of each part, as `iID!rID!mID`; a part without one is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ids([Option<String>; 3]);

impl Ids {
    /// Reads the text form; `None` for anything that [`Ids::to_text`] does not write.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut ids = Self::default();
        for id in text.split('!') {
            let mut rest = id.chars();
            let letter = rest.next()?;
            let part = PartKind::ALL.into_iter().find(|part| part.letter() == letter)?;
            let id = rest.as_str();
            // It is told again in each event: a line feed in it would begin another.
            let is_text = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_text || ids.0[part as usize].replace(id.to_owned()).is_some() {
                return None;
            }
        }
        Some(ids)
    }

    pub(crate) fn of(&self, part: PartKind) -> Option<&str> {
        self.0[part as usize].as_deref()
    }

    /// Without those of other parts.
    pub(crate) fn only(&mut self, parts: impl Iterator<Item = PartKind>) {
        let all = std::mem::take(self);
        parts.filter_map(|part| Some((part, all.of(part)?))).for_each(|(part, id)| self.set(part, id));
    }

    pub(crate) fn set(&mut self, part: PartKind, id: &str) {
        self.0[part as usize] = Some(id.to_owned());
    }

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

/// Turns the bytes of one part's stream into those of the whole, as they come; holds no more than a line
/// that is not data.
#[derive(Debug)]
pub(crate) struct Rewriter {
    part: PartKind,
    line: Vec<u8>,
    /// The rest of this line goes through as it is.
    passing: bool,
    /// The event is one that every stream has: it is to say which it is of.
    control: bool,
    /// The event is one that the whole has of its own: of this part's only the id counts.
    skipped: bool,
    /// Something of this event has been written.
    begun: bool,
    over: bool,
}

impl Rewriter {
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

    /// Whether another part's event may come now.
    pub(crate) fn is_between(&self) -> bool {
        !self.begun && !self.skipped && !self.passing && self.line.is_empty()
    }

    /// The part said that it ends for good.
    pub(crate) fn is_over(&self) -> bool {
        self.over && self.is_between()
    }

    /// Takes what came, and adds what is to be written.
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

    /// The beginning of a line of data, or all of it.
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
