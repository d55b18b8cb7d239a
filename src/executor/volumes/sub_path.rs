//! Resolves a `subPath` inside a volume. Containers that write to the volume may replace any directory in it by a link to any place of the
//! node, at any time: so a path is walked once, without following links, and afterwards only the opened file is used.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};

/// Opens the directory or file at the path `below` in a volume, following links that stay inside it. Missing directories are created with
/// the permissions of the volume.
///
/// # Errors
/// Those of the file system, a path out of the volume, and one that changes while it is walked.
pub fn open_below(volume: &Path, below: &str) -> anyhow::Result<OwnedFd> {
    let root = volume.canonicalize().with_context(|| volume.display().to_string())?;
    let (inside, missing) = resolve(&root, below)?;
    let changed = || format!("subPath {below:?} is not what it was a moment ago");
    let path_only = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let top = open(&root, path_only | OFlag::O_DIRECTORY, Mode::empty()).with_context(|| root.display().to_string())?;
    let mode = Mode::from_bits_truncate(fstat(&top)?.st_mode);
    let mut at = top;
    for name in &inside {
        at = openat(&at, name, path_only | OFlag::O_NOFOLLOW, Mode::empty()).with_context(changed)?;
    }
    if SFlag::from_bits_truncate(fstat(&at)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK {
        bail!(changed());
    }
    for name in missing {
        let made = match mkdirat(&at, name, mode) {
            Ok(()) => true,
            // Another container of the pod was faster.
            Err(Errno::EEXIST) => false,
            Err(error) => return Err(error).with_context(|| format!("making {name:?} of subPath {below:?}")),
        };
        let directory = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        at = openat(&at, name, directory, Mode::empty()).with_context(changed)?;
        if made {
            // The umask applied to mkdirat.
            fchmod(&at, mode)?;
        }
    }
    Ok(at)
}

/// The longest existing part of the path, with links resolved, and the missing names after it.
fn resolve<'a>(root: &Path, below: &'a str) -> anyhow::Result<(PathBuf, Vec<&'a str>)> {
    let mut there: Vec<&str> = below.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let mut missing = Vec::new();
    loop {
        let path = root.join(there.iter().collect::<PathBuf>());
        match path.canonicalize() {
            Ok(real) => {
                let Ok(inside) = real.strip_prefix(root) else { bail!("subPath {below:?} leads out of the volume") };
                missing.reverse();
                return Ok((inside.to_owned(), missing));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => match there.pop() {
                Some(name) => missing.push(name),
                None => return Err(error).with_context(|| root.display().to_string()),
            },
            Err(error) => return Err(error).with_context(|| format!("subPath {below:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn volume() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().canonicalize().unwrap().join("v");
        fs::create_dir(&volume).unwrap();
        (root, volume)
    }

    fn real(opened: &OwnedFd) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).unwrap()
    }

    #[test]
    fn directories_are_made_with_the_permissions_of_the_volume() {
        let (_root, volume) = volume();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2777)).unwrap();
        assert_eq!(real(&open_below(&volume, "x/./y").unwrap()), volume.join("x/y"));
        assert_eq!(fs::metadata(volume.join("x/y")).unwrap().permissions().mode() & 0o7777, 0o2777);
        fs::set_permissions(volume.join("x"), fs::Permissions::from_mode(0o700)).unwrap();
        open_below(&volume, "x/z").unwrap();
        assert_eq!(fs::metadata(volume.join("x")).unwrap().permissions().mode() & 0o7777, 0o700, "what was there stays as it was");
    }

    #[test]
    fn links_lead_only_inside() {
        let (root, volume) = volume();
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::create_dir(volume.join("..data")).unwrap();
        fs::write(volume.join("..data/key"), "1").unwrap();
        symlink("..data/key", volume.join("key")).unwrap();
        symlink(volume.join("..data"), volume.join("absolute")).unwrap();
        symlink(&outside, volume.join("out")).unwrap();
        symlink(volume.join("nowhere"), volume.join("dangling")).unwrap();
        for (below, expected) in [("key", "..data/key"), ("absolute/key", "..data/key"), ("absolute/new", "..data/new")] {
            assert_eq!(real(&open_below(&volume, below).unwrap()), volume.join(expected), "{below}");
        }
        for below in ["out", "out/x", "key/x", "dangling", "dangling/x"] {
            assert!(open_below(&volume, below).is_err(), "{below}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing is made outside");
        assert!(!volume.join("nowhere").exists());
    }

    /// A container that writes the volume puts a link in the place of a directory, and the directory back, again and again.
    #[test]
    fn nothing_outside_is_opened_or_made_while_a_directory_becomes_a_link() {
        let (root, volume) = volume();
        let outside = root.path().canonicalize().unwrap().join("outside");
        let (dir, link) = (volume.join("d"), volume.join("link"));
        fs::create_dir_all(outside.join("sub")).unwrap();
        fs::create_dir_all(dir.join("sub")).unwrap();
        symlink(&outside, &link).unwrap();
        let stop = AtomicBool::new(false);
        let (mut opened, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let cwd = nix::fcntl::AT_FDCWD;
                    nix::fcntl::renameat2(cwd, &dir, cwd, &link, nix::fcntl::RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            });
            for turn in 0..3_000 {
                for below in ["d/sub", &format!("d/new-{turn}")] {
                    match open_below(&volume, below) {
                        Ok(it) => {
                            assert!(real(&it).starts_with(&volume), "{}", real(&it).display());
                            opened += 1;
                        }
                        Err(_) => refused += 1,
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        let made: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(made, ["sub"]);
        assert!(opened > 0 && refused > 0, "{opened} opened, {refused} refused");
    }

    #[test]
    fn files_are_opened_too() {
        let (_root, volume) = volume();
        fs::write(volume.join("f"), "1").unwrap();
        let opened = open_below(&volume, "f").unwrap();
        let mut text = String::new();
        fs::File::open(format!("/proc/self/fd/{}", opened.as_raw_fd())).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "1");
    }
}
