//! Settings that several services read. Each has one reader here, so that it means the same to all of them.

mod inboxes;
mod locations;
mod redis;

pub use self::inboxes::Inboxes;
pub use self::locations::Locations;
pub use self::redis::{allow_eviction, redis_url, wait_replicas};
