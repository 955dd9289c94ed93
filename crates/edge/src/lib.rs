//! Redis to Server-Sent Events: the one public HTTP origin. The path of a record:
//!
//! 1. [`conductor`] follows the feeds, folds each record into the [`map`], and publishes the state
//!    and the bytes of each step as a [`tick`].
//! 2. [`hub`], one a worker thread, writes a step's bytes to each of its streams.
//! 3. A stream that is new, behind or resuming is brought there by [`approach`] and [`replay`].
//!
//! A waiting room's way is shorter: [`rooms`] follows each room that has streams here, from a snapshot
//! of the service on ([`queue`]), and folds its records into a [`room::RoomView`]; a visitor's place is
//! a rank in it, which the hub writes.
//!
//! A user's inbox is a mailbox: [`inboxes`] follows what is told of all of them, [`inbox`] turns it into
//! events, and the hub writes them to the user's devices. Who was away reads the mailbox.
//!
//! A client's way in: [`routes`] (with [`auth`] and its [`jwks`]), then [`handoff`] takes its socket out of
//! actix-web and gives it to the hub.
//!
//! What one client may have is bounded: [`counts`] has its streams and connections, by its
//! [`client_address`] and its user.
//!
//! *Invariants:* a live frame is encoded once, never once a client. No queue is unbounded: a
//! client has none at all, only the rest of one frame and a cursor. Tokens and queries reach no log.

mod combined;
mod config;
mod following;
mod http;
mod inbox;
mod map;
mod metrics;
mod rooms;
mod server;
mod topics;
mod worker;

use tutti_service::{Context, Failure, Registry, Service, Settings};

pub use config::Config;
pub use http::settings::{Http, Streams};
pub use inbox::settings::InboxSettings;
pub use map::settings::MapSettings;
pub use metrics::Metrics;
pub use rooms::settings::RoomSettings;
pub use topics::settings::TopicSettings;

/// The service.
pub struct Edge;

impl Service for Edge {
    type Config = Config;
    type Metrics = Metrics;
    const NAME: &'static str = "tutti-edge";
    const ABOUT: &'static str = "Serves Tutti's feeds to browsers as Server-Sent Events.";
    const ADMIN: &'static str = "127.0.0.1:9102";

    fn configure(settings: &mut Settings) -> Config {
        Config::configure(settings)
    }

    fn metrics(registry: &mut Registry) -> Metrics {
        Metrics::new(registry)
    }

    async fn run(config: Config, metrics: Metrics, context: Context) -> Result<(), Failure> {
        server::run(config, metrics, context).await
    }
}
