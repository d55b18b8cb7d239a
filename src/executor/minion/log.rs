//! A program's log: a file that is put aside when it is large, of which a few are kept for a while.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file; at least a megabyte.
    pub size: u64,
    pub age: Duration,
    /// Number of rotated files, besides the current one.
    pub backups: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { size: 10 << 20, age: Duration::from_hours(7 * 24), backups: 5 }
    }
}

/// The log being written.
#[derive(Debug)]
pub(super) struct Rotated {
    path: PathBuf,
    file: File,
    written: u64,
    limits: Limits,
}

impl Rotated {
    pub(super) fn open(dir: &Path, name: &str, limits: Limits) -> io::Result<Self> {
        let path = dir.join(name);
        let file = File::options().create(true).append(true).open(&path)?;
        let written = file.metadata()?.len();
        Ok(Self { path, file, written, limits: Limits { size: limits.size.max(1 << 20), ..limits } })
    }

    fn write(&mut self, data: &[u8], now: Timestamp) -> io::Result<()> {
        if self.written > 0 && self.written + data.len() as u64 > self.limits.size {
            self.rotate(now)?;
        }
        self.file.write_all(data)?;
        self.written += data.len() as u64;
        Ok(())
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        let stamp = now.strftime("%Y-%m-%dT%H-%M-%S%.3f");
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        fs::rename(&self.path, self.path.with_file_name(format!("{name}-{stamp}")))?;
        self.file = File::options().create(true).append(true).open(&self.path)?;
        self.written = 0;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let prefix = format!("{name}-");
        let entries = fs::read_dir(dir)?.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        let backups = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.modified().ok()?))).collect();
        for path in surplus(backups, self.limits, now.into()) {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

/// The backups to delete: those that are too old or too many.
fn surplus(mut backups: Vec<(PathBuf, SystemTime)>, limits: Limits, now: SystemTime) -> Vec<PathBuf> {
    backups.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
    let is_old = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age > limits.age);
    let kept = |(index, (_, at)): &(usize, (PathBuf, SystemTime))| *index < limits.backups && !is_old(at);
    backups.into_iter().enumerate().filter(|it| !kept(it)).map(|(_, (path, _))| path).collect()
}

/// Copies a program's output until it ends. A disk error loses output, but does not stop the program.
pub(super) async fn copy(said: Option<impl AsyncRead + Unpin>, mut log: Rotated) {
    let Some(mut said) = said else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = said.read(&mut buffer).await {
        if let Err(error) = log.write(&buffer[..count], Timestamp::now()) {
            tracing::warn!("{}: {error}", log.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_put_aside_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { size: 1, backups: 2, ..Limits::default() };
        let mut log = Rotated::open(dir.path(), "x.log", limits).unwrap();
        let half = vec![b'a'; 600 << 10];
        let now = Timestamp::now();
        for second in 0..5 {
            log.write(&half, now + Duration::from_secs(second)).unwrap();
        }
        let count = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(count, 3, "one being written, two beside it");
        assert_eq!(fs::metadata(dir.path().join("x.log")).unwrap().len(), half.len() as u64);
    }

    #[test]
    fn old_backups_go() {
        let now = SystemTime::now();
        let at = |hours: u64| now - Duration::from_hours(hours);
        let backups = vec![("a".into(), at(1)), ("b".into(), at(200)), ("c".into(), at(2)), ("d".into(), at(3))];
        let gone = surplus(backups, Limits { backups: 2, ..Limits::default() }, now);
        assert_eq!(gone, [PathBuf::from("d"), PathBuf::from("b")]);
    }
}
