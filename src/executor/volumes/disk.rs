//! Volumes on the node's disk, below `<root>/pods/<uid>`. All operations are idempotent: a second set-up changes only differences.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{File, Volume, mounts, sub_path};

/// The link to the directory that holds the current files of a volume.
const CURRENT: &str = "..data";

/// The directory of everything of a pod.
pub fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// Where a volume is on the host.
pub fn volume_path(root: &Path, uid: &str, name: &str, volume: &Volume) -> PathBuf {
    match volume {
        Volume::HostPath { path, .. } => PathBuf::from(path),
        Volume::EmptyDir { .. } | Volume::Files { .. } => pod_dir(root, uid).join("volumes").join(volume.plugin()).join(name),
    }
}

/// Creates a volume, or updates its files. With a group, the volume and new files in it belong to that group.
///
/// # Errors
/// I/O errors, and a `hostPath` of another kind than required.
pub fn set_up(root: &Path, uid: &str, name: &str, volume: &Volume, group: Option<i64>) -> anyhow::Result<()> {
    let path = volume_path(root, uid, name, volume);
    match volume {
        Volume::HostPath { kind, .. } => return check_host_path(&path, kind),
        Volume::EmptyDir { memory, size } => {
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
            if *memory && !is_mount_point(&path)? {
                mounts::tmpfs(&path, *size)?;
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        }
        Volume::Files { files, secret } => {
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
            // Not on top of files that running containers have mounted already.
            let is_new = fs::read_dir(&path)?.next().is_none() && !is_mount_point(&path)?;
            if *secret
                && is_new
                && let Err(error) = mounts::tmpfs(&path, None)
            {
                tracing::debug!("secrets lie on the disk: {error:#}");
            }
            write_files(&path, files, group).with_context(|| path.display().to_string())?;
        }
    }
    if let Some(group) = group {
        let group = u32::try_from(group).context("fsGroup is not a group id")?;
        chown(&path, None, Some(group))?;
        let mode = fs::metadata(&path)?.permissions().mode();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o2070))?;
    }
    Ok(())
}

/// Unmounts and deletes all volumes of a pod.
///
/// # Errors
/// I/O errors; then parts may be left.
pub fn tear_down(root: &Path, uid: &str) -> anyhow::Result<()> {
    let dir = pod_dir(root, uid);
    // Containers may have left mounts in their volumes, whose content must not be deleted.
    mounts::clear(&dir)?;
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| dir.display().to_string()),
        _ => Ok(()),
    }
}

/// Uids of the pods that have a directory.
pub fn pods(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root.join("pods")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(fs::metadata(path)?.dev() != fs::metadata(parent)?.dev())
}

fn check_host_path(path: &Path, kind: &str) -> anyhow::Result<()> {
    let found = fs::metadata(path).ok();
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(|it| test(&it.file_type()));
    let shown = path.display();
    match (kind, &found) {
        // Without a type nothing is checked; the engine needs a path that exists.
        ("" | "DirectoryOrCreate", None) => {
            fs::create_dir_all(path).with_context(|| shown.to_string())?;
            if kind == "DirectoryOrCreate" {
                fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
            }
            Ok(())
        }
        ("FileOrCreate", None) => {
            fs::File::create(path).with_context(|| shown.to_string())?;
            Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o644))?)
        }
        ("", Some(_)) => Ok(()),
        ("Directory" | "DirectoryOrCreate", _) if is(fs::FileType::is_dir) => Ok(()),
        ("File" | "FileOrCreate", _) if is(fs::FileType::is_file) => Ok(()),
        ("Socket", _) if is(FileTypeExt::is_socket) => Ok(()),
        ("CharDevice", _) if is(FileTypeExt::is_char_device) => Ok(()),
        ("BlockDevice", _) if is(FileTypeExt::is_block_device) => Ok(()),
        (kind, _) => bail!("hostPath type check failed: {shown} is not a {}", describe(kind)),
    }
}

fn describe(kind: &str) -> &'static str {
    match kind {
        "Directory" | "DirectoryOrCreate" => "directory",
        "File" | "FileOrCreate" => "file",
        "Socket" => "socket file",
        "CharDevice" => "character device",
        _ => "block device",
    }
}

/// Replaces the files of a volume atomically: writes them to a new directory, and makes it current by one rename. The visible entries at
/// the top are links into it.
fn write_files(dir: &Path, files: &BTreeMap<String, File>, group: Option<i64>) -> anyhow::Result<()> {
    let current = fs::read_link(dir.join(CURRENT)).ok();
    if current.as_ref().is_some_and(|current| has_files(&dir.join(current), files)) {
        return Ok(());
    }
    let next = format!("..{}", jiff::Timestamp::now().as_nanosecond());
    let target = dir.join(&next);
    fs::create_dir_all(&target)?;
    for (path, file) in files {
        let path = target.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&target))?;
        let mut written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        written.write_all(&file.data)?;
        let mut mode = file.mode;
        if let Some(group) = group.and_then(|group| u32::try_from(group).ok()) {
            chown(&path, None, Some(group))?;
            mode |= 0o040;
        }
        written.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    let link = dir.join("..data_tmp");
    fs::remove_file(&link).or_else(missing_is_fine)?;
    symlink(&next, &link)?;
    fs::rename(&link, dir.join(CURRENT))?;
    let tops: std::collections::BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for top in &tops {
        let visible = dir.join(top);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new(CURRENT).join(top), &visible)?;
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("..") {
            if name != CURRENT && name != next {
                fs::remove_dir_all(entry.path()).or_else(missing_is_fine)?;
            }
        } else if !tops.contains(name) && entry.file_type()?.is_symlink() {
            // A directory was made for a subPath.
            fs::remove_file(entry.path()).or_else(missing_is_fine)?;
        }
    }
    Ok(())
}

