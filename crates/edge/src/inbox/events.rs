//! The pure part of inboxes: places in mailboxes, their text in ids, and the events that devices receive.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use tutti_feed::{Cursor, Item, Letter, Mailbox, MailboxChange, Position, Since};
use tutti_model::Notification;
use tutti_model::notification::{is_topic, to_json};

use crate::metrics::Metrics;
use tutti_model::events::{DELETED, NOTIFICATION, READ};
use tutti_sse::events::Events;
use tutti_sse::frame::Frame;

/// A mailbox that a device follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The address, as `tutti_model::notification` writes it.
    pub(crate) name: Bytes,
    /// The bucket whose feed announces what is filed in the mailbox.
    pub(crate) bucket: usize,
    /// The topic, unless this is the user's own mailbox.
    pub(crate) topic: Option<String>,
}

/// What a device has been shown of one mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Nothing, and the device wants only what comes.
    Now,
    /// Nothing, and the device wants all that there is.
    Nothing,
    /// A part of all that there is: the items up to the place `after`. `begun` is the position of the feed when the
    /// first part was read.
    Part { after: Position, begun: Position },
    /// All up to this place of the feed. `None` is the place before the first record.
    UpTo(Option<Position>),
}

impl Shown {
    /// Returns the part of the mailbox that the device lacks.
    pub(crate) fn since(self) -> Since {
        match self {
            Self::Now => Since::Now,
            Self::Nothing => Since::All,
            Self::Part { after, begun } => Since::Rest { after, begun },
            Self::UpTo(place) => Since::Place(place),
        }
    }

    /// Returns what the device has been shown once it has also been shown the items of `mailbox` up to `place`.
    pub(crate) fn and(self, place: Position, mailbox: &Mailbox) -> Self {
        match self {
            Self::Now | Self::UpTo(_) => Self::UpTo(Some(place)),
            Self::Nothing => Self::Part { after: place, begun: mailbox.position.unwrap_or(place) },
            Self::Part { begun, .. } => Self::Part { after: place, begun },
        }
    }
}

/// Returns the `id:` of a device: `u.PLACE~t.TOPIC.PLACE`, with a place for each mailbox. [`Cursor::text_of`] writes
/// the places.
pub(crate) fn id_of<T: AsRef<str>>(addresses: &[Address], place: impl Fn(usize) -> T) -> String {
    let mut id = String::with_capacity(addresses.len() * 40);
    for (at, address) in addresses.iter().enumerate() {
        if at > 0 {
            id.push('~');
        }
        match &address.topic {
            None => id.push('u'),
            Some(topic) => {
                id.push_str("t.");
                id.push_str(topic);
            }
        }
        id.push('.');
        id.push_str(place(at).as_ref());
    }
    id
}

/// Returns what a device with this `id:` has been shown of each of the mailboxes. A mailbox that the id does not name
/// is followed from now on. Returns `None` if [`id_of`] does not write such an id.
pub(crate) fn shown_of(id: &str, addresses: &[Address]) -> Option<Vec<Shown>> {
    let mut user = None;
    let mut topics = BTreeMap::new();
    for part in id.split('~') {
        let (name, place) = part.rsplit_once('.')?;
        let [place] = Cursor::parse(place)?.0[..] else { return None };
        match name.strip_prefix("t.") {
            Some(topic) if is_topic(topic) => topics.insert(topic, place),
            None if name == "u" => user.replace(place),
            _ => return None,
        };
    }
    user?;
    let shown = |address: &Address| {
        let place = match &address.topic {
            None => user,
            Some(topic) => topics.get(topic.as_str()).copied(),
        };
        place.map_or(Shown::Now, Shown::UpTo)
    };
    Some(addresses.iter().map(shown).collect())
}

/// A letter of a record, and the event that devices receive for it. The event is encoded once for all devices and
/// workers, when the first of them needs it.
#[derive(Debug)]
pub(crate) struct EncodedLetter {
    pub(crate) letter: Letter,
    frame: OnceLock<Frame>,
}

impl EncodedLetter {
    /// Wraps a letter, whose event is not encoded yet.
    pub(crate) fn new(letter: Letter) -> Arc<Self> {
        Arc::new(Self { letter, frame: OnceLock::new() })
    }

    /// Returns the event, without an id.
    pub(crate) fn frame(&self, metrics: &Metrics) -> &Frame {
        self.frame.get_or_init(|| {
            metrics.letters_encoded.inc();
            let Letter { address, unread, change } = &self.letter;
            let topic = address.strip_prefix(b"topic:".as_slice());
            let topic = topic.and_then(|topic| std::str::from_utf8(topic).ok());
            let unread = topic.is_none().then_some(*unread);
            let mut events = Events::default();
            match change {
                MailboxChange::Filed { payload, .. } => {
                    events.event(NOTIFICATION, &notification(payload, topic, unread, false));
                }
                MailboxChange::Read(ids) => drop(events.event(READ, &marked(ids, unread))),
                MailboxChange::Deleted(ids) => drop(events.event(DELETED, &marked(ids, unread))),
                // No device of the bucket is in the list then, because a gap has them all read their mailboxes.
                MailboxChange::Gap(_) => drop(events.heartbeat()),
            }
            events.frame()
        })
    }
}

