//! The store of a single machine: one directory, one process, no server. A log of all changes, with one fsync for all concurrent writes,
//! and an index in memory. Values stay on disk: the API server has them in its cache.

mod feed;
mod index;
mod log;
mod reclaim;
mod record;
mod segment;
mod spare;
mod tail;
mod writer;

use std::fmt;
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{Read, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use self::feed::Feed;
use self::log::Log;
use self::writer::{Message, Request, Retention, Write, Writer};
use super::{Batch, Entry, Expect, Outcome, Page, Result, Store, StoreError};
use crate::object::Revision;

/// KiB of requests that may wait for the writer. Further writers wait until there is room.
const ROOM: u32 = 64 << 10;

/// The location of the embedded store, and its retention.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory; created if absent.
    pub dir: PathBuf,
    /// History older than this is forgotten (it may be kept up to twice as long).
    pub history_age: Duration,
    /// History of more changes than this is forgotten, too.
    pub history_revisions: u64,
}

impl Config {
    /// The defaults: five minutes of history, as a Kubernetes API server keeps in etcd.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), history_age: Duration::from_secs(300), history_revisions: 500_000 }
    }
}

/// An open embedded store. Dropping it, or [`Embedded::close`], completes pending writes and closes the files.
pub struct Embedded {
    log: Arc<Log>,
    feed: Arc<Feed>,
    inbox: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Embedded {
    /// Opens the store in `config.dir`, creating it if there is none.
    ///
    /// # Errors
    /// If another process has the store open, a file is damaged (the error names it), or the directory cannot be used.
    pub fn open(config: Config) -> Result<Arc<Self>> {
        let lock = lock(&config.dir).map_err(StoreError::Failed)?;
        let (log, tail) = Log::open(&config.dir)?;
        let (head, compacted) = {
            let state = log.state.read();
            (state.index.head(), state.index.forgotten())
        };
        let feed = Arc::new(Feed::new(head, compacted));
        let (inbox, messages) = mpsc::channel();
        let retention = Retention { age: config.history_age, revisions: config.history_revisions };
        let writer = Writer::new(log.clone(), tail, feed.clone(), retention);
        let closing = Closing { log: log.clone(), feed: feed.clone(), _lock: lock };
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || {
            let _closing = closing;
            writer.run(&messages);
        });
        let thread = thread.context("starting the store's thread").map_err(StoreError::Failed)?;
        Ok(Arc::new(Self { log, feed, inbox, room: Arc::new(Semaphore::new(ROOM as usize)), writer: Mutex::new(Some(thread)) }))
    }

    /// Completes pending writes and closes the files; later calls fail, and all watches end. May be called twice.
    pub async fn close(&self) {
        let writer = self.stop();
        let joined = blocking(move || {
            join(writer);
            Ok(())
        });
        // Fails only when the runtime shuts down.
        let _ = joined.await;
    }

    fn stop(&self) -> Option<JoinHandle<()>> {
        // The thread may have ended already.
        let _ = self.inbox.send(Message::Stop);
        self.writer.lock().take()
    }

    async fn write(&self, write: Write) -> Result<Outcome> {
        let size = u32::try_from(write.size() / 1024).unwrap_or(ROOM).clamp(1, ROOM);
        let room = self.room.clone().acquire_many_owned(size).await.map_err(|_| self.log.closed())?;
        let (reply, answer) = oneshot::channel();
        self.inbox.send(Message::Request(Request { write, reply, _room: room })).map_err(|_| self.log.closed())?;
        answer.await.map_err(|_| self.log.closed())?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        join(self.stop());
    }
}

fn join(writer: Option<JoinHandle<()>>) {
    if let Some(writer) = writer
        && writer.join().is_err()
    {
        tracing::error!("the store's thread panicked");
    }
}

/// Closes the files and unlocks the directory when the writer's thread ends, even by a panic.
struct Closing {
    log: Arc<Log>,
    feed: Arc<Feed>,
    _lock: File,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.feed.close();
        self.log.close();
    }
}

/// Runs work that may wait for the disk on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Failed(error.into())),
    }
}

/// Locks the directory for this process, as long as the returned file is open.
fn lock(dir: &Path) -> anyhow::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| format!("creating {}", dir.display()))?;
    let path = dir.join("lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {
            // Only for the message below: a full disk does no harm.
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            anyhow::bail!("{} is in use by another process{}{holder}", dir.display(), if holder.is_empty() { "" } else { ": " })
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("dir", &self.log.dir()).field("head", &self.feed.head()).finish_non_exhaustive()
    }
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>>> {
        // A look-up and one short read, usually from the page cache: not worth a thread.
        async move { self.log.get(key) }.boxed()
    }

    fn range<'a>(&'a self, prefix: &'a str, start: &'a str, limit: usize, at: Revision) -> BoxFuture<'a, Result<Page>> {
        let (log, prefix, start) = (self.log.clone(), prefix.to_owned(), start.to_owned());
        blocking(move || log.range(&prefix, &start, limit, at)).boxed()
    }

    fn put<'a>(&'a self, key: &'a str, value: Bytes, expect: Expect, ttl: Option<Duration>) -> BoxFuture<'a, Result<Outcome>> {
        self.write(Write::Put { key: key.to_owned(), value, expect, ttl }).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str, revision: Revision) -> BoxFuture<'a, Result<Outcome>> {
        self.write(Write::Delete { key: key.to_owned(), revision }).boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<BoxStream<'static, Result<Batch>>>> {
        async move { self.feed.clone().watch(self.log.clone(), prefix, after) }.boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision>> {
        async move { Ok(self.feed.head()) }.boxed()
    }

    fn request_progress(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            self.feed.request_progress();
            Ok(())
        }
        .boxed()
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<()>> {
        async move { self.write(Write::Compact { revision }).await.map(drop) }.boxed()
    }
}
