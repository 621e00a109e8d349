//! Parsing the arguments.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

use super::help;

/// What the arguments ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Print this text (help or the version) and exit.
    Print(String),
    /// Run a command.
    Run {
        /// The command and its own options.
        command: Command,
        /// `-c`: the config file.
        config: Option<PathBuf>,
        /// `-v`: log every call.
        verbose: bool,
    },
}

/// A command and its own options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the daemon.
    Serve {
        /// `--trace`: log the time of each step of a start.
        trace: bool,
    },
    /// Check the config file, LXD and GitHub.
    Check,
    /// Print the current state.
    Status {
        /// `--metrics`: in Prometheus' text format.
        metrics: bool,
    },
    /// Print why a job runs, waits or is not served here.
    Explain {
        /// The job: an address, `OWNER/REPO#ID` or an id.
        job: String,
    },
    /// Install, show or remove the webhooks at GitHub.
    Hooks {
        /// What to do with them.
        verb: HooksVerb,
        /// `--url`: used instead of the config's `webhook_url`.
        url: Option<String>,
    },
    /// Remove the placeholder runners at GitHub.
    RemovePlaceholders,
    /// Make templates now.
    Bake {
        /// The class whose template is made; `None`: all classes.
        class: Option<String>,
    },
    /// Print the logs of failed instances.
    Failures {
        /// The instance whose logs are printed; `None`: list all.
        instance: Option<String>,
    },
}

/// What `hooks` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HooksVerb {
    /// Create missing webhooks and correct the others.
    Install,
    /// Print the state of each webhook.
    Status,
    /// Remove the webhooks that lead to this address.
    Remove,
}

/// The commands, in the order of the help, each with its help text.
const COMMANDS: [(&str, &str); 8] = [
    ("serve", help::SERVE),
    ("check", help::CHECK),
    ("bake", help::BAKE),
    ("status", help::STATUS),
    ("explain", help::EXPLAIN),
    ("failures", help::FAILURES),
    ("hooks", help::HOOKS),
    ("placeholders", help::PLACEHOLDERS),
];

/// Reads the arguments, without the program's own name. `Err` is a message with a hint for the user.
pub fn parse(arguments: Vec<OsString>) -> Result<Invocation, String> {
    let mut parser = Parser::from_args(arguments);
    let (mut config, mut verbose) = (None, false);
    let mut given = Given::default();
    let hint = |error: lexopt::Error| format!("{error} (see lxdrunner --help)");

    while let Some(argument) = parser.next().map_err(hint)? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Invocation::Print(given.help().to_owned())),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Invocation::Print(format!("lxdrunner {}", env!("CARGO_PKG_VERSION"))));
            }
            Arg::Short('v') | Arg::Long("verbose") => verbose = true,
            Arg::Short('c') | Arg::Long("config") => config = Some(parser.value().map_err(hint)?.into()),
            Arg::Short('l') => {
                let fix = "-v for DEBUG, nothing for any other level (see lxdrunner --help)";
                return Err(format!("-l LEVEL is an option of the Python daemon; write {fix}"));
            }
            Arg::Long("trace") => given.trace = true,
            Arg::Long("metrics") => given.metrics = true,
            Arg::Long("url") => given.url = Some(parser.value().map_err(hint)?.string().map_err(hint)?),
            Arg::Value(word) => given.word(word.to_string_lossy().into_owned())?,
            other => return Err(hint(other.unexpected())),
        }
    }
    if given.asks_help {
        return Ok(Invocation::Print(given.help().to_owned()));
    }
    Ok(Invocation::Run { command: given.command()?, config, verbose })
}

/// The arguments that are not common to all commands.
#[derive(Default)]
struct Given {
    asks_help: bool,
    /// The command's name and help.
    command: Option<(&'static str, &'static str)>,
    /// The word after the command.
    operand: Option<String>,
    trace: bool,
    metrics: bool,
    url: Option<String>,
}

