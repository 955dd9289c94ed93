//! What the developer's tool, the load generators and the tests need of Kafka, and no service does: topics, a broker in
//! memory, plain readers, and producers with callbacks or transactions.

mod admin;
mod callback_producer;
mod mock_broker;
mod reader;
mod transactional_producer;

pub use admin::Admin;
pub use callback_producer::CallbackProducer;
pub use mock_broker::MockBroker;
pub use reader::{PartitionReader, StoredRecord, read_topic};
pub use transactional_producer::TransactionalProducer;
