//! The download of one package.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::error::Error;
use super::names::Name;
use super::{Package, Packages, Progress};
use crate::github::{Body, Download, ErrorKind, GitHub, Resume};
use crate::runner::cache_files;

/// The suffix of a package that is being downloaded.
pub(super) const PART: &str = ".part";
/// The note about a part: the address and the ETag of its body.
const ORIGIN: &str = ".part.origin";
/// In bytes; a real package has 200 MB.
const MAX_PACKAGE: u64 = 2 << 30;
/// Attempts within one call; each resumes the last.
const ATTEMPTS: usize = 5;
/// Between two log lines about a download.
const LOG_INTERVAL: Duration = Duration::from_secs(5);
/// Between two calls of `progress`, at least.
const TELL_INTERVAL: Duration = Duration::from_millis(200);
/// Between two looks at another process's download.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
const CHUNK: usize = 64 << 10;
const MEGABYTE: f64 = 1_000_000.0;

/// Downloads, verifies and names a package, unless another process did so meanwhile.
pub(super) fn fetch(
    packages: &Packages,
    github: &GitHub,
    download: &Download,
    name: &Name,
    progress: &dyn Fn(Progress),
) -> Result<Package, Error> {
    let dir = &packages.dir;
    let mut part = lock(dir, name)?;
    let right = |package: &Package| download.sha256.as_ref().is_none_or(|sum| *sum == package.sha256);
    if let Some(package) = packages.look(name).filter(right) {
        remove_unfinished_held(dir, name);
        return Ok(package);
    }
    let mut resumed_a_wrong_one = false;
    loop {
        let (found, resumed) = fill(dir, github, download, name, &mut part, progress)?;
        if !is_gzip(dir, name, &mut part)? {
            truncate(dir, name, &part)?;
            remove_unfinished_held(dir, name);
            return Err(Error::NotAPackage { file: name.file() });
        }
        match &download.sha256 {
            Some(expected) if *expected != found => {
                truncate(dir, name, &part)?;
                // The part of an earlier process may be the cause: once more, from the start.
                if resumed && !std::mem::replace(&mut resumed_a_wrong_one, true) {
                    log::warn!("package_damaged file={} retry=from-the-start", name.file());
                    continue;
                }
                remove_unfinished_held(dir, name);
                return Err(Error::Checksum { file: name.file(), expected: expected.clone(), found });
            }
            _ => return keep(packages, name, &part, &found, download.sha256.is_some()),
        }
    }
}

/// Checks the first two bytes of gzip (RFC 1952): the only check without a checksum.
fn is_gzip(dir: &Path, name: &Name, part: &mut File) -> Result<bool, Error> {
    let mut magic = [0; 2];
    let read = part.seek(SeekFrom::Start(0)).and_then(|_| part.read_exact(&mut magic));
    match read {
        Ok(()) => Ok(magic == [0x1f, 0x8b]),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::io("read", &dir.join(name.file() + PART), error)),
    }
}

/// Syncs the verified part and gives it its final name.
fn keep(packages: &Packages, name: &Name, part: &File, sum: &str, verified: bool) -> Result<Package, Error> {
    let dir = &packages.dir;
    let (from, to) = (dir.join(name.file() + PART), dir.join(name.file()));
    let failed = |tried, path: &Path| {
        let path = path.to_owned();
        move |error| Error::io(tried, &path, error)
    };
    part.sync_all().map_err(failed("write", &from))?;
    if !is_named(part, &from) {
        return Err(failed("name", &from)(io::ErrorKind::NotFound.into()));
    }
    let note = dir.join(name.file() + ".sha256");
    let unfinished = dir.join(name.file() + ".sha256.part");
    let written = cache_files::create(&unfinished).and_then(|mut file| {
        writeln!(file, "{sum}  {}", name.file())?;
        file.sync_all()
    });
    written.map_err(failed("write", &unfinished))?;
    fs::rename(&unfinished, &note).map_err(failed("name", &note))?;
    fs::rename(&from, &to).map_err(failed("name", &to))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("write", dir))?;
    // Useless and harmless without the part.
    drop(fs::remove_file(dir.join(name.file() + ORIGIN)));
    log::info!("package_ready file={} sha256={sum} verified={verified}", name.file());
    packages.look(name).ok_or_else(|| Error::io("find", &to, io::ErrorKind::NotFound.into()))
}

