//! The control socket of a running daemon: a unix socket below its cache that only its user and root can open. Each
//! connection carries one question and one answer, a line of JSON each.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::model::{Job, JobId, JobStatus, RunnerId, Timestamp};
use crate::private_socket::{bind, connect, own_user};
use crate::text::one_line;
use crate::threads;

/// The longest question or answer, in bytes: the metrics of a thousand classes.
const LONGEST: u64 = 2 * 1024 * 1024;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a running daemon is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Explain this job; `told` is GitHub's current answer about it.
    Job { job: JobId, told: Option<Job> },
    /// The status, for people.
    Status,
    /// The metrics.
    Metrics,
}

/// The daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The job's repository, where the daemon knows the job.
    pub repo: Option<String>,
    /// One line first, then the details.
    pub text: String,
}

/// Why the daemon could not be asked.
#[derive(Debug)]
pub struct Error {
    socket: PathBuf,
    source: io::Error,
    /// True where a daemon could not listen, false where it could not be asked.
    listening: bool,
}

impl Error {
    /// True where no daemon listens.
    pub fn is_absence(&self) -> bool {
        matches!(self.source.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.socket.display();
        match self.source.kind() {
            ErrorKind::AddrInUse => f.write_str(
                "another lxdrunner with this prefix and cache_home runs here: stop one of them, or give each a prefix of its own",
            ),
            ErrorKind::PermissionDenied if self.listening => {
                let cache = self.socket.ancestors().nth(2).unwrap_or(&self.socket).display();
                write!(f, "{shown} cannot be made here ({}): give {cache} to the daemon's user, with all that is in it", self.source)
            }
            _ if self.listening => write!(f, "cannot listen on {shown}: {}", self.source),
            _ if self.is_absence() => write!(f, "no daemon answers at {shown}"),
            ErrorKind::PermissionDenied => {
                write!(f, "the daemon's socket {shown} is not yours to open: run this as root, or as the daemon's user")
            }
            _ => write!(f, "the daemon cannot be asked at {shown}: {}", self.source),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The socket of the daemon with this config.
pub fn socket(config: &Config) -> PathBuf {
    config.cache_home.join("control").join(format!("{}.sock", config.prefix))
}

/// Starts a thread that answers questions at `socket`.
///
/// # Errors
/// The directory cannot be made private, or another daemon listens there.
pub fn listen(socket: PathBuf, answer: impl Fn(Question) -> Option<Answer> + Send + 'static) -> Result<(), Error> {
    let listener = bind(&socket).map_err(|source| Error { socket, source, listening: true })?;
    threads::spawn("control", move || {
        for stream in listener.incoming() {
            let served = stream.and_then(|stream| serve(&stream, &answer));
            if let Err(error) = served {
                log::debug!("msg=\"a question on the control socket came to nothing\" error=\"{error}\"");
            }
        }
    });
    Ok(())
}

/// Asks the daemon behind `socket`.
///
/// # Errors
/// No daemon listens there, or it does not answer.
pub fn ask(socket: &Path, question: &Question) -> Result<Answer, Error> {
    let asked = || {
        let owners = [fs::metadata(socket)?.uid(), fs::metadata(socket.parent().unwrap_or(socket))?.uid()];
        if owners.iter().any(|owner| *owner != 0 && Some(*owner) != own_user() && own_user() != Some(0)) {
            return Err(io::Error::new(ErrorKind::PermissionDenied, "it is another user's"));
        }
        let mut stream = connect(socket)?;
        set_patience(&stream)?;
        writeln!(stream, "{}", serde_json::to_string(&Wire::from(question))?)?;
        Ok(serde_json::from_str(&read_line(&stream)?)?)
    };
    asked().map_err(|source| Error { socket: socket.to_owned(), source, listening: false })
}

fn serve(mut stream: &UnixStream, answer: &impl Fn(Question) -> Option<Answer>) -> io::Result<()> {
    set_patience(stream)?;
    let wire: Wire = serde_json::from_str(&read_line(stream)?)?;
    let question = wire.into_question().ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "not a question"))?;
    match answer(question) {
        Some(answer) => writeln!(stream, "{}", serde_json::to_string(&answer)?),
        None => Ok(()),
    }
}

fn set_patience(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn read_line(stream: &UnixStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line)?;
    match line.ends_with('\n') {
        true => Ok(line),
        false => Err(io::Error::new(ErrorKind::UnexpectedEof, "it ended in the middle of a line")),
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Wire {
    Explain { explain: u64, told: Option<JobWire> },
    Show { show: Page },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Page {
    Status,
    Metrics,
}

#[derive(Serialize, Deserialize)]
struct JobWire {
    run: u64,
    repo: String,
    public: Option<bool>,
    labels: Vec<String>,
    status: String,
    runner: Option<String>,
    #[serde(default)]
    runner_id: Option<u64>,
    created_at: Option<u64>,
    name: String,
}

const STATUSES: [(JobStatus, &str); 4] = [
    (JobStatus::Queued, "queued"),
    (JobStatus::Waiting, "waiting"),
    (JobStatus::InProgress, "in_progress"),
    (JobStatus::Completed, "completed"),
];

impl From<&Question> for Wire {
    fn from(question: &Question) -> Wire {
        match question {
            Question::Job { job, told } => Wire::Explain { explain: job.0, told: told.as_ref().map(JobWire::from) },
            Question::Status => Wire::Show { show: Page::Status },
            Question::Metrics => Wire::Show { show: Page::Metrics },
        }
    }
}

impl From<&Job> for JobWire {
    fn from(job: &Job) -> JobWire {
        JobWire {
            run: job.run_id,
            repo: job.repo.to_string(),
            public: job.public,
            labels: job.labels.iter().map(str::to_owned).collect(),
            status: STATUSES.iter().find(|(s, _)| *s == job.status).map_or("", |(_, word)| word).to_owned(),
            runner: job.runner_name.clone(),
            runner_id: job.runner_id.map(|id| id.0),
            created_at: job.created_at.map(|at| at.0),
            name: job.name.clone(),
        }
    }
}

impl JobWire {
    fn into_job(self, id: JobId) -> Option<Job> {
        Some(Job {
            id,
            run_id: self.run,
            repo: self.repo.parse().ok()?,
            public: self.public,
            labels: self.labels.iter().collect(),
            status: STATUSES.iter().find(|(_, word)| *word == self.status)?.0,
            runner_name: self.runner.map(one_line),
            runner_id: self.runner_id.map(RunnerId),
            created_at: self.created_at.map(Timestamp),
            name: one_line(self.name),
        })
    }
}

impl Wire {
    fn into_question(self) -> Option<Question> {
        match self {
            Wire::Show { show: Page::Status } => Some(Question::Status),
            Wire::Show { show: Page::Metrics } => Some(Question::Metrics),
            Wire::Explain { explain, told: None } => Some(Question::Job { job: JobId(explain), told: None }),
            Wire::Explain { explain, told: Some(told) } => {
                let job = JobId(explain);
                Some(Question::Job { job, told: Some(told.into_job(job)?) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Folder(PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A folder of this test's own with a name as long as wanted.
    fn folder(name: &str, length: usize) -> Folder {
        let name = format!("lxdrunner-control-{}-{name}{}", std::process::id(), "x".repeat(length));
        Folder(std::env::temp_dir().join(name))
    }

    fn question() -> Question {
        let job = Job {
            id: JobId(7),
            run_id: 3,
            repo: "acme/Tool.js".parse().unwrap(),
            public: Some(true),
            labels: ["linux", "gpu"].iter().collect(),
            status: JobStatus::InProgress,
            runner_name: Some("r".to_owned()),
            runner_id: Some(RunnerId(3)),
            created_at: Some(Timestamp(5)),
            name: "build “all”".to_owned(),
        };
        Question::Job { job: job.id, told: Some(job) }
    }

    #[test]
    fn a_question_is_answered_and_the_socket_is_private_however_long_its_path() {
        for length in [0, 150] {
            let home = folder("private", length);
            let socket = home.0.join("control").join("lxdrunner.sock");
            assert!(ask(&socket, &question()).unwrap_err().is_absence());
            let echo = |asked: Question| {
                let text = format!("{}\nand more", asked == question());
                let repo = match asked {
                    Question::Job { told, .. } => told.map(|job| job.repo.to_string()),
                    other => Some(format!("{other:?}")),
                };
                Some(Answer { repo, text })
            };
            listen(socket.clone(), echo).unwrap();
            let answer = Answer { repo: Some("acme/Tool.js".to_owned()), text: "true\nand more".to_owned() };
            assert_eq!(ask(&socket, &question()).unwrap(), answer);
            for (page, told) in [(Question::Status, "Status"), (Question::Metrics, "Metrics")] {
                assert_eq!(ask(&socket, &page).unwrap().repo.as_deref(), Some(told));
            }
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(socket.parent().unwrap()), mode(&socket)), (0o700, 0o600));
            // A connection with a malformed question is closed, and the next one is served.
            let mut bad = connect(&socket).unwrap();
            bad.write_all(b"{}\n").unwrap();
            assert_eq!(bad.read(&mut [0; 8]).unwrap(), 0);
            assert_eq!(ask(&socket, &question()).unwrap(), answer);
            let second = listen(socket.clone(), |_| None).unwrap_err().to_string();
            assert!(second.contains("another lxdrunner"), "{second}");
        }
    }

    #[test]
    fn what_a_daemon_left_behind_is_no_obstacle() {
        let home = folder("stale", 0);
        let socket = home.0.join("control").join("lxdrunner.sock");
        drop(bind(&socket).unwrap());
        assert!(ask(&socket, &question()).unwrap_err().is_absence());
        listen(socket.clone(), |_| Some(Answer { repo: None, text: "x".to_owned() })).unwrap();
        assert_eq!(ask(&socket, &question()).unwrap().text, "x");
    }
}
