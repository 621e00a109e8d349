//! Commands in an instance, and their output.

use std::time::{Duration, Instant};

use serde_json::json;

use super::api::{Call, Lxd, instance_path};
use super::transport::Response;
use super::types::{Error, ErrorKind, Exec, ExecResult, Operation};
use super::wait::{Patience, Signs};
use super::wire::{OperationJson, succeeded};
use crate::http1::{path_segment, query_value};

/// Bytes kept of the end of each stream.
pub const MAX_OUTPUT: usize = 64 * 1024;

/// A command that has ended, with its output still in LXD.
#[derive(Debug)]
pub struct EndedExec {
    /// Its exit code, as in [`ExecResult`].
    pub code: i64,
    ended: OperationJson,
}

impl EndedExec {
    fn of(operation: &Operation, ended: OperationJson) -> Result<EndedExec, Error> {
        let tried = operation.what.as_str();
        let Some(code) = ended.metadata.code else {
            succeeded(tried, &ended)?;
            return Err(Error::new(tried, ErrorKind::Malformed, "the operation ended without the command's exit code"));
        };
        Ok(EndedExec { code, ended })
    }
}

impl Lxd {
    /// Runs a command and waits for its end, no longer than `timeout`. Any exit code is `Ok`; a command that does not exist ends
    /// with 127, as in a shell. After a timeout the command still runs: LXD can end it only with the instance.
    pub fn exec(&self, project: &str, name: &str, exec: &Exec, timeout: Duration) -> Result<ExecResult, Error> {
        let deadline = Instant::now() + timeout;
        let operation = self.start_exec(project, name, exec)?;
        let ended = self.end_within(&operation, deadline.saturating_duration_since(Instant::now()))?;
        Ok(self.exec_output(project, EndedExec::of(&operation, ended)?))
    }

    /// Waits for the end of a recorded command of [`Lxd::start_exec`], as long as it prints something; see [`Lxd::exec`].
    pub fn end_exec(
        &self,
        (project, name): (&str, &str),
        operation: &Operation,
        patience: &Patience<'_>,
    ) -> Result<EndedExec, Error> {
        let ended = self.end_of(operation, patience, Signs::Output { project, name })?;
        EndedExec::of(operation, ended)
    }

    /// The output so far of a running, recorded command; empty if the server does not tell.
    pub fn printed_so_far(&self, instance: (&str, &str), operation: &Operation) -> String {
        let recorded = |stream| self.recorded(instance, operation, stream, MAX_OUTPUT);
        let printed = ["stdout", "stderr"].into_iter().filter_map(recorded);
        printed.map(|response| String::from_utf8_lossy(&response.body).into_owned()).collect()
    }

    /// The last `most` bytes that a running command has printed to `stdout` or `stderr`.
    pub(super) fn recorded(
        &self,
        (project, name): (&str, &str),
        operation: &Operation,
        stream: &str,
        most: usize,
    ) -> Option<Response> {
        // LXD 5.0 has these files among its logs, later versions and Incus in a folder below.
        let read = |folder: &str| {
            let file = format!("/logs/{folder}exec_{}.{stream}", path_segment(&operation.id));
            self.call(Call::tail("look at a command's output", instance_path(project, name, &file), most))
        };
        read("").or_else(|_| read("exec-output/")).ok()
    }

    /// The output of an ended command. Takes up to four calls.
    pub fn exec_output(&self, project: &str, exec: EndedExec) -> ExecResult {
        let EndedExec { code, ended } = exec;
        let output = |stream: &str| match ended.metadata.output.get(stream) {
            Some(url) => self.take_output(project, url),
            None => String::new(),
        };
        let (stdout, mut stderr) = (output("1"), output("2"));
        if stderr.is_empty() {
            stderr = ended.err.into();
        }
        ExecResult { code, stdout, stderr }
    }

    /// Starts a command and does not wait for it.
    pub fn start_exec(&self, project: &str, name: &str, exec: &Exec) -> Result<Operation, Error> {
        let body = json!({
            "command": exec.command,
            "environment": exec.environment,
            "interactive": false,
            "wait-for-websocket": false,
            "record-output": exec.record,
        });
        let program = exec.command.first().map_or("", String::as_str);
        let tried = format!("run {program} in instance {name}");
        self.start_operation(&tried, "POST", instance_path(project, name, "/exec"), Some(&body))
    }

    /// The log of a stream, which is then removed. A log that cannot be read (its instance is gone) counts as empty, since the
    /// command has run.
    fn take_output(&self, project: &str, url: &str) -> String {
        // The path differs between versions; only some include the project.
        let joint = if url.contains('?') { '&' } else { '?' };
        let project =
            if url.contains("project=") { String::new() } else { format!("{joint}project={}", query_value(project)) };
        let target = format!("{url}{project}");
        let read = self.call(Call::tail("read a command's output", target.clone(), MAX_OUTPUT));
        match read {
            Ok(response) => {
                let removed = self.call(Call::new("remove a command's output", "DELETE", target));
                if let Err(error) = removed {
                    log::debug!("lxd output=left url={url} reason={error}");
                }
                String::from_utf8_lossy(&response.body).into_owned()
            }
            Err(error) => {
                log::debug!("lxd output=lost url={url} reason={error}");
                String::new()
            }
        }
    }
}