/// Completes the part. Returns its SHA-256, and whether it has bytes of an earlier process.
fn fill(
    dir: &Path,
    github: &GitHub,
    download: &Download,
    name: &Name,
    part: &mut File,
    progress: &dyn Fn(Progress),
) -> Result<(String, bool), Error> {
    let mut resumed = false;
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        let resume = what_is_here(dir, name, part, download);
        let before = resume.as_ref().map_or(0, |resume| resume.from);
        let body = match github.open_download(download, resume.as_ref()) {
            Ok(body) => body,
            // Retry only a server that has answered before.
            Err(error) if attempt > 0 && passing(error.kind) => {
                last = Some(Error::GitHub(error));
                break;
            }
            Err(error) => return Err(error.into()),
        };
        resumed |= attempt == 0 && body.from > 0;
        let (done, total, sum) = pour(dir, name, download, part, body, progress)?;
        if let Some(sum) = sum {
            return Ok((sum, resumed));
        }
        log::warn!("package_cut file={} done={done} attempt={}", name.file(), attempt + 1);
        last = Some(Error::Cut { file: name.file(), done, total });
        if done <= before {
            break;
        }
    }
    Err(last.unwrap_or_else(|| Error::Cut { file: name.file(), done: 0, total: None }))
}

fn passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unreachable | ErrorKind::Timeout | ErrorKind::Server(_))
}

/// Appends a body to the part. Returns the bytes in it now, the whole length, and the checksum if it is complete.
fn pour(
    dir: &Path,
    name: &Name,
    download: &Download,
    part: &mut File,
    mut body: Body,
    progress: &dyn Fn(Progress),
) -> Result<(u64, Option<u64>, Option<String>), Error> {
    let path = dir.join(name.file() + PART);
    let failed = |error| Error::io("write", &path, error);
    let mut hash = Sha256::new();
    if body.from == 0 {
        truncate(dir, name, part)?;
        if let Some(etag) = &body.etag {
            let origin = dir.join(name.file() + ORIGIN);
            cache_files::create(&origin)
                .and_then(|mut file| writeln!(file, "{etag}\n{}", download.url))
                .map_err(|error| Error::io("write", &origin, error))?;
        }
    }
    part.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut chunk = vec![0; CHUNK];
    let mut hashed = 0;
    while hashed < body.from {
        let count = part.read(&mut chunk).map_err(failed)?;
        if count == 0 {
            return Err(failed(io::ErrorKind::UnexpectedEof.into()));
        }
        hash.update(chunk.get(..count).unwrap_or_default());
        hashed += count as u64;
    }
    let mut teller = Teller::new(&name.file(), body.from, body.total, progress);
    let mut done = body.from;
    loop {
        let count = match body.reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                log::debug!("package_read_failed file={} error={error}", name.file());
                return Ok((done, body.total, None));
            }
        };
        done += count as u64;
        if done > MAX_PACKAGE {
            truncate(dir, name, part)?;
            return Err(Error::TooLong { file: name.file(), most: MAX_PACKAGE });
        }
        let bytes = chunk.get(..count).unwrap_or_default();
        part.write_all(bytes).map_err(failed)?;
        hash.update(bytes);
        teller.tell(done, false);
    }
    if body.total.is_some_and(|total| done < total) || done == 0 {
        return Ok((done, body.total, None));
    }
    teller.tell(done, true);
    let sum = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((done, body.total, Some(sum)))
}

/// The part of an earlier attempt, if it belongs to this download.
fn what_is_here(dir: &Path, name: &Name, part: &File, download: &Download) -> Option<Resume> {
    let from = part.metadata().ok()?.len();
    let origin = fs::read_to_string(dir.join(name.file() + ORIGIN)).ok()?;
    let (etag, url) = origin.trim_end().split_once('\n')?;
    (from > 0 && url == download.url).then(|| Resume { from, etag: etag.to_owned() })
}

