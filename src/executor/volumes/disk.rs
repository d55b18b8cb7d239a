//! Volumes on the node's disk, below `<root>/pods/<uid>`. Everything can be repeated: a second set-up changes only what is different.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{File, Volume};

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
        Volume::EmptyDir { .. } | Volume::Files(_) => pod_dir(root, uid).join("volumes").join(volume.plugin()).join(name),
    }
}

/// Makes a volume, or brings its files up to date. With a group, the volume belongs to it and new files in it will.
///
/// # Errors
/// Those of the file system, and a `hostPath` that is not of the kind it should be.
pub fn set_up(root: &Path, uid: &str, name: &str, volume: &Volume, group: Option<i64>) -> anyhow::Result<()> {
    let path = volume_path(root, uid, name, volume);
    match volume {
        Volume::HostPath { kind, .. } => return check_host_path(&path, kind),
        Volume::EmptyDir { memory, size } => {
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
            if *memory && !is_mount_point(&path)? {
                let options = size.map(|size| format!("size={size}"));
                let none = None::<&str>;
                mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, options.as_deref().or(none))
                    .with_context(|| format!("a tmpfs on {}", path.display()))?;
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        }
        Volume::Files(files) => {
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
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

/// Unmounts and deletes everything of a pod.
///
/// # Errors
/// Those of the file system; then parts may be left.
pub fn tear_down(root: &Path, uid: &str) -> anyhow::Result<()> {
    let dir = pod_dir(root, uid);
    let memory = dir.join("volumes").join("kubernetes.io~empty-dir");
    for entry in fs::read_dir(&memory).into_iter().flatten().flatten() {
        if is_mount_point(&entry.path())? {
            umount2(&entry.path(), MntFlags::MNT_DETACH).with_context(|| entry.path().display().to_string())?;
        }
    }
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
        // Without a type nothing is checked; the engine wants something to be there.
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

/// Replaces the files of a volume all at once: they are written to a new directory, and one rename makes it the current one. What
/// users see at the top are links into it.
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
        fs::write(&path, &file.data)?;
        let mut mode = file.mode;
        if let Some(group) = group.and_then(|group| u32::try_from(group).ok()) {
            chown(&path, None, Some(group))?;
            mode |= 0o040;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
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
        } else if !tops.contains(name) {
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

/// The directory or file below a volume that a `subPath` names. It is made if it is not there, and may not lead out of the volume.
///
/// # Errors
/// Those of the file system, and a link out of the volume.
pub fn sub_path(volume: &Path, below: &str) -> anyhow::Result<PathBuf> {
    let path = volume.join(below);
    if !path.exists() {
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    let (real, inside) = (path.canonicalize()?, volume.canonicalize()?);
    if !real.starts_with(&inside) {
        bail!("subPath {below:?} leads out of the volume");
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Volume {
        Volume::Files(list.iter().map(|(path, text)| ((*path).to_owned(), File { data: text.as_bytes().to_vec(), mode: 0o640 })).collect())
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
    fn sub_paths_stay_inside() {
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("v");
        fs::create_dir(&volume).unwrap();
        assert!(sub_path(&volume, "x/y").unwrap().ends_with("v/x/y"));
        symlink("/etc", volume.join("out")).unwrap();
        assert!(sub_path(&volume, "out").is_err());
    }
}
