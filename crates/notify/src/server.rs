//! The gRPC interface: what edges and back ends ask.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::{Code, Request, Response, Status};
use tutti_feed::Mailboxes;
use tutti_model::Notification;
use tutti_model::notification::{Invalid, checked, is_id, is_user, user_address};
use tutti_model::notify::{Mark, MarkRequest, Marked, SendRequest, Sent};
use tutti_service::Failures;
use tutti_service::grpc::{failure, refusal};

use crate::kafka::{KafkaError, Producer};
use crate::metrics::{MarkLabel, Metrics};
use crate::proto::notify_server::Notify;
use crate::send::{Record, id_of, records};

/// A sender's name is at most so long.
const MAX_SENDER_BYTES: usize = 256;
/// A key is at most so long.
const MAX_KEY_BYTES: usize = 256;
/// The driver looks for records that are late once a second or so; no send waits for that long.
const GRACE: Duration = Duration::from_millis(500);

/// What callers are told of failures of the service's own.
const KAFKA: (Code, &str, &str) =
    (Code::Unavailable, "kafka", "Kafka did not take it in time: send it again with the same key");
const REDIS: (Code, &str, &str) =
    (Code::Unavailable, "redis", "the inboxes do not answer at the moment; try again");
const INTERNAL: (Code, &str, &str) =
    (Code::Internal, "internal", "the inboxes failed; their operator finds why under the request id");

/// The service.
pub(crate) struct Server {
    pub(crate) producer: Producer,
    pub(crate) topic: String,
    /// How long Kafka may take.
    pub(crate) answer: Duration,
    /// Not before Redis agreed to their settings: with others, a mark would throw away what the other
    /// services keep.
    pub(crate) mailboxes: Arc<OnceLock<Mailboxes>>,
    pub(crate) metrics: Metrics,
    pub(crate) failures: Failures,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Notify for Server {
    async fn send(&self, request: Request<SendRequest>) -> Answer<Sent> {
        let SendRequest { sender, key, notification } = request.into_inner();
        // What is sent is told apart by its sender: two without a name would be taken for one.
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
        let delivered = timeout(self.answer + GRACE, delivering).await;
        self.metrics.send.observe(began.elapsed().as_secs_f64());
        let why = match delivered {
            Ok(Ok(())) => return Ok(Response::new(Sent { id })),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it did not answer".to_owned(),
        };
        self.metrics.failed.inc();
        // Kafka may have some records all the same, or get them yet. They do no harm: when the send is
        // repeated the id is the same, and mailboxes take it once.
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
                let told = if error.is_internal() { INTERNAL } else { REDIS };
                Err(failure(&self.failures, told, "a mark", &error))
            }
        }
    }
}

impl Server {
    /// Hands all records over, then waits until Kafka has all of them.
    async fn deliver(&self, records: impl Iterator<Item = Record>) -> Result<(), KafkaError> {
        let deliveries = self.producer.send_all(&self.topic, records)?;
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
