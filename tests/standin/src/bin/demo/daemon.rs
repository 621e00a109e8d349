//! The daemon, started as a user starts it, and what its log says.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Trouble;
use super::args::Options;

/// Lines of the log that are kept for the case that something goes wrong.
const KEPT: usize = 60;

/// Something that the daemon's log said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is up, and listens here.
    Listening(String),
    /// The runner package is in its cache.
    PackageReady,
    /// A template is ready.
    TemplateReady,
    /// A standby is.
    StandbyReady,
    /// A step of a job's life.
    Line { at: Instant, text: String },
}

/// The child process.
pub struct Daemon {
    /// Shared with whoever must end it.
    pub child: Arc<Mutex<Child>>,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    said: Mutex<Vec<Said>>,
    changed: Condvar,
    tail: Mutex<VecDeque<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    /// Writes the config into `directory` and starts the daemon with it.
    pub fn start(config: &str, directory: &Path, options: &Options) -> io::Result<Daemon> {
        use std::os::unix::process::CommandExt;
        let path = directory.join("config.yml");
        super::remains::write_private(&path, config)?;
        let beside = std::env::current_exe()?.with_file_name("lxdrunner");
        let daemon = options.daemon.as_ref().unwrap_or(&beside);
        let mut child = Command::new(daemon)
            .args(["serve".as_ref(), "-c".as_ref(), path.as_os_str()])
            .env("LXDRUNNER_LOG", if options.verbose { "debug" } else { "info" })
            .env("LXDRUNNER_END_WITH_STDIN", "1")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C is for us: we end it when everything is cleared away.
            .process_group(0)
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", daemon.display())))?;
        let heard = Arc::new(Heard::default());
        let log = child.stderr.take().ok_or_else(|| io::Error::other("no standard error"))?;
        let listener = Arc::clone(&heard);
        let verbose = options.verbose;
        std::thread::spawn(move || listen(log, &listener, verbose));
        Ok(Daemon { child: Arc::new(Mutex::new(child)), heard })
    }

    /// Waits until the log says something that `wanted` knows, `count` times, and forgets it all; `None` as in
    /// [`Daemon::wait`].
    pub fn wait_count(&self, timeout: Duration, wanted: impl Fn(&Said) -> bool, count: usize) -> Option<()> {
        for _ in 0..count {
            self.wait(timeout, |said| wanted(said).then_some(()))?;
            let mut said = locked(&self.heard.said);
            if let Some(at) = said.iter().position(&wanted) {
                said.remove(at);
            }
        }
        Some(())
    }

    /// Waits until the log says something that `wanted` finds; `None` after `timeout` or when the daemon has ended.
    pub fn wait<T>(&self, timeout: Duration, wanted: impl Fn(&Said) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut said = locked(&self.heard.said);
        loop {
            if let Some(found) = said.iter().find_map(&wanted) {
                return Some(found);
            }
            if !matches!(locked(&self.child).try_wait(), Ok(None)) {
                return None;
            }
            let left = deadline.checked_duration_since(Instant::now())?.min(Duration::from_millis(200));
            said = self.heard.changed.wait_timeout(said, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        locked(&self.child).id()
    }

    /// The steps that were told since the last call.
    pub fn steps(&self) -> Vec<(Instant, String)> {
        let mut said = locked(&self.heard.said);
        let (steps, other) = std::mem::take(&mut *said).into_iter().partition(|said| matches!(said, Said::Line { .. }));
        *said = other;
        let step = |said| match said {
            Said::Line { at, text } => Some((at, text)),
            _ => None,
        };
        Vec::into_iter(steps).filter_map(step).collect()
    }

    /// That something went wrong, with the end of the daemon's log.
    pub fn trouble(&self, what: &str) -> Trouble {
        let ended = match locked(&self.child).try_wait() {
            Ok(Some(status)) => format!(" (it ended: {status})"),
            _ => String::new(),
        };
        let tail: Vec<String> = locked(&self.heard.tail).iter().cloned().collect();
        Trouble::Failed(format!("{what}{ended}; the end of the daemon's log:\n{}", tail.join("\n")))
    }
}

fn listen(log: impl io::Read, heard: &Heard, verbose: bool) {
    for line in BufReader::new(log).lines() {
        let Ok(line) = line else { return };
        let at = Instant::now();
        if verbose {
            complain!("  | {line}");
        }
        {
            let mut tail = locked(&heard.tail);
            if tail.len() >= KEPT {
                tail.pop_front();
            }
            tail.push_back(line.clone());
        }
        if let Some(said) = understand(&line, at) {
            locked(&heard.said).push(said);
            heard.changed.notify_all();
        }
    }
    heard.changed.notify_all();
}

/// The steps that the demo tells of, out of a line of the log.
fn understand(line: &str, at: Instant) -> Option<Said> {
    let value = |key: &str| {
        let (_, rest) = line.split_once(&format!(" {key}="))?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    if line.contains("msg=\"lxdrunner is up\"") {
        return value("listen").map(Said::Listening);
    }
    if line.contains(" package=") && line.contains("msg=ready") {
        return Some(Said::PackageReady);
    }
    if line.contains("msg=\"template ready\"") {
        return Some(Said::TemplateReady);
    }
    if line.contains("msg=\"standby ready\"") {
        return Some(Said::StandbyReady);
    }
    let instance = value("instance")?;
    let what = [
        ("from=template msg=\"instance made\"", "made, a copy of the template"),
        ("from=standby msg=\"instance made\"", "claimed, which waited frozen"),
        ("msg=\"instance made\"", "made from the image"),
        ("msg=\"runner started\"", "set up, its runner is started"),
        ("msg=\"launch failed", "could not be brought up (see the log with -v)"),
        ("msg=removed", "removed by the daemon"),
    ];
    let (_, text) = what.iter().find(|(mark, _)| line.contains(mark))?;
    Some(Said::Line { at, text: format!("instance {instance} {text}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_understood() {
        let at = Instant::now();
        let check = |line: &str, expected: Option<Said>| assert_eq!(understand(line, at), expected, "{line}");
        check(
            "2026-11-23T10:00:00Z INFO [x] listen=127.0.0.1:4711 socket=/s msg=\"lxdrunner is up\"",
            Some(Said::Listening("127.0.0.1:4711".to_owned())),
        );
        check("INFO [x] package=linux-x64 version=2 msg=ready", Some(Said::PackageReady));
        check("INFO class=\"demo\" template=d-template-demo-1 msg=\"template ready\"", Some(Said::TemplateReady));
        check("INFO class=\"demo\" instance=d-standby-1 msg=\"standby ready\"", Some(Said::StandbyReady));
        let text = "instance d-1-1 made from the image".to_owned();
        check("INFO job=1 instance=d-1-1 from=image msg=\"instance made\"", Some(Said::Line { at, text }));
        check("INFO job=1 instance=d-1-1 msg=\"something else\"", None);
        check("noise", None);
    }
}
