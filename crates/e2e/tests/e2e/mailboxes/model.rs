//! A model of a bucket of mailboxes, in plain Rust.

use std::collections::{BTreeMap, HashSet};

use tutti_feed::{FileOutcome, MailboxLimits, Mark, Position};

use super::{HOUR, ITEM_BYTES};

pub(super) const STORY_KEEP: MailboxLimits = MailboxLimits { items: 5, bytes: 600, age: HOUR };

/// An item that was filed and not deleted.
pub(super) struct FiledItem {
    pub(super) id: String,
    pub(super) bytes: usize,
    /// The number of the record that brought the item. `read` is the number of the record that marked it as read.
    pub(super) seq: u64,
    pub(super) read: Option<u64>,
}

/// The model of a mailbox.
#[derive(Default)]
pub(super) struct MailboxModel {
    /// All items that were ever filed and not deleted.
    pub(super) lying: Vec<FiledItem>,
    /// The record of the last item that was trimmed. The mailbox lists the items after it.
    pub(super) cut_item: u64,
    /// The last record of which nothing is left in the mailbox. A reader that has not read it must be reset.
    cut: u64,
    known: HashSet<String>,
    /// Whether an item is deleted or read, and the record that said so.
    pub(super) marks: BTreeMap<String, (bool, u64)>,
}

impl MailboxModel {
    pub(super) fn listed(&self) -> impl Iterator<Item = &FiledItem> {
        self.lying.iter().filter(|item| item.seq > self.cut_item)
    }

    pub(super) fn unread(&self) -> u32 {
        self.listed().filter(|item| item.read.is_none()).count() as u32
    }

    pub(super) fn trim(&mut self) {
        let too_much = |plain: &Self| {
            let (items, bytes) =
                (plain.listed().count(), plain.listed().map(|item| item.bytes).sum::<usize>());
            items > 1 && (items > STORY_KEEP.items as usize || bytes > STORY_KEEP.bytes as usize)
        };
        while too_much(self) {
            let first = self.listed().next().unwrap();
            let (id, seq, read) = (first.id.clone(), first.seq, first.read.unwrap_or(0));
            self.marks.remove(&id);
            self.cut_item = seq;
            self.cut = self.cut.max(seq).max(read);
        }
    }

    fn bound_marks(&mut self) {
        if self.marks.len() <= 2 * STORY_KEEP.items as usize + 64 {
            return;
        }
        let mut deleted: Vec<(u64, String)> = self
            .marks
            .iter()
            .filter(|(_, (deleted, _))| *deleted)
            .map(|(id, (_, seq))| (*seq, id.clone()))
            .collect();
        deleted.sort();
        for (seq, id) in &deleted[..deleted.len().div_ceil(2)] {
            self.marks.remove(id);
            self.cut = self.cut.max(*seq);
        }
    }
}

/// The model of a bucket.
#[derive(Default)]
pub(super) struct BucketModel {
    pub(super) seq: u64,
    pub(super) gap: u64,
    pub(super) boxes: [MailboxModel; 3],
}

impl BucketModel {
    pub(super) fn file(&mut self, filings: &[(usize, String, usize)]) -> FileOutcome {
        let mut outcome = FileOutcome::default();
        let mut told = HashSet::new();
        for (at, id, size) in filings {
            let plain = &mut self.boxes[*at];
            if !plain.known.insert(id.clone()) {
                outcome.known += 1;
                continue;
            }
            outcome.filed += 1;
            if told.is_empty() || told.contains(at) {
                self.seq += 1;
                told.clear();
            }
            told.insert(*at);
            let bytes = ITEM_BYTES + id.len() + size;
            plain.lying.push(FiledItem { id: id.clone(), bytes, seq: self.seq, read: None });
            plain.trim();
        }
        outcome
    }

    pub(super) fn mark(&mut self, at: usize, mark: Mark, id: &str) -> Option<u32> {
        let plain = &mut self.boxes[at];
        let seq = plain.listed().find(|item| item.id == id)?.seq;
        let cut = plain.cut_item;
        let next = self.seq + 1;
        if mark == Mark::Delete {
            plain.lying.retain(|item| item.seq != seq);
            plain.marks.insert(id.to_owned(), (true, next));
            self.seq = next;
        } else {
            let from = if mark == Mark::Read { seq } else { cut + 1 };
            for item in &mut plain.lying {
                if (from..=seq).contains(&item.seq) && item.read.is_none() {
                    item.read = Some(next);
                    plain.marks.insert(item.id.clone(), (false, next));
                    self.seq = next;
                }
            }
        }
        plain.bound_marks();
        Some(plain.unread())
    }

    /// Returns the reset that a reader gets that comes back from a position.
    pub(super) fn reset(&self, at: usize, place: Option<Position>) -> Option<&'static str> {
        let seq = place.map_or(0, |place| place.seq);
        if self.gap > seq { Some("gap") } else { (self.boxes[at].cut > seq).then_some("too_old") }
    }
}
