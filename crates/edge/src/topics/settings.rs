//! Settings of topics.

use tutti_service::Settings;

/// Settings of topics.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// The topics that this edge serves.
    pub names: Vec<String>,
    /// The served topics that may be read without a token.
    pub public: Vec<String>,
    /// Bytes of memory for the newest records of each topic.
    pub memory_bytes: usize,
}

impl TopicSettings {
    /// Reads the settings `topics.*`.
    pub(crate) fn configure(settings: &mut Settings) -> Self {
        let names = settings.list(
            "topics.names",
            &["queueing-system"],
            "topics that this edge serves, of the events routes of ingest",
        );
        let public =
            settings.list("topics.public", &[], "topics of topics.names that may be read without a token");
        if names.iter().enumerate().any(|(at, name)| names[..at].contains(name)) {
            settings.mistake("topics.names must not name a topic twice");
        }
        for name in public.iter().filter(|name| !names.contains(name)) {
            settings.mistake(format!("topics.public: {name:?} is not among topics.names"));
        }
        let memory_bytes = settings.number(
            "topics.memory_bytes",
            16usize << 20,
            (1 << 16)..,
            "bytes of memory for the newest records of each topic, from which clients that come back are served",
        );
        Self { names, public, memory_bytes }
    }
}
