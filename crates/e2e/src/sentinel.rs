//! A primary, its replica, and three Sentinels that make the replica the primary.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tutti::local::{Owned, wait_for_port};

use crate::redis::{self, ask};
use crate::{eventually, free_port};

/// The name that the Sentinels know the primary by.
const NAME: &str = "main";

/// The primary, the replica and the Sentinels.
pub struct Sentinels {
    primary: Option<Owned>,
    replica: Owned,
    primary_port: u16,
    replica_port: u16,
    sentinels: Vec<(u16, Owned)>,
    folder: tempfile::TempDir,
}

impl Sentinels {
    /// Starts all of them, and waits until each Sentinel knows of the others.
    ///
    /// # Panics
    /// If one does not start.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (primary_port, replica_port) = (free_port(), free_port());
        let primary = server(folder.path(), primary_port, None);
        let replica = server(folder.path(), replica_port, Some(primary_port));
        redis::until_replicated(primary_port, replica_port).await;
        let sentinel = |_| {
            let port = free_port();
            let file = folder.path().join(format!("{port}.conf"));
            let text = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor {NAME} 127.0.0.1 {primary_port} 2\n\
                 sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 5000\n"
            );
            std::fs::write(&file, text).expect("the configuration is written");
            let command = ["redis-server".to_owned(), file.to_string_lossy().into(), "--sentinel".to_owned()];
            let process = Owned::start(&command, "KILL", &folder.path().join(format!("{port}.log")));
            wait_for_port(port, Duration::from_secs(10)).expect("a sentinel");
            (port, process.expect("a sentinel starts"))
        };
        let sentinels: Vec<_> = (0..3).map(sentinel).collect();
        for (port, _) in &sentinels {
            eventually("the Sentinels know each other, and the replica", async || {
                let known = ask(*port, &["SENTINEL", "master", NAME]);
                let after = |name: &str| known.lines().skip_while(|line| *line != name).nth(1) == Some("2");
                let replicas = ask(*port, &["SENTINEL", "replicas", NAME]);
                after("num-other-sentinels")
                    && replicas.lines().any(|line| line == "slave" || line == "master-link-status")
            })
            .await;
        }
        Self { primary: Some(primary), replica, primary_port, replica_port, sentinels, folder }
    }

    /// Returns the URL that services are configured with.
    pub fn url(&self) -> String {
        let [first, rest @ ..] = &self.sentinels[..] else { unreachable!("there are three") };
        let nodes = rest.iter().map(|(port, _)| format!("&node=127.0.0.1:{port}"));
        format!(
            "redis-sentinel://127.0.0.1:{}/0?sentinelServiceName={NAME}{}",
            first.0,
            nodes.collect::<String>()
        )
    }

    /// Stops the replica, so that whatever the primary does from now on, only the primary has.
    ///
    /// # Panics
    /// If the replica does not run.
    pub fn cut_replica_off(&self) {
        redis::send(&self.replica, Signal::SIGSTOP);
        // Without this, the stopped replica would receive what is in its socket when it goes on.
        ask(self.primary_port, &["CLIENT", "KILL", "TYPE", "replica"]);
    }

    /// Lets the replica go on.
    ///
    /// # Panics
    /// If the replica does not run.
    pub fn let_replica_go_on(&self) {
        redis::send(&self.replica, Signal::SIGCONT);
    }

    /// Waits until the replica has all data of the primary.
    ///
    /// # Panics
    /// If that does not happen.
    pub async fn until_replicated(&self) {
        redis::until_replicated(self.primary_port, self.replica_port).await;
    }

    /// Kills the primary with SIGKILL.
    pub fn kill_primary(&mut self) {
        self.primary = None;
    }

    /// Starts the former primary again, as the replica of the present one.
    pub fn return_as_replica(&mut self) {
        self.primary = Some(server(self.folder.path(), self.primary_port, Some(self.replica_port)));
    }

    /// Whether the Sentinels have made the replica the primary.
    pub fn has_failed_over(&self) -> bool {
        let known = ask(self.sentinels[0].0, &["SENTINEL", "get-master-addr-by-name", NAME]);
        known.lines().nth(1).is_some_and(|port| port != self.primary_port.to_string())
    }
}

fn server(folder: &Path, port: u16, primary: Option<u16>) -> Owned {
    let of = primary.map(|port| format!("127.0.0.1 {port}"));
    let options: Vec<&str> = of.iter().flat_map(|of| ["--replicaof", of.as_str()]).collect();
    redis::server(folder, port, &options).expect("redis-server starts")
}
