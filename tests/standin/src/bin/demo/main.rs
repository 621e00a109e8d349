//! Runs lxdrunner's main job on this machine, without a GitHub account. The daemon is the built binary, started as a user
//! starts it; only GitHub is a stand-in, and LXD where there is none.

/// Like `println!`; nobody has to read it to the end.
macro_rules! say {
    ($($words:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($words)*)));
    }};
}

/// The same, on standard error.
macro_rules! complain {
    ($($words:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}\n", format_args!($($words)*)));
    }};
}

mod args;
mod daemon;
mod figures;
mod place;
mod remains;

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use args::{From, Options};
use daemon::{Daemon, Said};
use figures::Figures;
use lxdrunner::lxd::Instance;
use lxdrunner::model::{JobId, Phase, RepoName, RunnerArch, keys};
use place::Place;
use remains::Remains;
use standin::github::{Event, GitHubStandin, JobSpec, Removal};
use standin::package;

/// The organisation and the repository of the demo.
const OWNER: &str = "demo";
const REPO: &str = "app";
/// What hooks are signed with here. No secret: everything is on loopback and thrown away.
const HOOK_SECRET: &str = "lxdrunner-demo-hook-secret";
/// How long the first package and everything else may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// How long a round may take, and each of its jobs on top.
const ROUND_WITHIN: Duration = Duration::from_secs(120);
const JOB_WITHIN: Duration = Duration::from_secs(20);

