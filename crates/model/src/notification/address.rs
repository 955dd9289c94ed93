//! The addresses of mailboxes.

use crate::Recipients;

/// Returns the addresses of the mailboxes that a notification goes to.
pub fn addresses(to: &Recipients) -> impl Iterator<Item = String> {
    let topic = (!to.topic.is_empty()).then(|| topic_address(&to.topic));
    to.users.iter().map(|user| user_address(user)).chain(topic)
}

/// Returns the address of the mailbox of a user.
pub fn user_address(user: &str) -> String {
    format!("user:{user}")
}

/// Returns the address of the mailbox of a topic for users.
pub fn topic_address(topic: &str) -> String {
    format!("topic:{topic}")
}
