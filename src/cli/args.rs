//! Parsing the arguments.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

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
    /// How all stands.
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
    /// What instances that failed had to say.
    Failures {
        /// `-c`
        config: Option<PathBuf>,
        /// Of which it is printed; without one they are listed.
        instance: Option<String>,
    },
    /// The whole story on one machine.
    Demo(DemoOptions),
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

/// What `demo` was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemoOptions {
    /// How many jobs are queued; at least one.
    pub jobs: u32,
    /// How often the story is played; at least once.
    pub rounds: u32,
    /// LXD's socket; found by itself where it is not given.
    pub socket: Option<PathBuf>,
    /// The image that the containers are made from.
    pub image: Option<String>,
    /// Use the stand-in even where there is an LXD.
    pub standin: bool,
    /// Queue nothing, and keep everything up that long.
    pub idle: Option<Duration>,
    /// What the jobs' instances come from.
    pub from: From,
}

/// What the demo's instances come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The image, each for itself.
    Image,
    /// A template.
    Template,
    /// Standbys.
    Standby,
}

impl Default for DemoOptions {
    fn default() -> DemoOptions {
        DemoOptions { jobs: 1, rounds: 1, socket: None, image: None, standin: false, idle: None, from: From::Template }
    }
}

impl Name {
    const ALL: [(Name, &str); 9] = [
        (Name::Serve, "serve"),
        (Name::Check, "check"),
        (Name::Bake, "bake"),
        (Name::Status, "status"),
        (Name::Explain, "explain"),
        (Name::Failures, "failures"),
        (Name::Hooks, "hooks"),
        (Name::Placeholders, "placeholders"),
        (Name::Demo, "demo"),
    ];

    fn word(self) -> &'static str {
        Name::ALL.iter().find(|(name, _)| *name == self).map_or("", |(_, word)| word)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Name {
    Serve,
    Check,
    Status,
    Explain,
    Hooks,
    Placeholders,
    Bake,
    Failures,
    Demo,
}

const HELP: &str = "\
lxdrunner turns an LXD or Incus host into a farm of ephemeral GitHub Actions runners.

Usage: lxdrunner [COMMAND] [OPTIONS]

Commands:
  serve         Run the daemon (what it does without a command)
  check         Check the config file, LXD and GitHub; say what is wrong and how to mend it
  bake          Make the templates that jobs start from now, instead of leaving it to the daemon
  status        Show what waits, runs and is kept ready now, and what does not work
  explain       Say why a job runs, waits or is not served here, and what happens next
  failures      Show what instances that failed had to say before they were destroyed
  hooks         Make, show or remove the webhooks at GitHub
  placeholders  Remove the placeholder runners at GitHub
  demo          Show the whole story on this machine, without a GitHub account

Options:
  -c, --config FILE   The config file. Without it, the first of ./config.yml,
                      $XDG_CONFIG_HOME/lxdrunner/config.yml (~/.config/…), /etc/lxdrunner/config.yml
  -v, --verbose       Log every call (as LXDRUNNER_LOG=debug does)
  -h, --help          This text; after a command, the command's
  -V, --version       The version

Exit codes: 0 well, 1 failed, 2 wrong arguments, 78 wrong config file.";

const SERVE_HELP: &str = "\
Runs the daemon: waits for GitHub's webhooks and starts an instance for each queued job.

Usage: lxdrunner [serve] [-c FILE] [-v]

  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
      --trace         Log, for each job, when each step of its start was done (as LXDRUNNER_TRACE=1 does)
  -h, --help          This text

Starting again loses nothing, and running jobs do not notice. Exit code 78: the config file is wrong.";

const CHECK_HELP: &str = "\
Checks the config file, then asks LXD and GitHub whether all that it names is there, one line each.

Usage: lxdrunner check [-c FILE] [-v]

  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

Exit codes: 0 all is well, 1 something is to be mended, 78 the config file is wrong.";

const EXPLAIN_HELP: &str = "\
Says why a job runs, waits or is not served here: first in one line, then what each class lacks, who is let in, caps, what
is under way for it, and what happens next and when. The running daemon is asked; without one, LXD and GitHub are.

Usage: lxdrunner explain JOB [-c FILE] [-v]

  JOB                 The address of the job's page (https://github.com/OWNER/REPO/actions/runs/RUN/job/ID) or of its API,
                      OWNER/REPO#ID, or the id, which is looked for in the daemon, or in 30 repositories at most
  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

Run it as root or as the daemon's user. Exit codes: 0 explained, 1 not found or not to be had, 2 JOB names no job,
78 the config file is wrong.";

const STATUS_HELP: &str = "\
Shows how all stands: jobs and instances of each class, each job that is held up with its reason, what does not work, and
what is left of GitHub's limits. The running daemon is asked.

Usage: lxdrunner status [--metrics] [-c FILE] [-v]

