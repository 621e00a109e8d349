//! Files of an instance.

use std::io::Read;
use std::time::Duration;

use super::api::{Call, Lxd, instance_path, unless_missing};
use super::transport::{Body, Keep, Response};
use super::types::{Error, ErrorKind};
use super::wire::envelope;
use crate::http1::query_value;
use crate::text::Line;

/// The longest listing of a directory, in bytes: a job may have filled it.
const LISTING: usize = 1024 * 1024;

/// The headers for a new file. Incus renamed LXD's, so both forms are sent.
fn attributes(kind: &str, mode: u32) -> Vec<(&'static str, String)> {
    let mode = format!("{mode:04o}");
    let mut headers = Vec::with_capacity(8);
    headers.extend([("X-LXD-type", kind.to_owned()), ("X-Incus-type", kind.to_owned())]);
    headers.extend([("X-LXD-mode", mode.clone()), ("X-Incus-mode", mode)]);
    for name in ["X-LXD-uid", "X-Incus-uid", "X-LXD-gid", "X-Incus-gid"] {
        headers.push((name, "0".to_owned()));
    }
    headers
}

fn file_path(project: &str, name: &str, path: &str) -> String {
    format!("{}&path={}", instance_path(project, name, "/files"), query_value(path))
}

/// `file`, `directory` or `symlink`.
fn kind_of(response: &Response) -> Option<&str> {
    response.headers.get("x-lxd-type").or_else(|| response.headers.get("x-incus-type"))
}

impl Lxd {
    /// Makes a directory, owned by root, if it does not exist; its parent must exist. Works in a stopped instance, too.
    pub fn make_directory(&self, project: &str, name: &str, path: &str, mode: u32) -> Result<(), Error> {
        let tried = format!("make directory {path} in instance {name}");
        let target = file_path(project, name, path);
        let headers = attributes("directory", mode);
        self.call(Call { headers, ..Call::new(&tried, "POST", target) }).map(drop)
    }

    /// Streams `length` bytes of `content` into a file, owned by root. An existing file is overwritten and keeps its mode. Its
    /// directory must exist. Works in a stopped instance, too.
    #[allow(clippy::too_many_arguments, reason = "where, what and how long are each needed")]
    pub fn push_file(
        &self,
        project: &str,
        name: &str,
        path: &str,
        mode: u32,
        content: &mut dyn Read,
        length: u64,
        timeout: Duration,
    ) -> Result<(), Error> {
        let tried = format!("push {path} into instance {name}");
        let target = file_path(project, name, path);
        let (headers, body) = (attributes("file", mode), Body::Stream { content, length });
        self.call(Call { headers, body, timeout, ..Call::new(&tried, "POST", target) }).map(drop)
    }

    /// The names in a directory of the instance, running or stopped; `None` if there is no such directory.
    pub fn list_directory(
        &self,
        project: &str,
        name: &str,
        path: &str,
        timeout: Duration,
    ) -> Result<Option<Vec<String>>, Error> {
        let tried = format!("list {path} in instance {name}");
        let target = file_path(project, name, path);
        let call = Call { keep: Keep::UpTo(LISTING), timeout, ..Call::new(&tried, "GET", target) };
        let Some(response) = unless_missing(self.call(call))? else { return Ok(None) };
        match kind_of(&response) {
            // An empty one may come as null.
            Some("directory") => {
                let names: Option<Vec<Line>> = envelope(&response.body).ok().and_then(|envelope| envelope.metadata);
                Ok(Some(names.unwrap_or_default().into_iter().map(String::from).collect()))
            }
            _ => Ok(None),
        }
    }

    /// Prepares LXD to serve the instance's files: the first call starts a process in the instance's namespaces, which takes some
    /// fifty milliseconds and lives for 15 seconds. Works in a frozen container, too. (An open connection would keep the process,
    /// but LXD cannot stop an instance that has one.)
    pub fn open_files(&self, project: &str, name: &str, timeout: Duration) -> Result<(), Error> {
        self.pull_file_tail(project, name, "/run/lxdrunner/ready", 1, timeout).map(drop)
    }

    /// At most `limit` bytes from the end of LXD's log of an instance, `lxc.log` or `qemu.log`. Without one, LXD refuses or answers
    /// with an empty one.
    pub fn log_tail(&self, project: &str, name: &str, log: &str, limit: usize) -> Result<String, Error> {
        let tried = format!("read LXD's {log} of instance {name}");
        let target = instance_path(project, name, &format!("/logs/{log}"));
        let log = self.call(Call { keep: Keep::Tail(limit), ..Call::new(&tried, "GET", target) })?;
        Ok(String::from_utf8_lossy(&log.body).into_owned())
    }

    /// At most `limit` bytes from the end of a file in the instance; `None` if there is none.
    pub fn pull_file_tail(
        &self,
        project: &str,
        name: &str,
        path: &str,
        limit: usize,
        timeout: Duration,
    ) -> Result<Option<String>, Error> {
        let tried = format!("read {path} in instance {name}");
        let target = file_path(project, name, path);
        let call = Call { timeout, ..Call::tail(&tried, target, limit) };
        let Some(response) = unless_missing(self.call(call))? else { return Ok(None) };
        match kind_of(&response) {
            None | Some("file") => Ok(Some(String::from_utf8_lossy(&response.body).into_owned())),
            Some(other) => Err(Error::new(tried, ErrorKind::Malformed, format!("it is a {other}, not a file"))),
        }
    }
}
