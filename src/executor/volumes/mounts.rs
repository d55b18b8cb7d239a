//! Mounts below a directory of the executor: listing, mounting, unmounting.

use std::fs;
use std::io;
use std::iter;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{SFlag, fstat};

const NONE: Option<&str> = None;

/// The mounts of this process, one a line. The format is in proc(5).
const TABLE: &str = "/proc/self/mountinfo";
/// Maximum number of scans below a directory: mounts may lie on top of each other.
const ROUNDS: usize = 16;

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    at: PathBuf,
    /// Whether mounts below it propagate to its peers.
    shared: bool,
}

fn parse(table: &str) -> Vec<Mounted> {
    let line = |line: &str| {
        let mut fields = line.split(' ').skip(4);
        let at = PathBuf::from(unescape(fields.next()?));
        let shared = fields.skip(1).take_while(|field| *field != "-").any(|field| field.starts_with("shared:"));
        Some(Mounted { at, shared })
    };
    table.lines().filter_map(line).collect()
}

/// Undoes `\ooo`, by which the kernel writes spaces and the like.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => plain.extend(iter::once(char::from(code)).chain(part[3..].chars())),
            None => plain.extend(iter::once('\\').chain(part.chars())),
        }
    }
    plain
}

/// The outermost mount points below `dir`, not `dir` itself.
fn outermost(mounted: &[Mounted], dir: &Path) -> Vec<PathBuf> {
    let mut below: Vec<&Path> = mounted.iter().map(|it| it.at.as_path()).filter(|at| *at != dir && at.starts_with(dir)).collect();
    below.sort();
    let mut outermost: Vec<PathBuf> = Vec::new();
    for at in below {
        if !outermost.last().is_some_and(|last| at.starts_with(last)) {
            outermost.push(at.to_owned());
        }
    }
    outermost
}

/// Unmounts everything below a directory, so that it holds only its own files. A missing directory has no mounts.
///
/// # Errors
/// If something cannot be unmounted; the directory must not be deleted then.
pub fn clear(dir: &Path) -> anyhow::Result<()> {
    let dir = match dir.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        dir => dir?,
    };
    for _ in 0..ROUNDS {
        let left = outermost(&parse(&fs::read_to_string(TABLE).context(TABLE)?), &dir);
        if left.is_empty() {
            return Ok(());
        }
        for at in left {
            take_away(&at).with_context(|| format!("unmounting {}", at.display()))?;
        }
    }
    bail!("something is mounted below {} again and again", dir.display())
}

