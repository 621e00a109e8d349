//! Creates files and directories below `cache_home`.
//!
//! The daemon runs as a user of its own, `lxdrunner bake` may run as root: root gives what it creates to the owner of the
//! directory above, so that the daemon can go on with it. No other user makes a call of the chown family: under the
//! filter of `provision/lxdrunner.service` such a call is forbidden.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown, lchown};
use std::path::Path;

const ROOT: u32 = 0;

/// Creates an empty file that no other user can read. What had the name is removed: it may be root's, or a link.
pub(super) fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create_new(path)
}

/// The same; fails with `AlreadyExists` where something has the name.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    if let Some((user, group)) = heir(&file.metadata()?, path) {
        fchown(&file, Some(user), Some(group))?;
    }
    Ok(file)
}

/// Creates a directory that no other user can look into, unless it is there.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    // Root may have made it and been interrupted then. Only an empty directory can be removed.
    if fs::symlink_metadata(path).is_ok_and(|about| about.is_dir() && about.uid() == ROOT) {
        drop(fs::remove_dir(path));
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let about = fs::symlink_metadata(path)?;
    if !about.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    match heir(&about, path) {
        Some((user, group)) => lchown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}

/// The user and the group that something of root's is to be given to: those of the directory that it is in.
fn heir(about: &Metadata, path: &Path) -> Option<(u32, u32)> {
    let above = fs::metadata(path.parent()?).ok()?;
    (about.uid() == ROOT && above.uid() != ROOT).then(|| (above.uid(), above.gid()))
}