impl Given {
    fn help(&self) -> &'static str {
        self.command.map_or(help::ALL, |(_, text)| text)
    }

    fn word(&mut self, word: String) -> Result<(), String> {
        match self.command {
            None if word == "help" && !self.asks_help => self.asks_help = true,
            None => self.command = Some(command(&word)?),
            Some((name, _)) if self.operand.is_some() || matches!(name, "serve" | "check" | "status") => {
                return Err(format!("unexpected argument {word:?} (see lxdrunner --help)"));
            }
            Some(_) => self.operand = Some(word),
        }
        Ok(())
    }

    fn command(self) -> Result<Command, String> {
        let name = self.command.map_or("serve", |(name, _)| name);
        let options =
            [("trace", "serve", self.trace), ("metrics", "status", self.metrics), ("url", "hooks", self.url.is_some())];
        for (option, owner, is_given) in options {
            if is_given && owner != name {
                return Err(format!("--{option} is an option of {owner} (see lxdrunner {owner} --help)"));
            }
        }
        let needs = |what: &str| Err(format!("{name} needs {what} (see lxdrunner {name} --help)"));
        Ok(match name {
            "check" => Command::Check,
            "bake" => Command::Bake { class: self.operand },
            "status" => Command::Status { metrics: self.metrics },
            "explain" => match self.operand {
                Some(job) => Command::Explain { job },
                None => return needs("a job: lxdrunner explain JOB"),
            },
            "failures" => Command::Failures { instance: self.operand },
            "hooks" => {
                let verb = match self.operand.as_deref() {
                    Some("install") => HooksVerb::Install,
                    Some("status") => HooksVerb::Status,
                    Some("remove") => HooksVerb::Remove,
                    _ => return needs("one of install, status, remove"),
                };
                Command::Hooks { verb, url: self.url }
            }
            "placeholders" => match self.operand.as_deref() {
                Some("remove") => Command::RemovePlaceholders,
                _ => return needs("remove: lxdrunner placeholders remove"),
            },
            _ => Command::Serve { trace: self.trace },
        })
    }
}

/// The entry of [`COMMANDS`] for a word.
fn command(word: &str) -> Result<(&'static str, &'static str), String> {
    if let Some(found) = COMMANDS.iter().find(|(name, _)| *name == word) {
        return Ok(*found);
    }
    if word.ends_with(".yml") || word.ends_with(".yaml") {
        return Err(format!("{word:?} is not a command; to use it as the config file: lxdrunner -c {word}"));
    }
    let known = COMMANDS.map(|(name, _)| name).join(", ");
    Err(format!("{word:?} is not a command; the commands are {known} (see lxdrunner --help)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Invocation, String> {
        parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[track_caller]
    fn check(line: &str, command: Command, config: Option<&str>, verbose: bool) {
        let config = config.map(PathBuf::from);
        assert_eq!(parse_line(line), Ok(Invocation::Run { command, config, verbose }), "{line}");
    }

    #[track_caller]
    fn check_error(line: &str, part: &str) {
        let error = parse_line(line).unwrap_err();
        assert!(error.contains(part), "{line}: {error}");
    }

    #[test]
    fn commands() {
        let file = Some("a.yml");
        check("", Command::Serve { trace: false }, None, false);
        check("-c a.yml", Command::Serve { trace: false }, file, false);
        check("-ca.yml -v", Command::Serve { trace: false }, file, true);
        check("--trace", Command::Serve { trace: true }, None, false);
        check("--trace serve", Command::Serve { trace: true }, None, false);
        check_error("check --trace", "--trace is an option of serve");
        check("serve --config=a.yml", Command::Serve { trace: false }, file, false);
        check("check -c a.yml", Command::Check, file, false);
        check("-c a.yml check", Command::Check, file, false);
        check("bake", Command::Bake { class: None }, None, false);
        check("bake big -c a.yml", Command::Bake { class: Some("big".to_owned()) }, file, false);
        check("status", Command::Status { metrics: false }, None, false);
        check("status --metrics -c a.yml", Command::Status { metrics: true }, file, false);
        check("explain a/b#7 -c a.yml", Command::Explain { job: "a/b#7".to_owned() }, file, false);
        check("failures", Command::Failures { instance: None }, None, false);
        check("failures x-7-1 -c a.yml", Command::Failures { instance: Some("x-7-1".to_owned()) }, file, false);
        assert_eq!(parse_line("help check"), parse_line("check --help"));
        assert_eq!(parse_line("help"), parse_line("--help"));
        check("explain help", Command::Explain { job: "help".to_owned() }, None, false);
        let hooks = |verb, url: Option<&str>| Command::Hooks { verb, url: url.map(str::to_owned) };
        check("hooks install", hooks(HooksVerb::Install, None), None, false);
        check("hooks --url https://x status -v", hooks(HooksVerb::Status, Some("https://x")), None, true);
        check("hooks remove", hooks(HooksVerb::Remove, None), None, false);
        check("placeholders remove -c a.yml", Command::RemovePlaceholders, file, false);
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
        check_error("placeholders", "needs remove: lxdrunner placeholders remove");
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
