//! The image `km/pause:<version>`, made of the running executable.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::runtime::{Result, Runtime, RuntimeError};

/// Chunks of the upload that may wait for the engine.
const WAITING_CHUNKS: usize = 16;
const CHUNK: usize = 256 * 1024;

/// The name of the pause image of this version of km.
pub fn reference() -> String {
    format!("km/pause:{}", env!("CARGO_PKG_VERSION"))
}

/// Builds the pause image from `executable`, unless the engine has it.
///
/// # Errors
/// Those of the engine; `Refused` if the executable cannot be read.
pub async fn ensure(runtime: &dyn Runtime, executable: &Path) -> Result<()> {
    let reference = reference();
    if runtime.image(&reference).await?.is_some() {
        return Ok(());
    }
    let unreadable = |error: io::Error| RuntimeError::Refused(format!("{}: {error}", executable.display()));
    let libraries = libraries().map_err(unreadable)?;
    let executable = File::open(executable).map_err(unreadable)?;
    let (sender, receiver) = mpsc::channel(WAITING_CHUNKS);
    let entrypoint = entrypoint(&libraries);
    let writing = tokio::task::spawn_blocking(move || write_root(executable, &libraries, Chunks { sender, buffer: Vec::new() }));
    tracing::info!(image = reference, "making the pause image");
    let imported = runtime.import(&reference, &entrypoint, ReceiverStream::new(receiver).boxed()).await;
    let written = writing.await.map_err(|error| RuntimeError::Refused(error.to_string()))?;
    imported?;
    written.map_err(|error| RuntimeError::Refused(format!("the pause image: {error}")))
}

/// The shared libraries of this process, including the loader; none for a static build.
fn libraries() -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in BufReader::new(File::open("/proc/self/maps")?).lines() {
        let line = line?;
        let Some(path) = line.find('/').map(|at| PathBuf::from(&line[at..])) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if (name.ends_with(".so") || name.contains(".so.")) && !found.contains(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

/// `/km pause`, run by the loader if there is one, which finds the libraries wherever the build expects them.
fn entrypoint(libraries: &[PathBuf]) -> Vec<String> {
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let loader = libraries.iter().map(name).find(|name| name.starts_with("ld-") || name.starts_with("ld."));
    let mut command = Vec::new();
    if let Some(loader) = loader {
        command.extend([format!("/lib/{loader}"), "--library-path".to_owned(), "/lib".to_owned()]);
    }
    command.extend(["/km".to_owned(), "pause".to_owned()]);
    command
}

fn write_root(executable: File, libraries: &[PathBuf], out: Chunks) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    append(&mut tar, "km", executable)?;
    for library in libraries {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        append(&mut tar, &format!("lib/{name}"), File::open(library)?)?;
    }
    tar.into_inner()?.flush()
}

fn append(tar: &mut tar::Builder<Chunks>, path: &str, file: File) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(file.metadata()?.len());
    header.set_mode(0o755);
    header.set_mtime(0);
    tar.append_data(&mut header, path, file)
}

/// A blocking writer into the upload.
struct Chunks {
    sender: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(data);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.sender.blocking_send(chunk).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}
