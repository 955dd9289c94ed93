//! One task for each partition of a route.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// The tasks of the partitions that are assigned, and of those that were until lately.
#[derive(Default)]
pub(crate) struct PartitionTasks {
    tasks: HashMap<i32, JoinHandle<()>>,
    panicked: Arc<Notify>,
}

impl PartitionTasks {
    /// Spawns the task of a partition. It begins once the partition's earlier task has ended: the Kafka client wakes only one
    /// reader of a partition's queue.
    pub(crate) fn spawn(&mut self, partition: i32, run: impl Future<Output = ()> + Send + 'static) {
        let (before, panicked) = (self.tasks.remove(&partition), self.panicked.clone());
        let task = tokio::spawn(async move {
            if let Some(before) = before {
                let _ = before.await;
            }
            let ended = AssertUnwindSafe(run).catch_unwind().await;
            if ended.is_err() {
                panicked.notify_one();
            }
        });
        self.tasks.insert(partition, task);
    }

    /// Returns the signal that a task has panicked. The group does not learn by itself that nobody reads the partition.
    pub(crate) fn panicked(&self) -> Arc<Notify> {
        self.panicked.clone()
    }

    /// Aborts all tasks, and waits for their end.
    pub(crate) async fn abort(self) {
        for (_, task) in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}
