//! The testbed of the end-to-end tests: real Kafka, real Redis, and the services of Tutti as processes, as in
//! production.
//!
//! Each test has a Redis, a topic and ports of its own ([`testbed`]). All tests share one Kafka ([`kafka`]), but for
//! those that break it. Every process ends with the tests, also where these are killed. [`rooms`] and [`inboxes`]
//! start the services of waiting rooms and notifications. [`viewer`], [`viewport`] and [`wire`] follow streams of the
//! map: as a program does, in a box, and byte by byte.

pub mod cluster;
pub mod fixes;
pub mod inboxes;
pub mod kafka;
pub mod redis;
pub mod replicas;
pub mod rooms;
pub mod sentinel;
pub mod service;
pub mod testbed;
pub mod transport;
pub mod viewer;
pub mod viewport;
pub mod wire;

use std::future::Future;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Returns the `target` folder of the workspace.
pub fn target_folder() -> PathBuf {
    let exe = std::env::current_exe().expect("a test has an executable");
    // The program is target/debug/deps/e2e-...
    exe.ancestors().nth(3).expect("tests lie in target/<profile>/deps").to_owned()
}

/// Returns a port of 127.0.0.1 that nothing uses, below those that the kernel gives to clients.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        // Two test runs at the same time begin at different ports.
        let port = 20_000 + (offset + (std::process::id() % 100) as u16 * 100) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Returns the HTTP client for requests that are repeated many times: each new client reads all certificates of the
/// machine. It keeps no connection open, so tests on several runtimes can share it.
///
/// # Panics
/// If TLS cannot be set up.
pub fn client() -> &'static reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("TLS can be set up")
    });
    &CLIENT
}

/// Returns a word that no other test uses.
pub fn unique(word: &str) -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    format!("{word}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until a condition is true. `what` is the text of the panic if that does not happen.
///
/// # Panics
/// If the condition is not true within 90 s.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let look = || {
        let checked = condition();
        async move { checked.await.then_some(()) }
    };
    until_there(what, look).await;
}

/// Waits until `look` returns something. `what` is the text of the panic if that does not happen.
///
/// # Panics
/// If there is nothing within 90 s.
pub async fn until_there<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}
