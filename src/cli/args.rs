//! Parsing the arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use super::help::help;

/// What the arguments ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Print this and end: help or the version.
    Print(String),
    /// Run a command.
    Run {
        /// Which, and with what.
        command: Command,
        /// `-v`: log every call.
        verbose: bool,
    },
}

/// A command and what it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The daemon.
    Serve {
        /// `-c`
        config: Option<PathBuf>,
        /// `--trace`: log the moments of each start.
        trace: bool,
    },
    /// See whether everything is in order.
    Check {
        /// `-c`
        config: Option<PathBuf>,
    },
    /// The current state.
    Status {
        /// `-c`
        config: Option<PathBuf>,
        /// As numbers.
        metrics: bool,
    },
    /// Why a job runs, waits or is not ours.
    Explain {
        /// `-c`
        config: Option<PathBuf>,
        /// The job, in whatever form.
        job: String,
    },
    /// The webhooks at GitHub.
    Hooks {
        /// `-c`
        config: Option<PathBuf>,
        /// What to do with them.
        verb: HooksVerb,
        /// `--url`: instead of the config's `webhook_url`.
        url: Option<String>,
    },
    /// Removes the placeholders, the only thing that is done with them by hand.
    RemovePlaceholders {
        /// `-c`
        config: Option<PathBuf>,
    },
    /// Make templates now.
    Bake {
        /// `-c`
        config: Option<PathBuf>,
        /// The one class whose template is wanted.
        class: Option<String>,
    },
    /// Logs of failed instances.
    Failures {
        /// `-c`
        config: Option<PathBuf>,
        /// Of which it is printed; without one they are listed.
        instance: Option<String>,
    },
}

/// What `hooks` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HooksVerb {
    /// Make them, or set them right.
    Install,
    /// Tell how they are.
    Status,
    /// Remove those that lead here.
    Remove,
}

impl Name {
    const ALL: [(Name, &str); 8] = [
        (Name::Serve, "serve"),
        (Name::Check, "check"),
        (Name::Bake, "bake"),
        (Name::Status, "status"),
        (Name::Explain, "explain"),
        (Name::Failures, "failures"),
        (Name::Hooks, "hooks"),
        (Name::Placeholders, "placeholders"),
    ];

    fn word(self) -> &'static str {
        Name::ALL.iter().find(|(name, _)| *name == self).map_or("", |(_, word)| word)
    }
}

/// A command's name.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Name {
    Serve,
    Check,
    Status,
    Explain,
    Hooks,
    Placeholders,
    Bake,
    Failures,
}

