//! GitHub for `tests/host.sh`: the stand-in with an organisation `acme` and a repository, which outlives the host's power
//! cuts, and a second port that takes orders. Prints a line for each event. `github PORT CONTROL-PORT ORIGIN FOLDER`
//!
//! ```text
//! POST /queue?seconds=&label=   queues a job, answers with its id (label: beside self-hosted)
//! POST /cancel?job=             cancels it
//! POST /ran?job=                the job itself says that it runs
//! GET  /jobs                    a line each: id, status, conclusion, how often a runner began it, how often it ran
//! GET  /runners                 a line each: name, online or offline, busy or idle
//! GET  /hooks                   a line each: the webhooks' addresses
//! POST /cut                     remembers the runners that are connected; POST /lost: GitHub gives these up
//! POST /away, POST /back        the API answers nobody meanwhile
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lxdrunner::model::{JobId, RepoName, RunnerId};
use standin::github::wire::{Reply, Request, Response, Server};
use standin::github::{Event, Fault, GitHubStandin, JobSpec, Mischief, State};
use standin::package;

struct Orders {
    github: GitHubStandin,
    /// Where jobs in the host reach the control port.
    control: String,
    /// What the jobs say themselves: queued with this number, ran so often.
    jobs: Mutex<Vec<(JobId, u32)>>,
    connected_at_cut: Mutex<Vec<RunnerId>>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let local = |port: &str| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.parse().unwrap());
    let (origin, folder) = (&arguments[3], Path::new(&arguments[4]));
    let github = GitHubStandin::start(local(&arguments[1])).unwrap();
    github.set_origin(&format!("{origin}:{}", arguments[1]));
    github.add_org("acme");
    github.add_repo(&repo(), false);
    github.with(|state| state.limits.raise(1_000_000));
    let package = package::build(folder, "x64", package::VERSION).unwrap();
    github.offer(&package.path, "x64", Some(package.sha256)).unwrap();
    let control = format!("{origin}:{}", arguments[2]);
    let orders = Arc::new(Orders { github, control, jobs: Mutex::default(), connected_at_cut: Mutex::default() });
    let for_server = Arc::clone(&orders);
    let _server = Server::start(local(&arguments[2]), move |request| Reply::Answer(for_server.obey(request))).unwrap();
    let mut told = 0;
    loop {
        if let Some((place, moment)) = orders.github.wait_event(Duration::from_secs(60), told, |_| true) {
            told = place + 1;
            println!("{} {:?}", moment.at.to_rfc3339(), moment.event);
            std::io::stdout().flush().unwrap();
        }
    }
}

fn repo() -> RepoName {
    RepoName { owner: "acme".to_owned(), name: "app".to_owned() }
}

impl Orders {
    fn obey(&self, request: &Request) -> Response {
        let answer = match request.path.as_str() {
            "/queue" => self.queue(request),
            "/cancel" => {
                self.github.cancel(JobId(request.param("job").unwrap().parse().unwrap()));
                String::new()
            }
            "/ran" => {
                let number: usize = request.param("job").unwrap().parse().unwrap();
                self.jobs.lock().unwrap()[number].1 += 1;
                String::new()
            }
            "/jobs" => self.list_jobs(),
            "/runners" => self.github.with(|state| list_runners(state)),
            "/hooks" => self.github.with(|state| state.hooks.iter().map(|hook| format!("{}\n", hook.url)).collect()),
            "/cut" => {
                let connected =
                    |state: &mut State| state.runners.values().filter(|r| r.online()).map(|r| r.id).collect();
                *self.connected_at_cut.lock().unwrap() = self.github.with(connected);
                String::new()
            }
            "/lost" => {
                let lost = std::mem::take(&mut *self.connected_at_cut.lock().unwrap());
                lost.into_iter().for_each(|runner| self.github.lose_runner(runner));
                String::new()
            }
            "/away" => {
                self.github.inject(Fault::on("", Mischief::Close).times(usize::MAX));
                self.github.inject(Fault::on("/_runner/", Mischief::Close).times(usize::MAX));
                self.github.cut_connections();
                String::new()
            }
            "/back" => {
                self.github.clear_faults();
                String::new()
            }
            _ => return Response::empty(404),
        };
        Response::text(200, "text/plain", answer)
    }

    fn queue(&self, request: &Request) -> String {
        let seconds: u32 = request.param("seconds").unwrap().parse().unwrap();
        let label = request.param("label").unwrap_or_else(|| "linux".to_owned());
        let mut jobs = self.jobs.lock().unwrap();
        let number = jobs.len();
        let script = format!("curl -fsS -X POST '{}/ran?job={number}'\nsleep {seconds}\n", self.control);
        let job = self.github.queue(&repo(), JobSpec::new(&["self-hosted", &label]).script(script));
        jobs.push((job, 0));
        format!("{job}\n")
    }

    fn list_jobs(&self) -> String {
        let mut begun: BTreeMap<JobId, u32> = BTreeMap::new();
        for moment in self.github.timeline() {
            if let Event::JobStarted { job, .. } = moment.event {
                *begun.entry(job).or_default() += 1;
            }
        }
        let jobs = self.jobs.lock().unwrap();
        let line = |state: &State, id: &JobId, ran: u32| {
            let job = &state.jobs[id];
            let begun = begun.get(id).copied().unwrap_or(0);
            format!("{id} {} {} {begun} {ran}\n", job.stage.as_str(), job.conclusion.unwrap_or("-"))
        };
        self.github.with(|state| jobs.iter().map(|(id, ran)| line(state, id, *ran)).collect())
    }
}

fn list_runners(state: &State) -> String {
    let word = |is: bool, yes: &'static str, no: &'static str| if is { yes } else { no };
    let line = |r: &standin::github::RunnerState| {
        let (online, busy) = (word(r.online(), "online", "offline"), word(r.job.is_some(), "busy", "idle"));
        format!("{} {online} {busy}\n", r.name)
    };
    state.runners.values().map(line).collect()
}
