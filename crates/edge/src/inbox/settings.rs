//! Settings of inboxes.

use tutti_service::Settings;
use tutti_service::shared::Inboxes;

/// Settings of inboxes.
#[derive(Clone, Debug)]
pub struct InboxSettings {
    /// gRPC URLs of the replicas of the notifications' service. Without any, this edge neither sends nor marks
    /// notifications.
    pub notify_urls: Vec<String>,
    /// The settings of mailboxes, on which all services that share them must agree.
    pub mailboxes: Inboxes,
    /// The name under which the registry lists connections of users to this edge.
    pub edge_name: String,
}

impl InboxSettings {
    /// Reads the settings.
    pub(crate) fn configure(settings: &mut Settings) -> Self {
        let notify_urls = settings.list(
            "notify.urls",
            &[],
            "gRPC URLs of the notifications' service, for example http://tutti-notify:9201; without any, nothing is sent or marked",
        );
        for url in notify_urls.iter().filter(|url| !url.starts_with("http://")) {
            settings.mistake(format!("notify.urls: {url:?} is not an http:// URL"));
        }
        let mailboxes = Inboxes::configure(settings);
        let edge_name = settings.get_checked(
            "edge.name",
            std::env::var("HOSTNAME").unwrap_or_else(|_| "edge".to_owned()).replace('/', "-"),
            "name under which connections of users to this edge are listed, 1 to 128 bytes without a /; a dash and four hexadecimal digits, drawn at the start, are appended",
            |name: &String| {
                if (1..=128).contains(&name.len()) && !name.contains('/') {
                    Ok(())
                } else {
                    Err("must have 1 to 128 bytes and no /".to_owned())
                }
            },
        );
        Self { notify_urls, mailboxes, edge_name }
    }
}
