//! The demo's arguments.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

pub const HELP: &str = "\
Runs an end-to-end demo of lxdrunner on this machine with a stand-in for GitHub: a webhook for a queued job, an instance,
a runner that takes the job, and nothing left behind.

Usage: demo [OPTION]…

  --jobs N        Queue N jobs at once (1 to 100, default 1)
  --rounds N      Play it N times and give the medians (1 to 100, default 1)
  --from WHAT     Start jobs from a template (the default), from the image, or from standby instances
  --socket PATH   LXD's unix socket; found by itself where it is not given
  --image ALIAS   The local image to start from; found by itself where it is not given
  --standin       Use the stand-in for LXD too, even where there is an LXD
  --idle SECONDS  Queue nothing; keep all of it up that long (1 to 3600), to measure the daemon at rest
  --daemon FILE   The lxdrunner to start (default: the one beside this program)
  -v, --verbose   Show the daemon's log, every call included
  -h, --help      Show this help";

/// What the demo was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many jobs are queued; at least one.
    pub jobs: u32,
    /// How often it is played; at least once.
    pub rounds: u32,
    /// LXD's socket; `None`: to be found.
    pub socket: Option<PathBuf>,
    /// The image that the containers are made from; `None`: to be found.
    pub image: Option<String>,
    /// Use the stand-in even where there is an LXD.
    pub standin: bool,
    /// Queue nothing, and keep everything up that long.
    pub idle: Option<Duration>,
    /// What the jobs' instances come from.
    pub from: From,
    /// The lxdrunner to start; `None`: the one beside this program.
    pub daemon: Option<PathBuf>,
    /// Show the daemon's log.
    pub verbose: bool,
}

/// What instances for jobs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Image,
    Template,
    Standby,
}

/// Reads the arguments; `None` where they ask for help. `Err` is for the user.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
    let mut options = Options {
        jobs: 1,
        rounds: 1,
        socket: None,
        image: None,
        standin: false,
        idle: None,
        from: From::Template,
        daemon: None,
        verbose: false,
    };
    let hint = |error: lexopt::Error| format!("{error} (see --help)");
    let mut parser = Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(hint)? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Short('v') | Arg::Long("verbose") => options.verbose = true,
            Arg::Long("standin") => options.standin = true,
            Arg::Long("jobs") => options.jobs = up_to("--jobs", &parser.value().map_err(hint)?, 100)?,
            Arg::Long("rounds") => options.rounds = up_to("--rounds", &parser.value().map_err(hint)?, 100)?,
            Arg::Long("idle") => {
                let seconds = up_to("--idle", &parser.value().map_err(hint)?, 3600)?;
                options.idle = Some(Duration::from_secs(seconds.into()));
            }
            Arg::Long("socket") => options.socket = Some(parser.value().map_err(hint)?.into()),
            Arg::Long("daemon") => options.daemon = Some(parser.value().map_err(hint)?.into()),
            Arg::Long("image") => options.image = Some(parser.value().map_err(hint)?.string().map_err(hint)?),
            Arg::Long("from") => {
                options.from = match parser.value().map_err(hint)?.to_string_lossy().as_ref() {
                    "image" => From::Image,
                    "template" => From::Template,
                    "standby" => From::Standby,
                    other => return Err(format!("--from {other}: write image, template or standby")),
                }
            }
            other => return Err(hint(other.unexpected())),
        }
    }
    Ok(Some(options))
}

fn up_to(option: &str, value: &OsString, most: u32) -> Result<u32, String> {
    let text = value.to_string_lossy();
    let number = text.parse().ok().filter(|n| (1..=most).contains(n));
    number.ok_or_else(|| format!("{option} {text}: write a number from 1 to {most}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Option<Options>, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn options_are_read() {
        let line =
            "--jobs 3 --rounds 5 --socket /s --image debian/12 --from standby --standin --idle 60 --daemon /d -v";
        let expected = Options {
            jobs: 3,
            rounds: 5,
            socket: Some("/s".into()),
            image: Some("debian/12".to_owned()),
            standin: true,
            idle: Some(Duration::from_secs(60)),
            from: From::Standby,
            daemon: Some("/d".into()),
            verbose: true,
        };
        assert_eq!(parse_line(line), Ok(Some(expected)));
        assert_eq!(parse_line("--jobs 3 -h"), Ok(None));
    }

    #[test]
    fn wrong_options_are_refused_with_what_to_write() {
        let check = |line: &str, part: &str| assert!(parse_line(line).unwrap_err().contains(part), "{line}");
        check("--jobs 0", "1 to 100");
        check("--jobs many", "1 to 100");
        check("--rounds 101", "1 to 100");
        check("--idle 3601", "1 to 3600");
        check("--from scratch", "image, template or standby");
        check("-c a.yml", "--help");
        check("now", "--help");
    }
}
