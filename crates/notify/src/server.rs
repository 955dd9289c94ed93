//! The gRPC interface, which edges and back ends call.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::{Code, Request, Response, Status};
use tutti_feed::Mailboxes;
use tutti_kafka::{Error as KafkaError, Producer, ProducerRecord};
use tutti_model::Notification;
use tutti_model::notification::{Invalid, checked, is_id, is_user, user_address};
use tutti_model::notify::{Mark, MarkRequest, Marked, SendRequest, Sent};
use tutti_service::Failures;
use tutti_service::grpc::{failure, refusal};

use crate::metrics::{MarkLabel, Metrics};
use crate::proto::notify_server::Notify;
use crate::send::{Record, id_of, records};

/// Length of a sender's name at most.
const MAX_SENDER_BYTES: usize = 256;
/// Length of a key at most.
const MAX_KEY_BYTES: usize = 256;
/// How much longer than the delivery timeout a send waits. The Kafka client looks for records that are late only about once
/// a second, and no send waits for that.
const GRACE: Duration = Duration::from_millis(500);

/// What callers receive when Kafka, Redis or the service itself fails.
const KAFKA: (Code, &str, &str) = (
    Code::Unavailable,
    "kafka",
    "Kafka did not acknowledge the notification in time: send it again with the same key",
);
const REDIS: (Code, &str, &str) =
    (Code::Unavailable, "redis", "the inboxes do not answer at the moment; try again");
const INTERNAL: (Code, &str, &str) =
    (Code::Internal, "internal", "the inboxes failed; their operator finds why under the request id");

/// Answers the calls.
pub(crate) struct Server {
    pub(crate) producer: Producer,
    pub(crate) topic: String,
    /// How long Kafka may take to acknowledge a notification.
    pub(crate) answer_timeout: Duration,
    /// Set once Redis has agreed to the settings of the inboxes. With other settings a mark would throw away what the
    /// other services keep.
    pub(crate) mailboxes: Arc<OnceLock<Mailboxes>>,
    pub(crate) metrics: Metrics,
    pub(crate) failures: Failures,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Notify for Server {
    async fn send(&self, request: Request<SendRequest>) -> Answer<Sent> {
        let SendRequest { sender, key, notification } = request.into_inner();
        // Ids are made from the sender's name: two senders without a name would be taken for one.
        if !(1..=MAX_SENDER_BYTES).contains(&sender.len()) {
            return Err(invalid(format!("the sender's name must have 1 to {MAX_SENDER_BYTES} bytes")));
        }
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) {
            return Err(invalid(format!("the key must have 1 to {MAX_KEY_BYTES} bytes")));
        }
        let notification = notification.ok_or_else(|| invalid("the notification is missing"))?;
        let notification = checked(Notification { id: String::new(), ..notification })
            .map_err(|why| invalid(why.to_string()))?;
        let id = id_of(&sender, &key);

        let began = Instant::now();
        let delivering = self.deliver(records(notification, id.clone()));
        let delivered = timeout(self.answer_timeout + GRACE, delivering).await;
        self.metrics.send.observe(began.elapsed().as_secs_f64());
        let why = match delivered {
            Ok(Ok(())) => return Ok(Response::new(Sent { id })),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "Kafka did not answer".to_owned(),
        };
        self.metrics.failed.inc();
        // Kafka may have some records all the same, or get them yet. They do no harm: when the send is repeated its id is
        // the same, and a mailbox takes an id once.
        Err(failure(&self.failures, KAFKA, "a send", &why))
    }

    async fn mark(&self, request: Request<MarkRequest>) -> Answer<Marked> {
        let MarkRequest { user, id, mark } = request.into_inner();
        if !is_user(&user) {
            return Err(invalid(Invalid::User(user.len()).to_string()));
        }
        if !is_id(&id) {
            return Err(invalid(Invalid::Id.to_string()));
        }
        let (mark, what) = match Mark::try_from(mark) {
            Ok(Mark::Read) => (tutti_feed::Mark::Read, "read"),
            Ok(Mark::ReadTo) => (tutti_feed::Mark::ReadTo, "read_to"),
            Ok(Mark::Deleted) => (tutti_feed::Mark::Delete, "deleted"),
            Err(_) => return Err(invalid("there is no such mark")),
        };
        let Some(mailboxes) = self.mailboxes.get() else {
            return Err(failure(&self.failures, REDIS, "a mark", &"Redis has not answered since the start"));
        };
        match mailboxes.mark(&user_address(&user), mark, &id).await {
            Ok(Some(unread)) => {
                self.metrics.marks.get_or_create(&MarkLabel { what }).inc();
                Ok(Response::new(Marked { unread }))
            }
            Ok(None) => Err(refusal(Code::NotFound, "no_notification", "the user has no such notification")),
            Err(error) => {
                let answer = if error.is_internal() { INTERNAL } else { REDIS };
                Err(failure(&self.failures, answer, "a mark", &error))
            }
        }
    }
}

impl Server {
    /// Queues all records, then waits until Kafka has acknowledged each of them.
    async fn deliver(&self, records: impl Iterator<Item = Record>) -> Result<(), KafkaError> {
        let session = self.producer.session()?;
        let send = |Record { key, value }: Record| {
            session.send(&ProducerRecord {
                topic: &self.topic,
                key: Some(key.as_bytes()),
                value: Some(&value),
                headers: &[("content-type", "application/protobuf")],
                ..ProducerRecord::default()
            })
        };
        let deliveries = records.map(send).collect::<Result<Vec<_>, _>>()?;
        let mut outcome = Ok(());
        for delivery in deliveries {
            match delivery.acknowledged().await {
                Ok(()) => {
                    self.metrics.sent.inc();
                }
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }
}

fn invalid(sentence: impl Into<String>) -> Status {
    refusal(Code::InvalidArgument, "invalid", sentence)
}
