//! Failed steps, in words.

use std::time::Duration;

use super::limits::Limit;
use crate::lxd::{self, ErrorKind};
use crate::model::Product;
use crate::runner::masks::masked;

/// Lines kept of a failed script's output.
const TAIL_LINES: usize = 40;

/// A step that failed.
#[derive(Debug)]
pub enum Failure {
    /// LXD refused or did not answer.
    Lxd(lxd::Error),
    /// LXD did not start it; LXD's log of the start.
    NotStarted { error: lxd::Error, log: String },
    /// A script in the instance ended with this code; its output.
    Script { what: &'static str, code: i64, output: String },
    /// A script in the instance did not end in time; the end of what it printed.
    Hung { what: &'static str, limit: Limit, output: String },
    /// A script in the instance found no network, or no route to GitHub; its message.
    NoNetwork { told: String, output: String },
    /// A file of this host could not be read.
    File { path: String, source: std::io::Error },
    /// The directory for the credentials does not exist (any more): they were not written.
    NotArmed(lxd::Error),
    /// A virtual machine's agent did not answer.
    NoAgent { product: Product, after: Duration },
    /// The limit for all steps was reached.
    TooLate { step: &'static str, after: Duration },
}

impl Failure {
    /// The output of the failed script, or LXD's log of the failed start.
    pub fn output(&self) -> &str {
        match self {
            Failure::Script { output, .. } | Failure::Hung { output, .. } | Failure::NoNetwork { output, .. } => output,
            Failure::NotStarted { log, .. } => log,
            _ => "",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Lxd(error) if error.kind == ErrorKind::Stalled => write!(
                f,
                "{error} (provision_timeout); the server's log may tell why. If the host or its line is slow, raise \
                 provision_timeout"
            ),
            Failure::Lxd(error) => error.fmt(f),
            Failure::NotStarted { error, log } => write!(f, "{error}; LXD's log of the start:\n{}", tail(log)),
            Failure::Script { what, code, output } => {
                write!(f, "{what} ended with code {code}; the end of its output:\n{}", tail(output))
            }
            Failure::Hung { what, limit, output } => {
                match limit {
                    Limit::Step(after) => write!(
                        f,
                        "{what} printed nothing for {} s (provision_timeout). If it works without printing, let it print \
                         its progress, or raise provision_timeout",
                        after.as_secs()
                    ),
                    Limit::Whole(after) => write!(f, "{what} did not end: {}", past(*after)),
                }?;
                match output.trim() {
                    "" => f.write_str(". It has printed nothing at all"),
                    output => write!(f, ". The end of its output:\n{}", tail(output)),
                }
            }
            Failure::NoNetwork { told, .. } => f.write_str(told),
            Failure::File { path, source } => write!(f, "read {path}: {source}"),
            Failure::NotArmed(error) => write!(
                f,
                "{error}; start-runner.sh had made the place for the credentials, and it is gone: did the instance stop \
                 or boot again?"
            ),
            Failure::NoAgent { product, after } => write!(
                f,
                "the virtual machine's agent did not answer within {} s (provision_timeout). While it is there, its console \
                 ({} console NAME) shows whether it boots: an image that is not signed needs security.secureboot: \"false\" \
                 in the class's config. Where it boots, the image lacks the unit {agent}, or this host the program {agent} \
                 (Debian has a package {agent} beside the server). Where it is slow, raise provision_timeout",
                after.as_secs(),
                product.client(),
                agent = product.agent(),
            ),
            Failure::TooLate { step, after } => write!(f, "{step}: {}", past(*after)),
        }
    }
}

/// The limit for everything, in words.
fn past(limit: Duration) -> String {
    let seconds = limit.as_secs();
    format!("all steps together took {seconds} s, the most that a launch or bake may take whatever progress it makes")
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::Lxd(error) | Failure::NotArmed(error) | Failure::NotStarted { error, .. } => Some(error),
            Failure::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<lxd::Error> for Failure {
    fn from(error: lxd::Error) -> Failure {
        Failure::Lxd(error)
    }
}

/// The last lines of a script's output, credentials masked: it goes into the log.
fn tail(text: &str) -> String {
    let text = masked(text);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)).copied().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_an_output_is_kept() {
        let long: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let kept = tail(&long);
        assert_eq!(kept.lines().count(), TAIL_LINES);
        assert!(kept.starts_with("line 60") && kept.ends_with("line 99"));
        assert_eq!(tail(""), "");
        assert_eq!(tail("PAT=ghp_0123456789abcdefghij\n"), "PAT=***");
    }

    #[test]
    fn a_script_that_hangs_is_reported_with_the_end_of_its_output() {
        let hung = |output: &str| {
            let limit = Limit::Step(Duration::from_secs(3));
            Failure::Hung { what: "setup-runner.sh", limit, output: output.to_owned() }.to_string()
        };
        let told = "setup-runner.sh printed nothing for 3 s (provision_timeout). If it works without printing, let it print \
                    its progress, or raise provision_timeout. The end of its output:\none\ntwo";
        assert_eq!(hung("one\ntwo\n"), told);
        let mute = hung("\n");
        assert!(mute.ends_with("It has printed nothing at all") && mute.lines().count() == 1, "{mute}");
    }
}
