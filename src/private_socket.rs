//! Unix sockets that only the daemon's own user and root can open.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The longest path that a socket's address holds, in bytes, is a little more (unix(7)).
const LONGEST_PATH: usize = 100;
/// Names that are tried for a directory: in a shared one somebody else may have made the first.
const NAMES: u32 = 1000;

/// The user of this process.
pub fn own_user() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|about| about.uid())
}

/// Binds in a directory of mode 0700: at no moment can other users connect. Replaces the socket of a process that was killed.
///
/// # Errors
/// The folder cannot be made private, or a process listens there.
pub fn bind(socket: &Path) -> io::Result<UnixListener> {
    let folder = socket.parent().unwrap_or(Path::new("/"));
    if let Some(cache) = folder.parent() {
        fs::create_dir_all(cache)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let about = fs::symlink_metadata(folder)?;
    if !about.is_dir() || Some(about.uid()) != own_user() {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "its folder is another user's"));
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    let place = short(socket)?;
    if UnixStream::connect(place.path()).is_ok() {
        return Err(io::Error::new(ErrorKind::AddrInUse, "another daemon with this prefix and cache_home runs"));
    }
    // Left behind by a daemon that was killed.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(place.path())?;
    fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A listener and `count` connections to it, over a socket without a name: nobody else can connect. It is bound in a new
/// directory of mode 0700 in the first of `folders` where that works, which is removed again.
///
/// # Errors
/// It works in none of them.
pub fn connected(count: usize, folders: &[PathBuf]) -> io::Result<(UnixListener, Vec<UnixStream>)> {
    let mut failed = io::Error::from(ErrorKind::NotFound);
    for folder in folders {
        match connected_in(folder, count) {
            Ok(connected) => return Ok(connected),
            Err(error) => failed = io::Error::new(error.kind(), format!("{}: {error}", folder.display())),
        }
    }
    Err(failed)
}

fn connected_in(folder: &Path, count: usize) -> io::Result<(UnixListener, Vec<UnixStream>)> {
    let names = (0..NAMES).map(|n| folder.join(format!("lxdrunner-{}-{n}", std::process::id())));
    let mut made = Err(ErrorKind::AlreadyExists.into());
    for own in names {
        made = DirBuilder::new().mode(0o700).create(&own).map(|()| own);
        if !made.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
            break;
        }
    }
    let own = made?;
    let socket = own.join("socket");
    let connected = short(&socket).and_then(|place| {
        let listener = UnixListener::bind(place.path())?;
        let streams = (0..count).map(|_| UnixStream::connect(place.path())).collect::<io::Result<Vec<_>>>()?;
        Ok((listener, streams))
    });
    fs::remove_dir_all(&own)?;
    connected
}

/// Connects to `socket`.
///
/// # Errors
/// Nobody listens there, or the user may not connect.
pub fn connect(socket: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(short(socket)?.path())
}

/// A path to the socket that is short enough for its address.
struct Short {
    path: PathBuf,
    /// Kept open, since the path goes through it.
    _folder: Option<File>,
}

impl Short {
    fn path(&self) -> &Path {
        &self.path
    }
}

fn short(socket: &Path) -> io::Result<Short> {
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not the path of a socket"));
    };
    if socket.as_os_str().len() <= LONGEST_PATH {
        return Ok(Short { path: socket.to_owned(), _folder: None });
    }
    let folder = File::open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    Ok(Short { path, _folder: Some(folder) })
}
