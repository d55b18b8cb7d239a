//! Frameworks, executors and tasks on disk, a file each, for the next start of a local cluster. Changes are queued without blocking, and
//! [`Store::keep`] writes them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Notify;

use super::agent::{Executor, Key, Task};
use crate::mesos::v1::FrameworkInfo;
use crate::supervise::Shutdown;

/// A directory of records. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    /// Records to write, or to remove (`None`), in the order of their first change; one entry per record.
    pending: Mutex<Pending>,
    changed: Notify,
}

type Pending = IndexMap<PathBuf, Option<Vec<u8>>>;

impl Store {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        make_directory(directory)?;
        Ok(Self(Arc::new(Inner { directory: directory.to_owned(), pending: Mutex::default(), changed: Notify::new() })))
    }

    /// Writes changes until `shutdown`, and then the remaining ones.
    pub(super) async fn keep(self, shutdown: Shutdown) {
        loop {
            let ends = shutdown.run_until_cancelled(self.0.changed.notified()).await.is_none();
            let pending = std::mem::take(&mut *self.0.pending.lock());
            // The disk may take its time.
            let _ = tokio::task::spawn_blocking(move || write_all(pending)).await;
            if ends {
                return;
            }
        }
    }

    /// The cluster's id: the first one that it was given.
    pub(super) fn id(&self, fresh: &str) -> io::Result<String> {
        let path = self.0.directory.join("id");
        match fs::read_to_string(&path) {
            Ok(id) if !id.is_empty() => Ok(id),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                write(&path, fresh.as_bytes())?;
                sync(&self.0.directory)?;
                Ok(fresh.to_owned())
            }
        }
    }

    pub(super) fn frameworks(&self) -> io::Result<Vec<FrameworkInfo>> {
        self.read("frameworks")
    }

    pub(super) fn executors(&self, agent: &str) -> io::Result<Vec<Executor>> {
        self.read(&format!("agents/{agent}/executors"))
    }

    pub(super) fn tasks(&self, agent: &str) -> io::Result<Vec<Task>> {
        self.read(&format!("agents/{agent}/tasks"))
    }

    pub(super) fn put_framework(&self, id: &str, info: Option<&FrameworkInfo>) {
        self.put("frameworks", id, info);
    }

    pub(super) fn put_executor(&self, agent: &str, key: &Key, executor: Option<&Executor>) {
        self.put(&format!("agents/{agent}/executors"), &name(key), executor);
    }

    pub(super) fn put_task(&self, agent: &str, key: &Key, task: Option<&Task>) {
        self.put(&format!("agents/{agent}/tasks"), &name(key), task);
    }

    /// Where the sandbox of a container is.
    pub(super) fn sandbox(&self, agent: &str, key: &Key, container: &str) -> PathBuf {
        self.0.directory.join(format!("slaves/{agent}/frameworks/{}/executors/{}/runs/{container}", key.0, key.1))
    }

    /// The records of a folder. Empty and damaged files are ignored.
    fn read<M: Message + Default>(&self, folder: &str) -> io::Result<Vec<M>> {
        let folder = self.0.directory.join(folder);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "pb"));
        paths.sort();
        let mut records = Vec::new();
        for path in paths {
            let bytes = fs::read(&path)?;
            match M::decode(&*bytes) {
                _ if bytes.is_empty() => tracing::error!("{} is empty, and ignored", path.display()),
                Err(error) => tracing::error!("{} is ignored: {error}", path.display()),
                Ok(record) => records.push(record),
            }
        }
        Ok(records)
    }

    fn put(&self, folder: &str, name: &str, record: Option<&impl Message>) {
        let path = self.0.directory.join(folder).join(format!("{name}.pb"));
        self.0.pending.lock().insert(path, record.map(Message::encode_to_vec));
        self.0.changed.notify_one();
    }
}

/// Ids hold no slash; a tilde between them keeps the two apart.
fn name(key: &Key) -> String {
    format!("{}~{}", key.0, key.1)
}

/// Writes and removes records. Errors are only logged: the cluster continues, but forgets the records at its next start.
fn write_all(pending: Pending) {
    let mut folders = BTreeSet::new();
    for (path, record) in pending {
        let done = match record {
            Some(record) => write(&path, &record),
            None => fs::remove_file(&path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }),
        };
        if let Err(error) = done {
            tracing::error!("cannot store {}: {error}", path.display());
        }
        folders.extend(path.parent().map(Path::to_owned));
    }
    for folder in folders.iter().filter(|folder| folder.exists()) {
        if let Err(error) = sync(folder) {
            tracing::error!("cannot store what is in {}: {error}", folder.display());
        }
    }
}

/// Replaces a file atomically, also with regard to a loss of power. The caller must synchronise its folder afterwards.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    make_directory(path.parent().unwrap_or(Path::new(".")))?;
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// Creates a directory durably, with its parents.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_directory(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|()| sync(parent)),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framework(name: &str) -> FrameworkInfo {
        FrameworkInfo { name: name.to_owned(), id: Some(name.to_owned().into()), ..FrameworkInfo::default() }
    }

    /// Writes a store's pending changes, and opens it again.
    async fn reopened(store: Store) -> Store {
        let shutdown = Shutdown::new();
        shutdown.cancel();
        store.clone().keep(shutdown).await;
        Store::open(&store.0.directory).unwrap()
    }

    #[tokio::test]
    async fn what_was_put_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("deep/er")).unwrap();
        assert_eq!(store.id("one").unwrap(), "one");
        for name in ["a", "b", "c"] {
            store.put_framework(name, Some(&framework("old")));
            store.put_framework(name, Some(&framework(name)));
        }
        store.put_framework("b", None);
        let store = reopened(store).await;
        assert_eq!(store.frameworks().unwrap(), [framework("a"), framework("c")]);
        store.put_framework("c", None);
        let store = reopened(store).await;
        assert_eq!((store.frameworks().unwrap(), store.id("two").unwrap()), (vec![framework("a")], "one".to_owned()));
    }

    #[tokio::test]
    async fn it_writes_while_the_cluster_runs() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let shutdown = Shutdown::new();
        let mut keeping = tokio::task::JoinSet::new();
        keeping.spawn(store.clone().keep(shutdown.clone()));
        for round in 0..3 {
            let name = format!("f{round}");
            store.put_framework(&name, Some(&framework(&name)));
            while store.frameworks().unwrap().len() <= round {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        shutdown.cancel();
        keeping.join_all().await;
    }

    #[tokio::test]
    async fn an_empty_or_damaged_record_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        store.put_framework("a", Some(&framework("a")));
        let store = reopened(store).await;
        for (name, bytes) in [("empty", &[][..]), ("cut", &framework("cut").encode_to_vec()[..4])] {
            fs::write(directory.path().join(format!("frameworks/{name}.pb")), bytes).unwrap();
        }
        fs::write(directory.path().join("id"), "").unwrap();
        assert_eq!((store.frameworks().unwrap(), store.id("new").unwrap()), (vec![framework("a")], "new".to_owned()));
    }
}
