//! The testbed: real Kafka, real Redis, and Tutti's services as the processes they are in
//! production. Each test has a Redis, a topic and ports of its own; Kafka is shared by all but those
//! that break it. Everything ends with the tests, also where they are killed.

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

/// The workspace's `target` folder.
pub fn target_folder() -> PathBuf {
    let exe = std::env::current_exe().expect("a test has an executable");
    // target/debug/deps/e2e-...
    exe.ancestors().nth(3).expect("tests lie in target/<profile>/deps").to_owned()
}

/// A port of 127.0.0.1 that nothing uses, below those that the kernel gives to clients.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        // Runs side by side begin at different places.
        let port = 20_000 + (offset + (std::process::id() % 100) as u16 * 100) % 10_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// For requests that are made again and again: each client that is made reads all certificates there are.
/// It keeps no connection, so tests on several runtimes share it.
///
/// # Panics
/// If TLS cannot be set up.
pub fn client() -> &'static reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("TLS can be set up")
    });
    &CLIENT
}

/// A word that no other test uses.
pub fn unique(word: &str) -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    format!("{word}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits for a condition; `what` tells what was waited for in vain.
///
/// # Panics
/// If it does not come true within a minute and a half.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let look = || {
        let checked = condition();
        async move { checked.await.then_some(()) }
    };
    until_there(what, look).await;
}

/// Waits until there is something; `what` tells what was waited for in vain.
///
/// # Panics
/// If there is nothing within a minute and a half.
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
