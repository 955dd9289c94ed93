//! Why an operation on a room did nothing.

use fred::error::ErrorKind;
use tutti_feed::is_script_failure;

/// Why an operation on a room failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The state of the room or ticket forbids the operation.
    #[error("{}", .0.sentence())]
    Refused(Refusal),
    /// Redis does not answer, or answers an error.
    #[error("{doing} room {room}: {source}")]
    Redis {
        /// The operation.
        doing: &'static str,
        /// The name of the room.
        room: String,
        /// The error of the driver.
        source: fred::error::Error,
    },
    /// Too few replicas of Redis have the change.
    #[error("{0}")]
    Replicas(#[from] tutti_feed::Error),
    /// Redis answered something that no version of the scripts answers.
    #[error("{doing} room {room}: unexpected answer: {answer}")]
    Answer {
        /// The operation.
        doing: &'static str,
        /// The name of the room.
        room: String,
        /// What is wrong with the answer. It quotes nothing of the room, whose record has the seed of the lottery.
        answer: String,
    },
}

impl Error {
    /// Returns whether trying again is useless, because Redis holds something else of the room than the scripts expect.
    pub fn is_internal(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Replicas(_) => false,
            Self::Redis { source, .. } => is_script_failure(source) || *source.kind() == ErrorKind::Parse,
            Self::Answer { .. } => true,
        }
    }
}

/// Why a script refused an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The room does not exist.
    NoRoom,
    /// The ticket does not exist, was forgotten, or belongs to another visitor.
    NoTicket,
    /// The room is closed for good.
    Closed,
    /// The room admits those who wait, and lets nobody join.
    Draining,
    /// Kafka is too far behind.
    Full,
    /// The room has opened, so that its opening time cannot change.
    Opened,
    /// The ticket has not been admitted yet.
    NotAdmitted,
    /// The ticket has lost its place or its session.
    Gone,
    /// Another relay has the lease.
    Held,
    /// The closed room has been cleared away.
    Over,
}

impl Refusal {
    const ALL: [Self; 10] = [
        Self::NoRoom,
        Self::NoTicket,
        Self::Closed,
        Self::Draining,
        Self::Full,
        Self::Opened,
        Self::NotAdmitted,
        Self::Gone,
        Self::Held,
        Self::Over,
    ];

    /// Returns the refusal that a word of a script stands for, or `None` if there is none.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.as_str() == word)
    }

    /// Returns the word for programs: scripts answer it, and gRPC callers and metrics receive it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoRoom => "no_room",
            Self::NoTicket => "no_ticket",
            Self::Closed => "closed",
            Self::Draining => "draining",
            Self::Full => "full",
            Self::Opened => "opened",
            Self::NotAdmitted => "not_admitted",
            Self::Gone => "gone",
            Self::Held => "held",
            Self::Over => "over",
        }
    }

    /// Returns the sentence for people.
    fn sentence(self) -> &'static str {
        match self {
            Self::NoRoom => "there is no such room",
            Self::NoTicket => "there is no such ticket; join again",
            Self::Closed => "the room is closed",
            Self::Draining => "the room lets nobody join any more",
            Self::Full => "too many changes of the room wait for Kafka; try again later",
            Self::Opened => "the room has opened, and its opening time stays as it is",
            Self::NotAdmitted => "the ticket has not been admitted yet",
            Self::Gone => "the ticket has lost its place or its session; join again",
            Self::Held => "another replica has the lease of the relay",
            Self::Over => "the room has been cleared away",
        }
    }
}