fn truncate(dir: &Path, name: &Name, part: &File) -> Result<(), Error> {
    drop(fs::remove_file(dir.join(name.file() + ORIGIN)));
    part.set_len(0).map_err(|error| Error::io("empty", &dir.join(name.file() + PART), error))
}

/// The part, locked against other processes. Waits for the lock.
fn lock(dir: &Path, name: &Name) -> Result<File, Error> {
    let path = dir.join(name.file() + PART);
    let failed = |error| Error::io("write", &path, error);
    let mut told = false;
    loop {
        let Some(file) = open(&path).map_err(failed)? else { continue };
        match file.try_lock() {
            // The process that had the lock may have renamed or removed the file.
            Ok(()) if is_named(&file, &path) => return Ok(file),
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut told, true) {
                    log::info!("package_waiting file={} reason=\"another process downloads it\"", name.file());
                }
                std::thread::sleep(LOOK_INTERVAL);
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
}

/// Opens the part, or creates it; `None` if another process created it at the same time.
fn open(path: &Path) -> io::Result<Option<File>> {
    // A link could lead root to another file.
    if fs::symlink_metadata(path).is_ok_and(|about| !about.is_file()) {
        fs::remove_file(path)?;
    }
    let opened = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => cache_files::create_new(path),
        // It is root's, whose download was interrupted before the chown. The directory is the daemon's.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => cache_files::create(path),
        opened => opened,
    };
    match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        opened => opened.map(Some),
    }
}

/// Whether `path` is the name of this file.
fn is_named(file: &File, path: &Path) -> bool {
    let inode = |about: fs::Metadata| (about.dev(), about.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(own), Ok(there)) => inode(own) == inode(there),
        _ => false,
    }
}

/// Removes a part that no process writes.
pub(super) fn remove_unfinished(dir: &Path, name: &Name) {
    let path = dir.join(name.file() + PART);
    let held = match File::open(&path) {
        Ok(file) => file.try_lock().is_err(),
        Err(error) => error.kind() != io::ErrorKind::PermissionDenied,
    };
    if !held {
        remove_unfinished_held(dir, name);
    }
}

fn remove_unfinished_held(dir: &Path, name: &Name) {
    for end in [ORIGIN, PART] {
        // Absent is as good as removed.
        drop(fs::remove_file(dir.join(name.file() + end)));
    }
}

/// Reports the progress to the caller and the log, neither too often.
struct Teller<'a> {
    file: String,
    from: u64,
    total: Option<u64>,
    started: Instant,
    told: Instant,
    logged: Instant,
    progress: &'a dyn Fn(Progress),
}

impl<'a> Teller<'a> {
    fn new(file: &str, from: u64, total: Option<u64>, progress: &'a dyn Fn(Progress)) -> Teller<'a> {
        let now = Instant::now();
        log::info!(
            "package_download file={file} from_mb={:.1} of_mb={:.1}",
            from as f64 / MEGABYTE,
            total.unwrap_or(0) as f64 / MEGABYTE
        );
        Teller { file: file.to_owned(), from, total, started: now, told: now, logged: now, progress }
    }

    fn tell(&mut self, done: u64, last: bool) {
        let now = Instant::now();
        if !last && now.duration_since(self.told) < TELL_INTERVAL {
            return;
        }
        self.told = now;
        let seconds = now.duration_since(self.started).as_secs_f64().max(0.001);
        let bytes_per_second = done.saturating_sub(self.from) as f64 / seconds;
        (self.progress)(Progress { done, total: self.total, bytes_per_second });
        if last || now.duration_since(self.logged) >= LOG_INTERVAL {
            self.logged = now;
            let percent = self.total.filter(|total| *total > 0).map_or(0, |total| done.saturating_mul(100) / total);
            log::info!(
                "package_download file={} percent={percent} mb={:.1} mb_per_s={:.1}",
                self.file,
                done as f64 / MEGABYTE,
                bytes_per_second / MEGABYTE
            );
        }
    }
}
