//! A real Redis that can be stopped, killed, saved and started again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use fred::prelude::*;
use fred::types::{ClusterHash, CustomCommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tutti::local::{Owned, wait_for_port};
use tutti_feed::Connection;

use crate::free_port;

/// A `redis-server` of a test's own.
pub struct Redis {
    process: Option<Owned>,
    folder: tempfile::TempDir,
    port: u16,
    connection: Connection,
}

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start() -> anyhow::Result<Self> {
        let port = free_port();
        let connection = tutti_feed::connect(&format!("redis://127.0.0.1:{port}"))?;
        let mut redis = Self { process: None, folder: tempfile::tempdir()?, port, connection };
        redis.run()?;
        Ok(redis)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A client of it.
    pub fn client(&self) -> &Client {
        &self.connection.client
    }

    /// Starts it (again), from the last snapshot if there is one.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let port = self.port.to_string();
        let dir = self.folder.path().to_string_lossy().into_owned();
        let command = [
            "redis-server",
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--dir",
            &dir,
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let log = self.folder.path().join("redis.log");
        self.process = Some(Owned::start(&command, "KILL", &log)?);
        wait_for_port(self.port, Duration::from_secs(10)).context("redis-server")
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Writes a snapshot, from which it starts again.
    ///
    /// # Errors
    /// If it does not.
    pub async fn save(&self) -> anyhow::Result<()> {
        let () = self.command(&["SAVE"]).await?;
        Ok(())
    }

    /// Where the snapshot lies.
    pub fn snapshot(&self) -> PathBuf {
        Path::new(self.folder.path()).join("dump.rdb")
    }

    /// Stops it (SIGSTOP) or lets it go on (SIGCONT).
    ///
    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().expect("it runs").pid();
        kill(Pid::from_raw(pid as i32), signal).expect("our own process");
    }

    /// Runs any command.
    ///
    /// # Errors
    /// If it fails.
    pub async fn command<T: FromValue>(&self, words: &[&str]) -> anyhow::Result<T> {
        let name = CustomCommand::new(words[0], ClusterHash::FirstKey, false);
        Ok(self.client().custom(name, words[1..].to_vec()).await?)
    }
}