/// Returns the data of the event `notification`. `unread` is the number of unread notifications after it.
pub(crate) fn notification(payload: &Bytes, topic: Option<&str>, unread: Option<u32>, read: bool) -> String {
    let kept = Notification::decode(payload.clone()).unwrap_or_default();
    to_json(&kept, topic, unread, read)
}

/// Returns the data of the events `read` and `deleted`.
fn marked<T: AsRef<[u8]>>(ids: &[T], unread: Option<u32>) -> String {
    let ids: Vec<_> = ids.iter().map(|id| String::from_utf8_lossy(id.as_ref())).collect();
    json!({ "ids": ids, "unread": unread.unwrap_or(0) }).to_string()
}

/// Events of one record that a device has missed.
#[derive(Debug)]
pub(crate) struct Missed {
    /// The place of the record. A device that receives the events has been shown all up to it.
    pub(crate) place: Position,
    pub(crate) events: Events,
}

/// Returns what a device lacks of a mailbox, in the order of the records. The mailbox was read from what the device has
/// been shown.
pub(crate) fn missed(mailbox: &Mailbox, shown: Shown, topic: Option<&str>) -> Vec<Missed> {
    let Some(newest) = mailbox.position else { return Vec::new() };
    let at = |seq: u64, time_us: u64| Position { epoch: newest.epoch, seq, time_us };
    let unread = topic.is_none().then_some(mailbox.unread);
    let mut missed: BTreeMap<(u64, u64), Events> = BTreeMap::new();
    for Item { seq, time_us, id, payload, .. } in &mailbox.items {
        let read = mailbox.marks.contains_key(id);
        let events = missed.entry((*seq, *time_us)).or_default();
        events.event(NOTIFICATION, &notification(payload, topic, unread, read));
    }
    let shown_up_to = match shown {
        Shown::UpTo(place) => Some(place),
        Shown::Part { after, .. } => Some(Some(after)),
        Shown::Now | Shown::Nothing => None,
    };
    if let Some(place) = shown_up_to {
        let here: std::collections::HashSet<&str> =
            mailbox.items.iter().map(|item| item.id.as_str()).collect();
        let mut marks: BTreeMap<(u64, u64, bool), Vec<&str>> = BTreeMap::new();
        for (id, mark) in &mailbox.marks {
            if mark.is_later_than(place) && !here.contains(id.as_str()) {
                marks.entry((mark.seq, mark.time_us, mark.deleted)).or_default().push(id);
            }
        }
        for ((seq, time_us, deleted), ids) in marks {
            let events = missed.entry((seq, time_us)).or_default();
            events.event(if deleted { DELETED } else { READ }, &marked(&ids, unread));
        }
    }
    if let Some(last) = mailbox.items.last().filter(|_| mailbox.more) {
        // What came after the last item is read later.
        missed.split_off(&(last.seq, last.time_us.saturating_add(1)));
    }
    missed.into_iter().map(|((seq, time_us), events)| Missed { place: at(seq, time_us), events }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(topic: Option<&str>) -> Address {
        Address { name: Bytes::new(), bucket: 0, topic: topic.map(str::to_owned) }
    }

    #[test]
    fn what_is_no_id_is_told_from_one() {
        let addresses = [address(None)];
        for id in ["", "0", "u", "u.", "u.!", "x.AA", "t.change.AA", "u.AA~", "u.AA~t.a b.AA", "u.AAAA"] {
            assert_eq!(shown_of(id, &addresses), None, "{id}");
        }
        assert_eq!(shown_of("u.AA", &addresses), Some(vec![Shown::UpTo(None)]));
        let two = [address(None), address(Some("news"))];
        assert_eq!(shown_of("u.AA", &two), Some(vec![Shown::UpTo(None), Shown::Now]));
        assert_eq!(shown_of("u.AA~t.other.AA", &two), Some(vec![Shown::UpTo(None), Shown::Now]));
    }

    proptest! {
        #[test]
        fn an_id_survives_its_text(
            places in proptest::collection::vec(proptest::option::of((any::<u32>(), any::<u64>(), any::<u64>())), 3),
        ) {
            let place = |at: usize| places[at].map(|(epoch, seq, time_us)| Position { epoch, seq, time_us });
            let addresses = [address(None), address(Some("a.b-c")), address(Some("d_1"))];
            let id = id_of(&addresses, |at| Cursor::text_of(place(at)));
            prop_assert_eq!(shown_of(&id, &addresses), Some((0..3).map(|at| Shown::UpTo(place(at))).collect()));
            let turned = [addresses[0].clone(), addresses[2].clone()];
            prop_assert_eq!(shown_of(&id, &turned), Some(vec![Shown::UpTo(place(0)), Shown::UpTo(place(2))]));
        }
    }
}
