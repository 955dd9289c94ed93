//! Settings of topics.

use tutti_service::Settings;

/// Settings of topics.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// The topics that this edge serves.
    pub names: Vec<String>,
    /// Those of them that may be read without a token.
    pub public: Vec<String>,
    /// Bytes of the newest records of each topic that are kept in memory.
    pub memory_bytes: usize,
}

impl TopicSettings {
    /// Reads the settings.
    pub(crate) fn configure(settings: &mut Settings) -> Self {
        let names = settings.list(
            "topics.names",
            &["queueing-system"],
            "topics of ingest's events routes that are served",
        );
        let public = settings.list("topics.public", &[], "those of them that may be read without a token");
        if names.iter().enumerate().any(|(at, name)| names[..at].contains(name)) {
            settings.mistake("topics.names: each may stand there once");
        }
        for name in public.iter().filter(|name| !names.contains(name)) {
            settings.mistake(format!("topics.public: {name:?} is not among topics.names"));
        }
        let memory_bytes = settings.number(
            "topics.memory_bytes",
            16usize << 20,
            (1 << 16)..,
            "bytes of each topic's newest records kept in memory, for clients that come back",
        );
        Self { names, public, memory_bytes }
    }
}