fn missing_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn has_files(dir: &Path, files: &BTreeMap<String, File>) -> bool {
    fn count(dir: &Path) -> usize {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| if entry.file_type().is_ok_and(|it| it.is_dir()) { count(&entry.path()) } else { 1 }).sum()
    }
    count(dir) == files.len() && files.iter().all(|(path, file)| fs::read(dir.join(path)).is_ok_and(|data| data == file.data))
}

/// Bind-mounts the target of a `subPath` at a path that only the executor can change, for the engine to mount, until
/// [`release_sub_paths`].
///
/// # Errors
/// Those of [`sub_path::open_below`] and [`mounts::bind`].
pub fn bind_sub_path(root: &Path, uid: &str, container: &str, index: usize, volume: &Path, below: &str) -> anyhow::Result<PathBuf> {
    let opened = sub_path::open_below(volume, below)?;
    let at = sub_paths(root, uid, container).join(index.to_string());
    mounts::bind(&opened, &at)?;
    Ok(at)
}

/// Undoes [`bind_sub_path`] for a container, once it has been started.
///
/// # Errors
/// Those of the file system.
pub fn release_sub_paths(root: &Path, uid: &str, container: &str) -> anyhow::Result<()> {
    let mut entries = fs::read_dir(sub_paths(root, uid, container)).into_iter().flatten().flatten();
    entries.try_for_each(|entry| mounts::unbind(&entry.path()))
}

fn sub_paths(root: &Path, uid: &str, container: &str) -> PathBuf {
    pod_dir(root, uid).join("volume-subpaths").join(container)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Volume {
        let file = |text: &str| File { data: text.as_bytes().to_vec(), mode: 0o640 };
        Volume::Files { files: list.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect(), secret: false }
    }

    #[test]
    fn files_are_replaced_together() {
        let root = tempfile::tempdir().unwrap();
        let at = |volume: &Volume| volume_path(root.path(), "u", "v", volume);
        let first = files(&[("a", "1"), ("sub/b", "2")]);
        set_up(root.path(), "u", "v", &first, None).unwrap();
        let dir = at(&first);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(dir.join(CURRENT)).unwrap();
        set_up(root.path(), "u", "v", &first, None).unwrap();
        assert_eq!(fs::read_link(dir.join(CURRENT)).unwrap(), before, "nothing changed");
        set_up(root.path(), "u", "v", &files(&[("a", "3"), ("c", "4")]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert_eq!(fs::read_to_string(dir.join("c")).unwrap(), "4");
        assert!(!dir.join("sub").exists() && fs::symlink_metadata(dir.join("sub")).is_err());
        tear_down(root.path(), "u").unwrap();
        tear_down(root.path(), "u").unwrap();
        assert!(pods(root.path()).is_empty());
    }

    #[test]
    fn host_paths_are_checked() {
        let root = tempfile::tempdir().unwrap();
        let check = |name: &str, kind: &str| check_host_path(&root.path().join(name), kind);
        assert!(check("d", "Directory").is_err());
        check("d", "DirectoryOrCreate").unwrap();
        check("d", "Directory").unwrap();
        assert!(check("d", "File").unwrap_err().to_string().ends_with("is not a file"));
        check("f", "FileOrCreate").unwrap();
        check("f", "File").unwrap();
        check("new/er", "").unwrap();
    }

    #[test]
    fn sub_paths_are_there_until_they_are_released() {
        if !mounts::may_mount() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let volume = Volume::EmptyDir { memory: true, size: None };
        set_up(root.path(), "u", "v", &volume, None).unwrap();
        let path = volume_path(root.path(), "u", "v", &volume);
        let bind = |below: &str| bind_sub_path(root.path(), "u", "c", 0, &path, below).unwrap();
        let at = bind("a/b");
        fs::write(path.join("a/b/file"), "1").unwrap();
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "1");
        assert_eq!(fs::read_to_string(bind("a/b/file")).unwrap(), "1");
        release_sub_paths(root.path(), "u", "c").unwrap();
        assert!(!at.exists());
        // An executor that ended in between leaves it to the pod's end.
        bind("a/b");
        tear_down(root.path(), "u").unwrap();
        assert!(pods(root.path()).is_empty());
    }

    #[test]
    fn what_is_mounted_below_a_volume_outlives_the_pod() {
        if !mounts::may_mount() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let kept = root.path().join("kept");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("data"), "precious").unwrap();
        let volume = Volume::EmptyDir { memory: false, size: None };
        set_up(root.path(), "u", "v", &volume, None).unwrap();
        let inside = volume_path(root.path(), "u", "v", &volume).join("mnt");
        mounts::bind(&fs::File::open(&kept).unwrap().into(), &inside).unwrap();
        assert!(inside.join("data").exists());
        tear_down(root.path(), "u").unwrap();
        assert!(pods(root.path()).is_empty());
        assert_eq!(fs::read_to_string(kept.join("data")).unwrap_or_default(), "precious");
    }

    #[test]
    fn secrets_lie_on_a_tmpfs() {
        let root = tempfile::tempdir().unwrap();
        let Volume::Files { files, .. } = files(&[("a", "1")]) else { unreachable!() };
        let secret = Volume::Files { files, secret: true };
        let path = volume_path(root.path(), "u", "v", &secret);
        for _ in 0..2 {
            set_up(root.path(), "u", "v", &secret, None).unwrap();
            assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "1");
            assert_eq!(is_mount_point(&path).unwrap(), mounts::may_mount());
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
        tear_down(root.path(), "u").unwrap();
        assert!(pods(root.path()).is_empty());
    }
}