/// The arguments were wrong, or ask for something that is not here.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let result = match args::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => show(&options),
        Ok(None) => {
            say!("{}", args::HELP);
            Ok(())
        }
        Err(text) => Err(Trouble::Usage(text)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Usage(text)) => {
            complain!("demo: {text}");
            ExitCode::from(EXIT_USAGE)
        }
        Err(Trouble::Failed(text)) => {
            complain!("demo: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Why the demo ended early.
enum Trouble {
    /// What it was asked for cannot be.
    Usage(String),
    /// Something went wrong.
    Failed(String),
}

fn failed(what: &str) -> impl Fn(&dyn Display) -> Trouble + '_ {
    move |error| Trouble::Failed(format!("{what}: {error}"))
}

fn show(options: &Options) -> Result<(), Trouble> {
    let prefix = format!("demo-{}", std::process::id());
    let remains = Remains::prepare(&prefix).map_err(|error| failed("cannot prepare")(&error))?;
    let place = Place::find(options, remains.directory())?;
    remains.watch(Arc::clone(&place.lxd));
    say!("{}", place.description);

    let github = GitHubStandin::start(place.bind)
        .map_err(|error| failed(&format!("cannot listen on {} for the GitHub stand-in", place.bind))(&error))?;
    github.add_org(OWNER);
    let repo: RepoName = RepoName { owner: OWNER.to_owned(), name: REPO.to_owned() };
    github.add_repo(&repo, false);
    let offered = remains.directory().join("offered");
    offer_package(&github, &offered).map_err(|error| failed("cannot make the runner package")(&error))?;

    let config = config_text(&github, &place, &prefix, options, remains.directory());
    let daemon = Daemon::start(&config, remains.directory(), options)
        .map_err(|error| failed("cannot start the daemon")(&error))?;
    remains.hold(Arc::clone(&daemon.child));
    let address = daemon.wait(READY_WITHIN, |said| match said {
        Said::Listening(address) => Some(address.clone()),
        _ => None,
    });
    let address = address.ok_or_else(|| daemon.trouble("the daemon does not come up"))?;
    daemon
        .wait(READY_WITHIN, |said| matches!(said, Said::PackageReady).then_some(()))
        .ok_or_else(|| daemon.trouble("the daemon does not get the runner package"))?;
    let pid = daemon.pid();
    say!("The daemon (process {pid}) listens on {address}; the GitHub stand-in on {}.\n", github.address());
    github.set_hook(&format!("http://{address}/hooks/lxdrunner"), HOOK_SECRET);

    if let Some(time) = options.idle {
        say!("Nothing is queued for {} s.", time.as_secs());
        std::thread::sleep(time);
        return clear_away(&remains);
    }
    let begun = Instant::now();
    let (wanted, count) = match options.from {
        From::Image => (None, 0),
        From::Template => (Some(Said::TemplateReady), 1),
        From::Standby => (Some(Said::StandbyReady), options.jobs as usize),
    };
    if let Some(wanted) = &wanted {
        daemon
            .wait_count(READY_WITHIN, |said| said == wanted, count)
            .ok_or_else(|| daemon.trouble("the template or the standbys do not come up"))?;
        let took = begun.elapsed().as_secs_f64();
        match options.from {
            From::Standby => say!("{count} of them wait booted and frozen, copies of a template, after {took:.1} s.\n"),
            _ => say!("A template is baked, after {took:.1} s: jobs start as copies of it.\n"),
        }
    }
    let mut figures = Figures::default();
    for round in 1..=options.rounds {
        if options.rounds > 1 {
            say!("Round {round} of {}", options.rounds);
        }
        if let (From::Standby, Some(wanted), true) = (options.from, &wanted, round > 1) {
            let again = daemon.wait_count(READY_WITHIN, |said| said == wanted, count);
            again.ok_or_else(|| daemon.trouble("the standbys do not come up again"))?;
        }
        play(options, &github, &repo, &place, &prefix, &daemon, &mut figures)?;
    }
    figures.print(options);
    clear_away(&remains)
}

fn clear_away(remains: &Remains) -> Result<(), Trouble> {
    let left = remains.tidy();
    if left.is_empty() {
        say!("Nothing is left: no instance, no registration, no file.");
        Ok(())
    } else {
        Err(Trouble::Failed(format!("left behind: {}", left.join("; "))))
    }
}

fn offer_package(github: &GitHubStandin, directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let arch = place::host_arch();
    let built = package::build(directory, arch.as_str(), package::VERSION)?;
    github.offer(&built.path, arch.as_str(), Some(built.sha256))
}

fn config_text(github: &GitHubStandin, place: &Place, prefix: &str, options: &Options, directory: &Path) -> String {
    let quoted = |text: &dyn Display| serde_json::Value::String(text.to_string()).to_string();
    let arch: RunnerArch = place::host_arch();
    format!(
        "pat: {pat}\nhooksecret: {HOOK_SECRET}\ngithub_api: {api}\ntargets: [{{org: {OWNER}}}]\n\
         socket: {socket}\nprefix: {prefix}\nmax_workers: {jobs}\nreconcile_interval: {look}\n\
         web_host: 127.0.0.1\nweb_port: 0\nweb_tls: false\ncache_home: {cache}\n\
         runnermap:\n  - name: demo\n    labels: [self-hosted, linux, {arch}]\n    image: {image}\n    \
         type: container\n    runner_os: linux\n    runner_arch: {arch}\n    profiles: [default]\n    \
         template: {template}\n    standby: {standby}\n",
        // At rest nothing is to be kept ready that is not asked for.
        template = options.from != From::Image && options.idle.is_none(),
        standby = if options.from == From::Standby && options.idle.is_none() { options.jobs } else { 0 },
        pat = quoted(&github.token().expose()),
        api = quoted(&github.api()),
        socket = quoted(&place.socket.display()),
        jobs = options.jobs,
        // At rest it is to be as it is with the default.
        look = if options.idle.is_some() { 60 } else { 10 },
        cache = quoted(&directory.join("cache").display()),
        image = quoted(&place.image),
    )
}

/// True for what was launched for a job, unlike a template or a standby.
fn has_runner(instance: &Instance) -> bool {
    instance.config.get(keys::PHASE).is_none_or(|phase| Phase::parse(phase).has_runner())
}

/// One round: queue the jobs, and tell what happens until nothing of it is left.
fn play(
    options: &Options,
    github: &GitHubStandin,
    repo: &RepoName,
    place: &Place,
    prefix: &str,
    daemon: &Daemon,
    figures: &mut Figures,
) -> Result<(), Trouble> {
    let mut heard = github.timeline().len();
    // Of rounds before.
    drop(daemon.steps());
    let begun = Instant::now();
    let deadline = begun + ROUND_WITHIN + JOB_WITHIN * options.jobs;
    let tell = |at: Instant, text: &str| {
        say!("{:>9.3} s  {text}", at.saturating_duration_since(begun).as_secs_f64());
    };
    let jobs: BTreeSet<JobId> = (0..options.jobs).map(|_| github.queue(repo, JobSpec::new(&["self-hosted"]))).collect();
    let mut round = figures::Round::new(begun, options.jobs);
    let mut registrations: BTreeSet<String> = BTreeSet::new();
    let mut finished = BTreeSet::new();
    while finished.len() < jobs.len() || !registrations.is_empty() {
        for (at, text) in daemon.steps() {
            tell(at, &text);
        }
        // The stand-in says when something happens; the daemon's own words are looked for in between.
        let Some((place, moment)) = github.wait_event(Duration::from_millis(20), heard, |_| true) else {
            if Instant::now() > deadline {
                return Err(daemon.trouble(&format!(
                    "{} of {} jobs are not done in time",
                    jobs.len() - finished.len(),
                    jobs.len()
                )));
            }
            continue;
        };
        heard = place + 1;
        let text = match moment.event {
            Event::JobQueued { job } => format!("job {job} is queued at GitHub"),
            Event::HookAnswered { job, action, status } if action == "queued" => match status {
                Some(202) => format!("webhook for job {job} accepted"),
                other => return Err(daemon.trouble(&format!("the webhook for job {job} got {other:?}"))),
            },
            Event::Registered { name, .. } => {
                registrations.insert(name.clone());
                format!("runner {name} registered")
            }
            Event::SessionOpened { name, .. } => {
                round.started.push(moment.instant);
                format!("runner {name} runs and asks for a job")
            }
            Event::JobStarted { job, name } => format!("job {job} begins on {name}"),
            Event::JobFinished { job, conclusion, .. } => {
                finished.insert(job);
                format!("job {job} ends: {conclusion}")
            }
            Event::Removed { name, by, .. } => {
                registrations.remove(&name);
                let by = if by == Removal::Ephemeral { "by GitHub" } else { "by the daemon" };
                format!("registration of {name} removed {by}")
            }
            _ => continue,
        };
        tell(moment.instant, &text);
    }
    loop {
        let left = place.lxd.instances("default", prefix);
        match left {
            // What is kept ready for the next job stays.
            Ok(left) if !left.iter().any(has_runner) => break,
            _ if Instant::now() > deadline => return Err(daemon.trouble("instances are left")),
            // A listing is the only way to see this from outside of the daemon.
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    round.gone = Some(Instant::now());
    tell(Instant::now(), "no instance and no registration is left\n");
    figures.add(round);
    Ok(())
}
