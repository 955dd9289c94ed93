//! A real Apache Kafka of one node, from Maven Central.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tutti::local::{Owned, wait_for_port};
use tutti_kafka::tools::Admin;

use crate::{free_port, target_folder};

/// A broker.
pub struct Kafka {
    process: Mutex<Option<Owned>>,
    folder: tempfile::TempDir,
    port: u16,
}

/// Returns the broker that all tests share. The first call starts it.
///
/// # Panics
/// If Java, Maven or Maven Central is missing.
pub fn shared() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    SHARED.get_or_init(|| Kafka::start().expect("Kafka starts"))
}

impl Kafka {
    /// Starts a broker on a port and in a folder of its own.
    ///
    /// # Errors
    /// If Java, Maven or Maven Central is missing, or the broker does not start.
    pub fn start() -> anyhow::Result<Self> {
        let (port, controller) = (free_port(), free_port());
        let folder = tempfile::tempdir()?;
        let properties = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n\
             message.max.bytes=4194304\n\
             auto.create.topics.enable=true\n",
            folder.path().join("data").display()
        );
        std::fs::write(folder.path().join("server.properties"), properties)?;
        let kafka = Self { process: Mutex::new(None), folder, port };
        let id = kafka.tool(&["kafka.tools.StorageTool", "random-uuid"])?;
        let file = kafka.file("server.properties");
        kafka.tool(&["kafka.tools.StorageTool", "format", "--standalone", "-t", id.trim(), "-c", &file])?;
        kafka.run()?;
        Ok(kafka)
    }

    /// Returns the bootstrap address.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts the broker, or starts it again with the data it had.
    ///
    /// # Errors
    /// If the broker does not start.
    pub fn run(&self) -> anyhow::Result<()> {
        let file = self.file("server.properties");
        let mut command = java()?;
        command.extend(["kafka.Kafka".to_owned(), file]);
        let log = self.folder.path().join("kafka.log");
        let process = Owned::start(&command, "KILL", &log)?;
        wait_for_port(self.port, Duration::from_secs(60)).with_context(|| {
            format!("Kafka did not come up: {}", std::fs::read_to_string(&log).unwrap_or_default())
        })?;
        *self.process.lock().expect("no test panics while it holds this") = Some(process);
        Ok(())
    }

    /// Kills the broker. Its data stays.
    ///
    /// # Panics
    /// Never: no test panics while it holds the lock.
    pub fn kill(&self) {
        self.process.lock().expect("no test panics while it holds this").take();
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// If Kafka refuses.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> anyhow::Result<()> {
        let made = Admin::connect(&self.brokers())?
            .create_topic(topic, partitions, &[("max.message.bytes", "4194304")])
            .await
            .with_context(|| format!("creating topic {topic}"))?;
        ensure!(made, "topic {topic} is there already");
        Ok(())
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// If Kafka refuses.
    pub async fn delete_topic(&self, topic: &str) -> anyhow::Result<()> {
        let deleted = Admin::connect(&self.brokers())?.delete_topic(topic).await;
        deleted.with_context(|| format!("deleting topic {topic}"))
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn tool(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = java()?;
        command.extend(arguments.iter().map(|a| (*a).to_owned()));
        let output =
            Command::new(&command[0]).args(&command[1..]).current_dir(self.folder.path()).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn java() -> anyhow::Result<Vec<String>> {
    let libs = libs()?.join("*").to_string_lossy().into_owned();
    Ok(["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", &libs].map(str::to_owned).to_vec())
}

/// Returns the folder of Kafka's jars. The first call downloads them.
fn libs() -> anyhow::Result<PathBuf> {
    static FETCHING: Mutex<()> = Mutex::new(());
    let _one = FETCHING.lock().expect("no test panics while it holds this");
    let libs = target_folder().join("kafka-4.1.0");
    if libs.is_dir() {
        return Ok(libs);
    }
    eprintln!("fetching Apache Kafka from Maven Central (43 MB)");
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/pom.xml");
    let partial = target_folder().join("kafka-4.1.0.partial");
    let fetched = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&pom)
        .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", partial.display()))
        .stdout(Stdio::inherit())
        .status()
        .context("mvn is needed, to fetch Apache Kafka: apt-get install maven")?;
    ensure!(fetched.success(), "mvn could not fetch Apache Kafka");
    std::fs::rename(&partial, &libs)?;
    Ok(libs)
}
