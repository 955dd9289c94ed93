//! The id and the records of a notification that is sent.

use std::collections::HashSet;

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tutti_model::{Notification, Recipients};

/// A notification as Kafka stores it for one recipient.
pub(crate) struct Record {
    /// The user, or the topic that users follow.
    pub(crate) key: String,
    /// A `tutti.v1.Notification` in protobuf.
    pub(crate) value: Vec<u8>,
}

/// Returns the id of what a sender sends under a key: the first 16 bytes, in hex, of the SHA-256 over both, each after its
/// length. A send that is repeated has the same id at every replica.
///
/// All recipients receive the same id. A mailbox knows the ids that were in it, and no other mailbox's.
pub(crate) fn id_of(sender: &str, key: &str) -> String {
    let mut hash = Sha256::new();
    for part in [sender, key] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns one record for each recipient. A user who is named twice gets one.
pub(crate) fn records(mut notification: Notification, id: String) -> impl Iterator<Item = Record> {
    let Recipients { users, topic } = notification.to.take().unwrap_or_default();
    notification.id = id;
    notification.created_at_ms = 0;
    notification.expires_at_ms = 0;
    let mut seen = HashSet::new();
    let users = users
        .into_iter()
        .filter(move |user| seen.insert(user.clone()))
        .map(|user| (user.clone(), Recipients { users: vec![user], topic: String::new() }));
    let topic = (!topic.is_empty()).then(|| (topic.clone(), Recipients { users: Vec::new(), topic }));
    users.chain(topic).map(move |(key, to)| {
        notification.to = Some(to);
        Record { key, value: notification.encode_to_vec() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(to: Recipients) -> Vec<(String, Notification)> {
        let notification = Notification {
            id: "theirs".into(),
            to: Some(to),
            title: "hello".into(),
            created_at_ms: 1,
            expires_at_ms: 2,
            ..Notification::default()
        };
        records(notification, "ours".into())
            .map(|record| (record.key, Notification::decode(record.value.as_slice()).unwrap()))
            .collect()
    }

    #[test]
    fn the_same_key_of_the_same_sender_is_the_same_id() {
        // Replicas of other versions depend on this value.
        assert_eq!(id_of("shop", "order-7"), "7d652f3a946741c8d15171de1e811c31");
        assert_ne!(id_of("shop", "order-7"), id_of("shop", "order-8"));
        assert_ne!(id_of("shop", "order-7"), id_of("", "order-7"));
        assert!(tutti_model::notification::is_id(&id_of("", "é")));
    }

    #[test]
    fn what_one_part_loses_the_other_does_not_gain() {
        assert_ne!(id_of("a", "bc"), id_of("ab", "c"));
        assert_ne!(id_of("", "abc"), id_of("abc", ""));
        assert_ne!(id_of("a", "b"), id_of("b", "a"));
    }

    #[test]
    fn each_user_gets_one_record_that_names_nobody_else() {
        let users = ["7", "8", "7", "9", "8"].map(str::to_owned).to_vec();
        let sent = sent(Recipients { users, topic: String::new() });
        let keys: Vec<&str> = sent.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["7", "8", "9"]);
        for (key, notification) in &sent {
            let to = Recipients { users: vec![key.clone()], topic: String::new() };
            let expected = Notification {
                id: "ours".into(),
                to: Some(to),
                title: "hello".into(),
                ..Notification::default()
            };
            assert_eq!(*notification, expected);
        }
    }

    #[test]
    fn a_topic_gets_one_record_under_its_name() {
        let to = Recipients { users: Vec::new(), topic: "news".into() };
        let sent = sent(to.clone());
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].0, "news");
        assert_eq!(sent[0].1.to, Some(to));
        assert_eq!(sent[0].1.id, "ours");
    }
}