/// Reads the arguments, without the program's own name. `Err` is for the user, with a hint.
pub fn parse(arguments: Vec<OsString>) -> Result<Invocation, String> {
    let mut parser = Parser::from_args(arguments);
    let mut name: Option<Name> = None;
    let mut config: Option<PathBuf> = None;
    // Options that only one command has.
    let mut of_one: Vec<(&'static str, Name)> = Vec::new();
    let (mut verb, mut url): (Option<String>, Option<String>) = (None, None);
    let mut verbose = false;
    let mut trace = false;
    let mut metrics = false;
    let mut asks_help = false;
    let mut job: Option<String> = None;
    let mut class: Option<String> = None;
    let mut instance: Option<String> = None;
    let hint = |error: lexopt::Error| format!("{error} (see lxdrunner --help)");

    while let Some(argument) = parser.next().map_err(hint)? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation::Print(help(name).to_owned())),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Invocation::Print(format!("lxdrunner {}", env!("CARGO_PKG_VERSION"))));
            }
            Arg::Short('v') | Arg::Long("verbose") => verbose = true,
            Arg::Long("trace") => {
                of_one.push(("--trace", Name::Serve));
                trace = true;
            }
            Arg::Long("metrics") => {
                of_one.push(("--metrics", Name::Status));
                metrics = true;
            }
            Arg::Short('c') | Arg::Long("config") => config = Some(parser.value().map_err(hint)?.into()),
            Arg::Long("url") => {
                of_one.push(("--url", Name::Hooks));
                url = Some(parser.value().map_err(hint)?.string().map_err(hint)?);
            }
            Arg::Value(word) if verb.is_none() && matches!(name, Some(Name::Hooks | Name::Placeholders)) => {
                verb = Some(word.string().map_err(hint)?);
            }
            Arg::Value(word) if name.is_none() && !asks_help && word == "help" => asks_help = true,
            Arg::Value(word) if name.is_none() => name = Some(command_name(&word.to_string_lossy())?),
            Arg::Value(word) if name == Some(Name::Bake) && class.is_none() => {
                class = Some(word.to_string_lossy().into_owned());
            }
            Arg::Value(word) if name == Some(Name::Failures) && instance.is_none() => {
                instance = Some(word.to_string_lossy().into_owned());
            }
            Arg::Value(word) if name == Some(Name::Explain) && job.is_none() => {
                job = Some(word.to_string_lossy().into_owned());
            }
            Arg::Value(word) => {
                return Err(format!("unexpected argument {:?} (see lxdrunner --help)", word.to_string_lossy()));
            }
            Arg::Short('l') => {
                let fix = "-v for DEBUG, nothing for any other level (see lxdrunner --help)";
                return Err(format!("-l LEVEL is an option of the Python daemon; write {fix}"));
            }
            other => return Err(hint(other.unexpected())),
        }
    }

    if asks_help {
        return Ok(Invocation::Print(help(name).to_owned()));
    }
    if let Some((option, owner)) = of_one.iter().find(|(_, owner)| *owner != name.unwrap_or(Name::Serve)) {
        let owner = owner.word();
        return Err(format!("{option} is an option of {owner} (see lxdrunner {owner} --help)"));
    }
    let command = match name {
        Some(Name::Bake) => Command::Bake { config, class },
        Some(Name::Explain) => match job {
            Some(job) => Command::Explain { config, job },
            None => return Err("explain needs a job: lxdrunner explain JOB (see lxdrunner explain --help)".to_owned()),
        },
        Some(Name::Hooks) => match verb.as_deref() {
            Some("install") => Command::Hooks { config, verb: HooksVerb::Install, url },
            Some("status") => Command::Hooks { config, verb: HooksVerb::Status, url },
            Some("remove") => Command::Hooks { config, verb: HooksVerb::Remove, url },
            _ => return Err("hooks needs one of install, status, remove (see lxdrunner hooks --help)".to_owned()),
        },
        Some(Name::Placeholders) => match verb.as_deref() {
            Some("remove") => Command::RemovePlaceholders { config },
            _ => return Err("placeholders needs: remove (see lxdrunner placeholders --help)".to_owned()),
        },
        Some(Name::Check) => Command::Check { config },
        Some(Name::Status) => Command::Status { config, metrics },
        Some(Name::Failures) => Command::Failures { config, instance },
        Some(Name::Serve) | None => Command::Serve { config, trace },
    };
    Ok(Invocation::Run { command, verbose })
}

