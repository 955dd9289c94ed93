//! An embedded broker that speaks the Kafka protocol: librdkafka's own, in memory. Its port is the
//! kernel's choice, so a forwarder gives the bootstrap address a fixed one.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The broker; ends when dropped.
pub struct Broker {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    forwarder: JoinHandle<()>,
    address: String,
}

impl Broker {
    /// Starts a broker with these topics, of so many partitions each.
    ///
    /// # Errors
    /// If the port is in use.
    pub async fn start(port: u16, topics: &[(&str, i32)]) -> anyhow::Result<Self> {
        let cluster = MockCluster::new(1).context("the embedded broker")?;
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1).with_context(|| format!("creating topic {topic}"))?;
        }
        let behind = cluster.bootstrap_servers();
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("listening on {listen} for Kafka"))?;
        let forwarder = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let behind = behind.clone();
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(behind).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(Self { _cluster: cluster, forwarder, address: listen.to_string() })
    }

    /// Its bootstrap address.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}
