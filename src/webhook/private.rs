//! The way from the gate to `tiny_http`, which nobody else finds.

use std::fs::{self, DirBuilder, Metadata};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SOCKET: &str = "within";
/// How old a directory is before it is taken for what a process left that was killed: it is needed for milliseconds.
const FORSAKEN: Duration = Duration::from_secs(60);

/// A unix socket in a directory that only we can enter, for as long as it takes to connect to it. Then it has no name
/// any more, and nobody else gets to `tiny_http`.
pub(super) struct Private {
    listener: UnixListener,
    directory: Directory,
}

/// Goes with all that is in it.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Private {
    pub(super) fn listen() -> io::Result<Private> {
        let named = std::env::var_os("RUNTIME_DIRECTORY").map(PathBuf::from);
        let mut failed = io::Error::from(ErrorKind::NotFound);
        for base in named.into_iter().chain([std::env::temp_dir(), "/dev/shm".into()]) {
            clear_away_leftovers(&base);
            match Private::listen_in(&base) {
                Ok(private) => return Ok(private),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn listen_in(base: &Path) -> io::Result<Private> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        for _ in 0..1000 {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("lxdrunner-{}-{n}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let directory = Directory(path);
                    return Ok(Private { listener: UnixListener::bind(directory.0.join(SOCKET))?, directory });
                }
                // Of a process that was killed just here, or of somebody who wants to stand in our way.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Where `tiny_http` accepts.
    pub(super) fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// A connection to `tiny_http` that has a thread there: it has answered once. (Its pool hands out waiting threads by
    /// their number, which may be old when two connections come at once; the second would never be served.)
    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        let mut link = UnixStream::connect(self.directory.0.join(SOCKET))?;
        link.set_read_timeout(Some(Duration::from_secs(30)))?;
        link.write_all(b"HEAD / HTTP/1.1\r\n\r\n")?;
        let mut answer = Vec::new();
        let mut piece = [0; 512];
        while !answer.ends_with(b"\r\n\r\n") {
            match link.read(&mut piece)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => answer.extend(piece.iter().take(count)),
            }
        }
        Ok(link)
    }
}

/// Removes directories that processes left which were killed before they were done with them: by name, ours, empty but for
/// the socket, and of nobody who lives. What cannot be removed stays.
fn clear_away_leftovers(base: &Path) {
    let (Ok(us), Ok(entries)) = (fs::metadata("/proc/self"), fs::read_dir(base)) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if pid_of(name).is_some_and(|pid| !Path::new("/proc").join(pid).exists())
            && fs::symlink_metadata(&path).is_ok_and(|found| is_forsaken(&found, us.uid()))
        {
            let _ = fs::remove_file(path.join(SOCKET));
            // Nothing is removed with it.
            let _ = fs::remove_dir(&path);
        }
    }
}

/// The process of a directory that is called as ours are.
fn pid_of(name: &str) -> Option<&str> {
    let (pid, n) = name.strip_prefix("lxdrunner-")?.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(pid) && is_number(n)).then_some(pid)
}

fn is_forsaken(found: &Metadata, us: u32) -> bool {
    // Processes of another pid namespace cannot be looked up.
    let old = found.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= FORSAKEN));
    found.is_dir() && found.uid() == us && old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_processes_left_goes_and_nothing_else() {
        let base = std::env::temp_dir().join(format!("lxdrunner-private-{}", std::process::id()));
        fs::create_dir(&base).unwrap();
        let (us, dead) = (std::process::id().to_string(), "4194305".to_owned());
        #[track_caller]
        fn check(base: &Path, name: &str, file: Option<&str>, age: u64, goes: bool) {
            let path = base.join(name);
            fs::create_dir(&path).unwrap();
            file.iter().for_each(|file| drop(UnixListener::bind(path.join(file)).unwrap()));
            let then = fs::metadata(&path).unwrap().modified().unwrap() - Duration::from_secs(age);
            fs::File::open(&path).unwrap().set_modified(then).unwrap();
            clear_away_leftovers(base);
            assert_eq!(!path.exists(), goes, "{name} with {file:?}, {age} s old");
        }
        check(&base, &format!("lxdrunner-{dead}-0"), None, 61, true);
        check(&base, &format!("lxdrunner-{dead}-1"), Some("within"), 61, true);
        check(&base, &format!("lxdrunner-{dead}-2"), Some("something else"), 61, false);
        check(&base, &format!("lxdrunner-{dead}-3"), None, 0, false);
        check(&base, &format!("lxdrunner-{us}-0"), None, 61, false);
        check(&base, &format!("lxdrunner-{dead}-x"), None, 61, false);
        check(&base, &format!("lxdrunner-{dead}"), None, 61, false);
        check(&base, "lxdrunner-..-0", None, 61, false);
        std::os::unix::fs::symlink("/tmp", base.join(format!("lxdrunner-{dead}-4"))).unwrap();
        clear_away_leftovers(&base);
        assert!(base.join(format!("lxdrunner-{dead}-4")).is_symlink());
        fs::remove_dir_all(&base).unwrap();
    }
}
