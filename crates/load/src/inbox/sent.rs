//! Notifications that the simulation sent.

use tokio::time::Instant;

/// A notification that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The user that it is for. `None` is the topic that all devices follow.
    pub to: Option<u32>,
    /// The id of the notification, once the answer or a device has told it.
    pub id: Option<String>,
    /// When it was first tried.
    pub began: Instant,
    /// When the answer came.
    pub answered: Option<Instant>,
}

impl Sent {
    /// Checks that the answer and all devices give the notification the same id.
    ///
    /// # Errors
    /// If another id is known already.
    pub(super) fn is_called(&mut self, id: &str) -> anyhow::Result<()> {
        let known = self.id.get_or_insert_with(|| id.to_owned());
        anyhow::ensure!(known == id, "one notification has two ids: {known} and {id}");
        Ok(())
    }
}
