//! A real Redis that can be stopped, killed, saved and started again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use fred::prelude::*;
use fred::types::{ClusterHash, CustomCommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tutti::local::{Owned, wait_for_port};
use tutti_feed::Connection;

use crate::{eventually, free_port};

/// A `redis-server` that one test has for itself.
pub struct Redis {
    process: Option<Owned>,
    folder: tempfile::TempDir,
    port: u16,
    options: Vec<String>,
    connection: Connection,
}

impl Redis {
    /// Starts a Redis.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&[])
    }

    /// Starts a Redis with options on its command line.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_with(options: &[&str]) -> anyhow::Result<Self> {
        let port = free_port();
        let connection = tutti_feed::connect(&format!("redis://127.0.0.1:{port}"))?;
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut redis = Self { process: None, folder: tempfile::tempdir()?, port, options, connection };
        redis.run()?;
        Ok(redis)
    }

    /// Returns the URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns a client that is connected to this Redis.
    pub fn client(&self) -> &Client {
        &self.connection.client
    }

    /// Starts the server, or starts it again from the last snapshot if there is one.
    ///
    /// # Errors
    /// If it does not start.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.process = Some(server(self.folder.path(), self.port, &options)?);
        Ok(())
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Writes a snapshot, which the next start reads.
    ///
    /// # Errors
    /// If Redis does not write it.
    pub async fn save(&self) -> anyhow::Result<()> {
        let () = self.command(&["SAVE"]).await?;
        Ok(())
    }

    /// Returns the path of the snapshot.
    pub fn snapshot(&self) -> PathBuf {
        self.folder.path().join(snapshot_of(self.port))
    }

    /// Stops the server (SIGSTOP) or lets it go on (SIGCONT).
    ///
    /// # Panics
    /// If the server does not run.
    pub fn signal(&self, signal: Signal) {
        send(self.process.as_ref().expect("it runs"), signal);
    }

    /// Runs a command.
    ///
    /// # Errors
    /// If the command fails.
    pub async fn command<T: FromValue>(&self, words: &[&str]) -> anyhow::Result<T> {
        let name = CustomCommand::new(words[0], ClusterHash::FirstKey, false);
        Ok(self.client().custom(name, words[1..].to_vec()).await?)
    }
}

/// Starts a `redis-server` with options on its command line, and waits until it listens. It writes nothing to the
/// folder by itself.
pub(crate) fn server(folder: &Path, port: u16, options: &[&str]) -> anyhow::Result<Owned> {
    let (dir, port_text, snapshot) = (folder.to_string_lossy(), port.to_string(), snapshot_of(port));
    let mut command = vec!["redis-server", "--port", &port_text, "--bind", "127.0.0.1", "--dir", &dir];
    command.extend(["--dbfilename", &snapshot, "--save", "", "--appendonly", "no"]);
    command.extend(["--repl-diskless-sync-delay", "0"]);
    command.extend(options);
    let process = Owned::start(&command, "KILL", &folder.join(format!("{port}.log")))?;
    wait_for_port(port, Duration::from_secs(10)).context("redis-server")?;
    Ok(process)
}

fn snapshot_of(port: u16) -> String {
    format!("{port}.rdb")
}

/// Sends a signal to a process that the tests started.
pub(crate) fn send(process: &Owned, signal: Signal) {
    kill(Pid::from_raw(process.pid() as i32), signal).expect("our own process");
}

/// Returns the answer of a server to a command, as text.
pub(crate) fn ask(port: u16, words: &[&str]) -> String {
    let port = port.to_string();
    let asked = Command::new("redis-cli").args(["-p", &port]).args(words).output();
    String::from_utf8_lossy(&asked.expect("redis-cli runs").stdout).trim().to_owned()
}

/// Waits until a replica has all data of its primary.
pub(crate) async fn until_replicated(primary: u16, replica: u16) {
    let told = |port, name: &str| {
        let all = ask(port, &["INFO", "replication"]);
        let found = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_default().to_owned()
    };
    let offset = |port| told(port, "master_repl_offset").parse::<u64>().unwrap_or_default();
    let all = offset(primary);
    eventually("the replica has all", async || {
        told(replica, "master_link_status") == "up" && offset(replica) >= all
    })
    .await;
}
