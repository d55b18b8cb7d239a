//! The database file: opened, opened again after a failure, and closed, while readers come and go.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use parking_lot::RwLock;
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::tables::{self, Positions, ReadError};
use crate::store::{Result, StoreError};

pub(super) struct Disk {
    path: PathBuf,
    cache_bytes: usize,
    /// `None` once closed, or while it cannot be opened again after a failure.
    database: RwLock<Option<Database>>,
}

impl Disk {
    pub(super) fn open(path: PathBuf, cache_bytes: usize) -> Result<(Self, Positions)> {
        let disk = Self { path, cache_bytes, database: RwLock::new(None) };
        match disk.reopen() {
            Ok(positions) => Ok((disk, positions)),
            Err(error) => Err(disk.error(&error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the file if it is open and opens it: after an I/O error, redb wants that before anything else.
    pub(super) fn reopen(&self) -> std::result::Result<Positions, redb::Error> {
        let mut database = self.database.write();
        *database = None;
        let opened = Database::builder().set_cache_size(self.cache_bytes).create(&self.path)?;
        let positions = tables::prepare(&opened)?;
        *database = Some(opened);
        Ok(positions)
    }

    pub(super) fn close(&self) {
        *self.database.write() = None;
    }

    /// Runs `read` on the newest committed state.
    pub(super) fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> std::result::Result<T, ReadError>) -> Result<T> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(|| self.closed())?;
        let tx = database.begin_read().map_err(|error| self.error(&error.into()))?;
        read(&tx).map_err(|error| match error {
            ReadError::Compacted { asked, oldest } => StoreError::Compacted { asked, oldest },
            ReadError::Future { asked, head } => {
                StoreError::Failed(anyhow::anyhow!("revision {asked} is in the future, the newest is {head}"))
            }
            ReadError::Database(error) => self.error(&error),
        })
    }

    /// Runs `write` in a transaction and commits it durably if it says that there is something to commit.
    pub(super) fn write(
        &self,
        write: impl FnOnce(&WriteTransaction) -> std::result::Result<bool, redb::Error>,
    ) -> std::result::Result<(), redb::Error> {
        let database = self.database.read();
        let tx = tables::begin(database.as_ref().ok_or(redb::Error::DatabaseClosed)?)?;
        if write(&tx)? {
            tx.commit()?
        } else {
            tx.abort()?
        }
        Ok(())
    }

    pub(super) fn closed(&self) -> StoreError {
        StoreError::Unavailable(anyhow::anyhow!("{} is closed", self.path.display()))
    }

    /// What a failure of the database means to a caller of the store.
    pub(super) fn error(&self, error: &redb::Error) -> StoreError {
        let path = self.path.display();
        let cause = anyhow::anyhow!("{path}: {error}");
        match error {
            redb::Error::Io(io) => match io.kind() {
                // A file that may not grow further is as good as a full disk.
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => StoreError::Full(cause),
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof => StoreError::Failed(anyhow::anyhow!("{path} is damaged: {error}")),
                _ => StoreError::Failed(cause),
            },
            redb::Error::Corrupted(what) => StoreError::Failed(anyhow::anyhow!("{path} is damaged: {what}")),
            redb::Error::DatabaseClosed | redb::Error::PreviousIo => self.closed(),
            _ => StoreError::Failed(cause),
        }
    }
}