/// Unmounts a mount with all mounts below it. Without making them private first, those below would be unmounted from their original places
/// too.
fn take_away(at: &Path) -> nix::Result<()> {
    mount(NONE, at, NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    umount2(at, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
}

/// Bind-mounts an opened directory or file at a path, in place of any previous mount there.
///
/// # Errors
/// Those of the file system, and the refusal of the kernel if this process may not mount.
pub fn bind(what: &OwnedFd, at: &Path) -> anyhow::Result<()> {
    unbind(at)?;
    let parent = at.parent().unwrap_or(at);
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    check_seen(parent)?;
    if is_dir(what)? { fs::create_dir(at) } else { fs::File::create_new(at).map(drop) }.with_context(|| at.display().to_string())?;
    // This link leads to the opened file, even if its path has changed. As with a kubelet, the bind is not recursive: mounts below may
    // include this very directory.
    let from = format!("/proc/self/fd/{}", what.as_raw_fd());
    mount(Some(from.as_str()), at, NONE, MsFlags::MS_BIND, NONE).map_err(refused)
}

/// Undoes [`bind`]; does nothing if there is no mount.
///
/// # Errors
/// Those of the file system.
pub fn unbind(at: &Path) -> anyhow::Result<()> {
    let shown = || at.display().to_string();
    loop {
        match take_away(at) {
            Ok(()) => {}
            // Missing, or not mounted; and a process that may not unmount has not mounted.
            Err(Errno::ENOENT | Errno::EINVAL | Errno::EPERM) => break,
            Err(error) => return Err(error).with_context(shown),
        }
    }
    // Fails if something is still mounted there.
    match fs::symlink_metadata(at) {
        Ok(it) if it.is_dir() => fs::remove_dir(at).with_context(shown),
        Ok(_) => fs::remove_file(at).with_context(shown),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(shown),
    }
}

/// Makes a tmpfs appear at a directory. `size` is in bytes; without one, it is the kernel's.
///
/// # Errors
/// The refusal of the kernel if this process may not mount.
pub fn tmpfs(at: &Path, size: Option<i64>) -> anyhow::Result<()> {
    check_seen(at)?;
    let options = format!("mode=0755{}", size.map(|size| format!(",size={size}")).unwrap_or_default());
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
        .map_err(refused)
        .with_context(|| format!("a tmpfs on {}", at.display()))
}

fn refused(error: Errno) -> anyhow::Error {
    match error {
        Errno::EPERM | Errno::EACCES => anyhow::Error::new(error).context("the executor may not mount: it needs root's CAP_SYS_ADMIN"),
        error => error.into(),
    }
}

fn is_dir(what: &OwnedFd) -> nix::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(what)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

/// Refuses mounts that only this process would see: the engine would give containers what lies below them.
fn check_seen(dir: &Path) -> anyhow::Result<()> {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let Some(first) = namespace("1") else { return Ok(()) };
    if namespace("self") == Some(first) {
        return Ok(());
    }
    let dir = dir.canonicalize()?;
    let mounted = parse(&fs::read_to_string(TABLE).context(TABLE)?);
    // The last of those at the same place lies on top.
    let holds_it = mounted.iter().filter(|it| dir.starts_with(&it.at)).max_by_key(|it| it.at.as_os_str().len());
    if holds_it.is_some_and(|it| it.shared) {
        return Ok(());
    }
    bail!("the container engine would not see what the executor mounts below {}: they have different mount namespaces", dir.display())
}

/// Whether tests may mount: CI may not be root.
#[cfg(test)]
pub fn may_mount() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let may = tmpfs(dir.path(), None).is_ok();
    if may {
        take_away(dir.path()).unwrap();
    }
    may
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read() {
        let table = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                     30 22 0:5 / /a\\040b rw - tmpfs tmpfs rw\n\
                     31 30 0:6 /x /a\\040b/c\\134d rw shared:7 master:2 - tmpfs shared:x rw\n\
                     32 22 0:7 / /ab rw master:1 - tmpfs tmpfs rw\n\
                     33 30 0:6 / /a\\040b/e rw - tmpfs tmpfs rw\nnonsense\n";
        let mounted = parse(table);
        let read: Vec<_> = mounted.iter().map(|it| (it.at.to_str().unwrap(), it.shared)).collect();
        assert_eq!(read, [("/", true), ("/a b", false), ("/a b/c\\d", true), ("/ab", false), ("/a b/e", false)]);
        let below = |dir: &str| outermost(&mounted, Path::new(dir));
        assert_eq!(below("/a b"), [Path::new("/a b/c\\d"), Path::new("/a b/e")]);
        assert_eq!(below("/"), [Path::new("/a b"), Path::new("/ab")]);
        assert!(below("/ab").is_empty());
    }

    #[test]
    fn what_is_bound_is_unbound() {
        let root = tempfile::tempdir().unwrap();
        let (source, at) = (root.path().join("source"), root.path().join("deep/at"));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("file"), "1").unwrap();
        let open = |path: &Path| OwnedFd::from(fs::File::open(path).unwrap());
        if !may_mount() {
            let why = format!("{:#}", bind(&open(&source), &at).unwrap_err());
            assert!(["may not mount", "would not see"].iter().any(|it| why.contains(it)), "{why}");
            return unbind(&at).unwrap();
        }
        bind(&open(&source), &at).unwrap();
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "1");
        // Another kind of thing at the same place, as after an executor that ended between the two.
        bind(&open(&source.join("file")), &at).unwrap();
        assert_eq!(fs::read_to_string(&at).unwrap(), "1");
        unbind(&at).unwrap();
        unbind(&at).unwrap();
        assert!(!at.exists());
        // One on the other, and one below another.
        for part in ["a", "a", "a/b"] {
            fs::create_dir_all(root.path().join(part)).unwrap();
            tmpfs(&root.path().join(part), Some(1 << 20)).unwrap();
        }
        fs::write(root.path().join("a/b/c"), "1").unwrap();
        clear(root.path()).unwrap();
        assert_eq!(fs::read_dir(root.path().join("a")).unwrap().count(), 0);
        clear(&root.path().join("absent")).unwrap();
    }
}
