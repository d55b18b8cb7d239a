//! Frameworks, executors and tasks on disk, a file each, for the next start of a local cluster.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use prost::Message;

use super::agent::{Executor, Key, Task};
use crate::mesos::v1::FrameworkInfo;

/// A directory of records.
#[derive(Debug)]
pub(super) struct Store(PathBuf);

impl Store {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self(directory.to_owned()))
    }

    /// The cluster's id: the one it was given first.
    pub(super) fn id(&self, fresh: &str) -> io::Result<String> {
        match fs::read_to_string(self.0.join("id")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => write(&self.0.join("id"), fresh.as_bytes()).map(|()| fresh.to_owned()),
            id => id,
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

    /// A sandbox for a container, made if it is not there.
    pub(super) fn sandbox(&self, agent: &str, key: &Key, container: &str) -> io::Result<PathBuf> {
        let path = self.0.join(format!("slaves/{agent}/frameworks/{}/executors/{}/runs/{container}", key.0, key.1));
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    fn read<M: Message + Default>(&self, folder: &str) -> io::Result<Vec<M>> {
        let folder = self.0.join(folder);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "pb"));
        paths.sort();
        let record =
            |path: PathBuf| M::decode(&*fs::read(&path)?).map_err(|error| io::Error::other(format!("{}: {error}", path.display())));
        paths.into_iter().map(record).collect()
    }

    /// Writes or removes a record. A cluster whose disk fails goes on; it only forgets.
    fn put(&self, folder: &str, name: &str, record: Option<&impl Message>) {
        let path = self.0.join(folder).join(format!("{name}.pb"));
        let done = match record {
            Some(record) => write(&path, &record.encode_to_vec()),
            None => fs::remove_file(&path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }),
        };
        if let Err(error) = done {
            tracing::error!("cannot store {}: {error}", path.display());
        }
    }
}

/// Ids hold no slash; a tilde between them keeps the two apart.
fn name(key: &Key) -> String {
    format!("{}~{}", key.0, key.1)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let new = path.with_extension("new");
    fs::File::create(&new)?.write_all(bytes)?;
    fs::rename(new, path)
}
