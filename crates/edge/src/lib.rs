//! The edge: serves Tutti's feeds in Redis to browsers and programs, as Server-Sent Events and as JSON. It is the one
//! public HTTP origin of a deployment. Any number of edges run side by side; each serves everything, and a client that
//! loses one goes on at another where it was.
//!
//! **The path of a record.** A *follower* (`map/follower.rs`, `rooms/follower.rs`, `topics/follower.rs`,
//! `inbox/follower.rs`) reads a feed of Redis, folds its records into a state, and publishes the state in *steps* over
//! a channel to all workers. Each worker is a thread; its streams of one job (`map/viewers.rs`, `rooms/visitors.rs`,
//! `topics/listeners.rs`, `inbox/devices.rs`) write the bytes of a step to every stream that is up to date. Any other
//! stream is a task of its own, which writes what that client lacks and then joins the others.
//!
//! **The path of a request.** `server.rs` listens; `worker.rs` builds the actix-web app of a worker. The middleware of
//! `http/` guards the request, a job's `routes.rs` checks its token (`http/auth.rs`) and answers: from the state that a
//! follower keeps, or from a service behind the edge (`http/upstream.rs`). Every refusal is a problem document
//! (`http/problem.rs`).
//!
//! **The path of a stream.** The handler works out what the client may see and where it starts, and `http/open.rs`
//! counts it against the limits and leaves an admission with a closure of the job. When actix-web has sent the response
//! head, the crate `tutti-sse` takes the socket out of actix-web, gives it to the worker's hub, and the hub calls that
//! closure. From then on the hub bounds, times and ends the stream, and the job only writes to it.
//!
//! | folder or file | holds | may use |
//! |---|---|---|
//! | `http/` | tokens, limits, problems, opening of streams | `tutti-sse`, `metrics.rs`; no job |
//! | `following/` | what all followers and their streams have in common: status, resets, waits | `tutti-sse`, `metrics.rs`; no job |
//! | `map/`, `rooms/`, `inbox/`, `topics/` | one job each: routes, follower, state, streams | `tutti-sse`, `tutti-feed`, `http/`, `following/`; not one another |
//! | `combined/` | several streams in one connection | the function `part` of each job; none of its insides |
//! | `server.rs`, `worker.rs`, `config.rs` | putting the edge together | all |
//!
//! *Architecture Invariant:* a live frame is encoded once for all clients that receive it, never per client. Only
//! what catches one client up, or is filtered for it by a key, is encoded for that client.
//!
//! *Architecture Invariant:* no queue is unbounded. A client has none: a stream holds the rest of one frame and a
//! cursor.
//!
//! *Architecture Invariant:* an edge keeps nothing that Redis, or a service behind it, could not give back.
//!
//! *Architecture Invariant:* tokens and query strings reach no log, and no text of a driver, a script or a peer reaches
//! a client.

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

/// The service `tutti-edge`.
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
