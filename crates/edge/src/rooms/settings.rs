//! Settings of waiting rooms.

use tutti_service::Settings;

/// Settings of waiting rooms.
#[derive(Clone, Debug)]
pub struct RoomSettings {
    /// gRPC URLs of the replicas of the waiting room's service. Without any, this edge has no waiting rooms.
    pub queue_urls: Vec<String>,
    /// Whether rooms may be joined without a token.
    pub is_public: bool,
    /// Name of the cookie that may hold a ticket's token.
    pub cookie: String,
}

impl RoomSettings {
    /// Reads the settings.
    pub(crate) fn configure(settings: &mut Settings) -> Self {
        let queue_urls = settings.list(
            "queue.urls",
            &[],
            "gRPC URLs of the waiting room's service, for example http://tutti-queue:9200; without any, no waiting rooms",
        );
        for url in queue_urls.iter().filter(|url| !url.starts_with("http://")) {
            settings.mistake(format!("queue.urls: {url:?} is not an http:// URL"));
        }
        let is_public =
            settings.get("rooms.public", true, "whether waiting rooms may be joined without a token");
        let cookie = settings.get(
            "rooms.cookie",
            "tutti_ticket".to_owned(),
            "name of the cookie that may hold a ticket's token",
        );
        Self { queue_urls, is_public, cookie }
    }
}