fn command_name(word: &str) -> Result<Name, String> {
    if let Some((name, _)) = Name::ALL.iter().find(|(_, known)| *known == word) {
        return Ok(*name);
    }
    if word.ends_with(".yml") || word.ends_with(".yaml") {
        return Err(format!("{word:?} is not a command; to use it as the config file: lxdrunner -c {word}"));
    }
    let known = Name::ALL.map(|(_, word)| word).join(", ");
    Err(format!("{word:?} is not a command; the commands are {known} (see lxdrunner --help)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Invocation, String> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[track_caller]
    fn check(line: &str, command: Command, verbose: bool) {
        assert_eq!(parse_line(line), Ok(Invocation::Run { command, verbose }), "{line}");
    }

    #[track_caller]
    fn check_error(line: &str, part: &str) {
        let error = parse_line(line).unwrap_err();
        assert!(error.contains(part), "{line}: {error}");
    }

    #[test]
    fn commands() {
        let file = || Some(PathBuf::from("a.yml"));
        check("", Command::Serve { config: None, trace: false }, false);
        check("-c a.yml", Command::Serve { config: file(), trace: false }, false);
        check("-ca.yml -v", Command::Serve { config: file(), trace: false }, true);
        check("--trace", Command::Serve { config: None, trace: true }, false);
        check_error("check --trace", "--trace is an option of serve");
        check("serve --config=a.yml", Command::Serve { config: file(), trace: false }, false);
        check("check -c a.yml", Command::Check { config: file() }, false);
        check("-c a.yml check", Command::Check { config: file() }, false);
        check("bake", Command::Bake { config: None, class: None }, false);
        check("bake big -c a.yml", Command::Bake { config: file(), class: Some("big".to_owned()) }, false);
        check("status", Command::Status { config: None, metrics: false }, false);
        check("status --metrics -c a.yml", Command::Status { config: file(), metrics: true }, false);
        check("explain a/b#7 -c a.yml", Command::Explain { config: file(), job: "a/b#7".to_owned() }, false);
        check("failures", Command::Failures { config: None, instance: None }, false);
        check(
            "failures x-7-1 -c a.yml",
            Command::Failures { config: file(), instance: Some("x-7-1".to_owned()) },
            false,
        );
        assert_eq!(parse_line("help check"), parse_line("check --help"));
        assert_eq!(parse_line("help"), parse_line("--help"));
        check("explain help", Command::Explain { config: None, job: "help".to_owned() }, false);
        let hooks = |verb, url: Option<&str>| Command::Hooks { config: None, verb, url: url.map(str::to_owned) };
        check("hooks install", hooks(HooksVerb::Install, None), false);
        check("hooks --url https://x status -v", hooks(HooksVerb::Status, Some("https://x")), true);
        check("hooks remove", hooks(HooksVerb::Remove, None), false);
        check("placeholders remove -c a.yml", Command::RemovePlaceholders { config: file() }, false);
    }

    #[test]
    fn what_is_wrong_is_said_with_a_hint() {
        check_error("--nonsense", "--help");
        check_error("-x", "--help");
        check_error("-c", "--help");
        check_error("-l DEBUG", "write -v for DEBUG");
        check_error("run", "serve, check, bake, status, explain, failures, hooks, placeholders");
        check_error("hooks", "install, status, remove");
        check_error("hooks list", "install, status, remove");
        check_error("placeholders", "needs: remove");
        check_error("check --url https://x", "option of hooks");
        check_error("a.yml", "lxdrunner -c a.yml");
        check_error("serve now", "unexpected");
        check_error("explain", "needs a job");
        check_error("check --metrics", "--metrics is an option of status");
        check_error("status now", "unexpected");
        check_error("explain 7 8", "unexpected");
        check_error("bake a b", "unexpected");
        check_error("failures a b", "unexpected");
        check_error("failures --json", "--help");
    }

    #[test]
    fn no_option_is_taken_and_ignored() {
        for (option, owner) in [("--trace", "serve"), ("--metrics", "status"), ("--url https://x", "hooks")] {
            for line in
                ["", "serve", "check", "bake", "status", "explain 7", "failures", "hooks status", "placeholders remove"]
            {
                let is_owner =
                    line.split(' ').next().map(|word| if word.is_empty() { "serve" } else { word }) == Some(owner);
                let line = format!("{line} {option}");
                match parse_line(&line) {
                    Err(error) => {
                        assert!(!is_owner && error.contains(&format!("is an option of {owner} ")), "{line}: {error}")
                    }
                    Ok(_) => assert!(is_owner, "{line}"),
                }
            }
        }
    }

    #[test]
    fn help_is_the_commands() {
        let check = |line: &str, part: &str| match parse_line(line) {
            Ok(Invocation::Print(text)) => assert!(text.contains(part), "{line}: {text}"),
            other => panic!("{line}: {other:?}"),
        };
        check("-h", "Commands:");
        check("serve --help", "Runs the daemon");
        check("check --help", "Checks the config");
        check("status -h", "Prometheus");
        check("explain -h", "OWNER/REPO#ID");
        check("hooks -h", "install|status|remove");
        check("placeholders -h", "placeholders remove");
        check("failures -h", "CACHE_HOME/failures");
        check("--version", env!("CARGO_PKG_VERSION"));
        check("--version --nonsense", "lxdrunner ");
    }
}
