//! A connection that dies without a close.

use std::future::pending;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tutti_e2e::testbed::Edge;

/// Passes connections on to an edge. Once cut, it passes nothing and closes nothing, like a network that has gone.
pub(crate) struct Cable {
    /// The URL that clients connect to, `http://127.0.0.1:port`.
    pub(crate) url: String,
    is_cut: watch::Sender<bool>,
}

impl Cable {
    pub(crate) async fn to(edge: &Edge) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let target = edge.url.trim_start_matches("http://").to_owned();
        let (is_cut, cutting) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (target, mut cutting) = (target.clone(), cutting.clone());
                tokio::spawn(async move {
                    let passing = async {
                        let mut server = TcpStream::connect(target).await.unwrap();
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    };
                    let dying = async {
                        let _ = cutting.wait_for(|is_cut| *is_cut).await;
                    };
                    tokio::select! {
                        biased;
                        () = dying => pending().await,
                        () = passing => {}
                    }
                });
            }
        });
        Self { url, is_cut }
    }

    /// Passes nothing more, on connections that are open and on those that are opened before [`Cable::mend`].
    pub(crate) fn cut(&self) {
        self.is_cut.send(true).unwrap();
    }

    /// Passes new connections on again.
    pub(crate) fn mend(&self) {
        self.is_cut.send(false).unwrap();
    }
}