      --metrics       The same as numbers, with counts since the daemon's start, in Prometheus' text format
  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

Run it as root or as the daemon's user. With web_metrics in the config file, GET /metrics on the webhook port answers the
same to those whom it names. Exit codes: 0 shown, 1 no daemon answers, 78 the config file is wrong.";

const HOOKS_HELP: &str = "\
Keeps the webhooks of all targets: one each, sending what is needed to the address of this host, signed with hooksecret.

Usage: lxdrunner hooks install|status|remove [--url URL] [-c FILE] [-v]

  install             Make those that are missing, set the others right, and let GitHub try each of them
  status              Say how they are, and what became of the last delivery
  remove              Remove those that lead to this address; others are left alone
  --url URL           Where GitHub finds this host; without it webhook_url of the config file
  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

With webhook_url in the config file the daemon does all this by itself. Exit codes: 0 all is well, 1 something is not.";

const PLACEHOLDERS_HELP: &str = "\
Removes the placeholder runners of all targets at GitHub, those that `placeholders: true` in a config file made.

Usage: lxdrunner placeholders remove [-c FILE] [-v]

  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

A daemon with `placeholders: true` makes them anew: change its config file first.";

const BAKE_HELP: &str = "\
Makes the templates that jobs' instances are copied from (in a cluster perhaps images), now and with progress. The daemon
does so by itself in the background, whenever an image, the runner's version or a class has changed.

Usage: lxdrunner bake [CLASS] [-c FILE] [-v]

  CLASS               The class (its name in runnermap); without it, all
  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

It works beside a running daemon. Exit codes: 0 all templates are ready, 1 one is not, 2 no such class, 78 the config
file is wrong.";

const FAILURES_HELP: &str = "\
Shows what instances that failed had to say: the logs of those whose set-up failed, whose runner did not come online in
time, or that lived for too long were kept before they were destroyed.

Usage: lxdrunner failures [INSTANCE] [-c FILE] [-v]

  INSTANCE            The instance's name, or the id of the job that it was launched for: print its logs; without it, list
                      all that are kept, the newest first
  -c, --config FILE   The config file (see lxdrunner --help for where it is looked for)
  -v, --verbose       Log every call
  -h, --help          This text

Run it as root or as the daemon's user; it needs neither LXD nor GitHub. The newest 20 are kept (failures_kept in the
config file), as plain text in CACHE_HOME/failures. What a script printed that a terminal would take for an order is
shown as \\x1b and the like. Exit codes: 0 shown, 1 nothing is kept of INSTANCE, 78 the config file is wrong.";

const DEMO_HELP: &str = "\
Shows the whole story on this machine with a stand-in for GitHub: a webhook for a queued job, an instance, a runner
that takes the job, and nothing left behind.

Usage: lxdrunner demo [--jobs N] [--rounds N] [--from WHAT] [--socket PATH] [--image ALIAS] [--standin] [-v]
       lxdrunner demo --idle SECONDS [--socket PATH] [--image ALIAS] [--standin]

  --jobs N        Queue N jobs at once (1 to 100, default 1)
  --rounds N      Play it N times and give the medians (1 to 100, default 1)
  --from WHAT     Start jobs from a template (the default), from the image, or from standby instances
  --socket PATH   LXD's unix socket; found by itself where it is not given
  --image ALIAS   The local image to start from; found by itself where it is not given
  --standin       Use the stand-in for LXD too, even where there is an LXD
  --idle SECONDS  Queue nothing; keep all of it up that long (1 to 3600), to measure the daemon at rest
  -v, --verbose   Log every call
  -h, --help      This text";

/// Reads the arguments, without the program's own name. `Err` is for the user, with a hint.
pub fn parse(arguments: Vec<OsString>) -> Result<Invocation, String> {
    let mut parser = Parser::from_args(arguments);
    let mut name: Option<Name> = None;
    let mut config: Option<PathBuf> = None;
    let mut demo = DemoOptions::default();
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
            Arg::Long("jobs") => {
                of_one.push(("--jobs", Name::Demo));
                demo.jobs = up_to("--jobs", &parser.value().map_err(hint)?, 100)?;
            }
            Arg::Long("rounds") => {
                of_one.push(("--rounds", Name::Demo));
                demo.rounds = up_to("--rounds", &parser.value().map_err(hint)?, 100)?;
            }
            Arg::Long("idle") => {
                of_one.push(("--idle", Name::Demo));
                let value = parser.value().map_err(hint)?;
                demo.idle = Some(Duration::from_secs(up_to("--idle", &value, 3600)?.into()));
            }
            Arg::Long("socket") => {
                of_one.push(("--socket", Name::Demo));
                demo.socket = Some(parser.value().map_err(hint)?.into());
            }
            Arg::Long("image") => {
                of_one.push(("--image", Name::Demo));
                demo.image = Some(parser.value().map_err(hint)?.string().map_err(hint)?);
            }
            Arg::Long("from") => {
                of_one.push(("--from", Name::Demo));
                let value = parser.value().map_err(hint)?;
                demo.from = match value.to_string_lossy().as_ref() {
                    "image" => From::Image,
                    "template" => From::Template,
                    "standby" => From::Standby,
                    other => return Err(format!("--from {other}: write image, template or standby")),
                };
            }
            Arg::Long("standin") => {
                of_one.push(("--standin", Name::Demo));
                demo.standin = true;
            }
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
        Some(Name::Demo) if config.is_some() => {
            return Err("demo has a config of its own; leave out -c (see lxdrunner demo --help)".to_owned());
        }
        Some(Name::Demo) => Command::Demo(demo),
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

fn up_to(option: &str, value: &OsString, most: u32) -> Result<u32, String> {
    let text = value.to_string_lossy();
    let number = text.parse().ok().filter(|n| (1..=most).contains(n));
    number.ok_or_else(|| format!("{option} {text}: write a number from 1 to {most}"))
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

fn help(name: Option<Name>) -> &'static str {
    match name {
        None => HELP,
        Some(Name::Serve) => SERVE_HELP,
        Some(Name::Check) => CHECK_HELP,
        Some(Name::Status) => STATUS_HELP,
        Some(Name::Explain) => EXPLAIN_HELP,
        Some(Name::Bake) => BAKE_HELP,
        Some(Name::Failures) => FAILURES_HELP,
        Some(Name::Hooks) => HOOKS_HELP,
        Some(Name::Placeholders) => PLACEHOLDERS_HELP,
        Some(Name::Demo) => DEMO_HELP,
    }
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
        check("demo", Command::Demo(DemoOptions::default()), false);
        assert_eq!(parse_line("help check"), parse_line("check --help"));
        assert_eq!(parse_line("help"), parse_line("--help"));
        check("explain help", Command::Explain { config: None, job: "help".to_owned() }, false);
        let hooks = |verb, url: Option<&str>| Command::Hooks { config: None, verb, url: url.map(str::to_owned) };
        check("hooks install", hooks(HooksVerb::Install, None), false);
        check("hooks --url https://x status -v", hooks(HooksVerb::Status, Some("https://x")), true);
        check("hooks remove", hooks(HooksVerb::Remove, None), false);
        check("placeholders remove -c a.yml", Command::RemovePlaceholders { config: file() }, false);
        let options = DemoOptions {
            jobs: 3,
            rounds: 5,
            socket: Some("/s".into()),
            image: Some("debian/12".to_owned()),
            standin: true,
            idle: None,
            from: From::Standby,
        };
        check(
            "demo --idle 60",
            Command::Demo(DemoOptions { idle: Some(Duration::from_secs(60)), ..Default::default() }),
            false,
        );
        check(
            "demo --jobs 3 --rounds 5 --socket /s --image debian/12 --from standby --standin -v",
            Command::Demo(options),
            true,
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_a_hint() {
        check_error("--nonsense", "--help");
        check_error("-x", "--help");
        check_error("-c", "--help");
        check_error("run", "serve, check, bake, status, explain, failures, hooks, placeholders, demo");
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
        check_error("demo --jobs 0", "1 to 100");
        check_error("demo --jobs many", "1 to 100");
        check_error("demo --rounds 101", "1 to 100");
        check_error("demo --idle 3601", "1 to 3600");
        check_error("demo --from scratch", "image, template or standby");
        check_error("serve --from image", "option of demo");
        check_error("check --jobs 2", "option of demo");
        check_error("demo -c a.yml", "config of its own");
    }

    #[test]
    fn no_option_is_taken_and_ignored() {
        for (option, owner) in [
            ("--trace", "serve"),
            ("--metrics", "status"),
            ("--url https://x", "hooks"),
            ("--jobs 2", "demo"),
            ("--rounds 2", "demo"),
            ("--idle 2", "demo"),
            ("--socket /s", "demo"),
            ("--image i", "demo"),
            ("--from image", "demo"),
            ("--standin", "demo"),
        ] {
            for line in [
                "",
                "serve",
                "check",
                "bake",
                "status",
                "explain 7",
                "failures",
                "hooks status",
                "placeholders remove",
                "demo",
            ] {
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
        check("demo -h", "--jobs N");
        check("--version", env!("CARGO_PKG_VERSION"));
        check("--version --nonsense", "lxdrunner ");
    }
}
