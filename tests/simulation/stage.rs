//! The stage: virtual time, the models, the faults and the log of what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lxdrunner::config::Config;
use lxdrunner::github::Purpose;
use lxdrunner::identity::Maker;
use lxdrunner::model::{Hint, JobId, JobStatus, Labels, Phase, Recipe, RunnerId, Scope, Timestamp};
use lxdrunner::world::{GitHubSeen, InstanceSeen, Outcome, Queue, Snapshot, Subject};

use crate::day::Day;
use crate::execution::{Execution, Luck};
use crate::faults::{Faults, Limit, Mishap};
use crate::github::{GitHub, JobRow, REPOS, scope_of};
use crate::power::Power;
use crate::process::Process;
use crate::rng::Rng;
use crate::tale::Tale;
use crate::waits::Waits;

/// The first moment of every story; milliseconds.
pub const DAWN: u64 = 1_700_000_000_000;
pub const FIRST_JOB: u64 = 1000;

pub enum Ev {
    JobArrives,
    Cancel(u64),
    RunsAgain(u64),
    Deliver { daemon: usize, hint: Hint },
    Assign,
    JobEnds { job: u64, runner: u64 },
    Online { runner: u64 },
    PowerOff { lxd: usize, name: String, runner: u64 },
    SelfDelete { lxd: usize, name: String, made: u64 },
    Wake { daemon: usize, life: u32, turn: u64 },
    Step(u64),
    List { daemon: usize, life: u32, begun: u64, github: bool },
    Ask { daemon: usize, life: u32, snapshot: Box<Snapshot> },
    AskQueue { daemon: usize, life: u32, place: usize, snapshot: Box<Snapshot> },
    Queue { daemon: usize, life: u32, place: usize, queue: Box<Queue>, snapshot: Box<Snapshot> },
    Look { daemon: usize, life: u32, snapshot: Box<Snapshot> },
    Crash(usize),
    PowerCut(usize),
    Restart(usize),
    Redeliver,
    ImageMoves,
    Lxd { lxd: usize, up: bool },
    Pool { lxd: usize, full: bool },
    Mishap { lxd: usize, mishap: Mishap },
    Limited(Limit),
    QueuedAgain { job: u64, runner: u64 },
    Answer { id: u64, outcome: Box<Outcome> },
    GitHub { up: bool },
}

#[derive(Clone)]
pub struct Inst {
    /// `None`: somebody else's, without our keys.
    pub owner: Option<(usize, u32)>,
    /// What an image is called that is a template; `None` for an instance.
    pub alias: Option<String>,
    pub class: String,
    pub scope: Option<Scope>,
    pub job: Option<JobId>,
    pub phase: Phase,
    pub recipe: Option<Recipe>,
    pub frozen: bool,
    /// Counts the changes of its keys, as an ETag does.
    pub version: u64,
    pub runner_key: Option<RunnerId>,
    pub running: bool,
    pub made: u64,
    /// When its maker last noted that it makes progress; 0 where it did not.
    pub noted: u64,
    /// The runner process inside, by its registration.
    pub process: Option<u64>,
    /// True once that process ended.
    pub ended: bool,
    /// Until then nothing that is done to it comes to an end.
    pub hangs_until: u64,
    /// Whether LXD starts it again after a power cut, where it ran.
    pub autostart: bool,
    /// LXD has the record and not the whole root: it can neither be started nor deleted.
    pub half_written: bool,
}

#[derive(Default)]
pub struct Totals {
    pub lives: u64,
    pub crashes: u64,
    pub crashed_effects: u64,
    pub events: u64,
    pub launches: u64,
    /// How long after all was well the last job that had waited got its runner, and how long until nothing was left; the
    /// longest, in milliseconds.
    pub served: u64,
    pub cleared: u64,
}

impl Totals {
    pub fn add(&mut self, other: &Totals) {
        self.lives += other.lives;
        self.crashes += other.crashes;
        self.crashed_effects += other.crashed_effects;
        self.events += other.events;
        self.launches += other.launches;
        self.served = self.served.max(other.served);
        self.cleared = self.cleared.max(other.cleared);
    }
}

pub struct Stage {
    pub seed: u64,
    pub now: u64,
    pub rng: Rng,
    pub config: Arc<Config>,
    pub faults: Faults,
    pub calm: bool,
    /// From here on all is well.
    pub calm_at: u64,
    pub token: bool,
    /// No webhook tells of anything.
    pub polling: bool,
    /// LXD is a cluster: templates are images.
    pub clustered: bool,
    /// The number of what the image's name stands for.
    pub image: u64,
    pub queue: BTreeMap<(u64, u64), Ev>,
    pub numbers: u64,
    pub github: GitHub,
    pub github_up: bool,
    pub lxd: Vec<BTreeMap<String, Inst>>,
    pub limit: Limit,
    pub lxd_up: Vec<bool>,
    pub pool_full: Vec<bool>,
    /// What was under way when LXD went.
    pub lost_operations: BTreeSet<u64>,
    /// How the effect that is being performed ends.
    pub fate: Option<Luck>,
    /// True once its answer was lost.
    pub answer_lost: bool,
    pub daemons: Vec<Process>,
    pub executions: BTreeMap<u64, Execution>,
    pub jobs_left: u64,
    pub tale: Tale,
    /// One daemon, and nothing fails: no job waits for long.
    pub quiet: bool,
    pub waits: Waits,
    pub power: Power,
    pub totals: Totals,
    /// What GitHub does on a whole day, instead of the faults.
    pub day: Option<Day>,
}

impl Stage {
    pub fn after(&mut self, low: u64, high: u64, ev: Ev) {
        let at = self.now + self.rng.range(low, high);
        self.at(at, ev);
    }

    pub fn at(&mut self, at: u64, ev: Ev) {
        self.numbers += 1;
        self.queue.insert((at.max(self.now), self.numbers), ev);
    }

    pub fn tell(&mut self, line: String) {
        self.tale.add(self.now - DAWN, line, false);
    }

    /// What befell everybody.
    pub fn tell_of_all(&mut self, line: String) {
        self.tale.add(self.now - DAWN, line, true);
    }

    /// Ends the story; whoever hears it says why.
    pub fn fail(&self, why: &str) -> ! {
        std::panic::resume_unwind(Box::new(why.to_owned()))
    }

    pub fn time(&self) -> Timestamp {
        Timestamp(self.now)
    }

    /// True where a fault of this likelihood happens now.
    pub fn fault(&mut self, permille: u64) -> bool {
        !self.calm && self.rng.chance(permille)
    }

    // ---- GitHub moves ----

    pub fn job_arrives(&mut self) {
        if self.jobs_left == 0 {
            return;
        }
        self.jobs_left -= 1;
        let repo = self.rng.range(0, 2) as usize;
        let labels = match self.rng.range(0, 9) {
            0 => vec!["ubuntu-latest"],
            1..=3 => vec!["self-hosted", "gpu"],
            _ => vec!["self-hosted", "linux"],
        };
        let id = FIRST_JOB + self.github.jobs.len() as u64;
        let fork = self.rng.chance(80);
        let hidden = !self.polling && self.fault(self.faults.hidden);
        let row = JobRow { id, repo, labels, created: self.now, taken: None, done: None, fork, run: id, hidden };
        self.tell(format!("job {id} queued in {} {:?}", REPOS[repo], row.labels));
        self.github.jobs.push(row);
        self.webhook(id);
        self.after(100, 3000, Ev::Assign);
        if self.rng.chance(120) {
            self.after(500, 60_000, Ev::Cancel(id));
        }
        // A day has as many jobs as one machine can run.
        let longest = if self.day.is_some() { 240_000 } else { 90_000 };
        let pause = if self.rng.chance(500) { 300 } else { longest };
        self.after(0, pause, Ev::JobArrives);
    }

    pub fn cancel(&mut self, id: u64) {
        let now = self.now;
        let job = self.github.job(id);
        if job.done.is_none() && job.taken.is_none() {
            job.done = Some(now);
            self.tell(format!("job {id} cancelled"));
            self.webhook(id);
            self.perhaps_again(id);
        }
    }

    /// Somebody has the run run again: a new job of it is queued.
    fn perhaps_again(&mut self, id: u64) {
        if !self.calm && self.day.is_none() && self.rng.chance(60) {
            self.after(1000, 120_000, Ev::RunsAgain(id));
        }
    }

    pub fn runs_again(&mut self, id: u64) {
        if self.calm {
            return;
        }
        let new = FIRST_JOB + self.github.jobs.len() as u64;
        let JobRow { repo, labels, fork, run, hidden, .. } = self.github.job(id);
        let (repo, labels, fork, run, hidden) = (*repo, labels.clone(), *fork, *run, *hidden);
        self.github.jobs.push(JobRow {
            id: new,
            run,
            repo,
            labels,
            created: self.now,
            taken: None,
            done: None,
            fork,
            hidden,
        });
        self.tell(format!("job {id} runs again: job {new} is queued"));
        self.webhook(new);
        self.after(100, 3000, Ev::Assign);
    }

    /// Tells every daemon how the job stands, unless the delivery is lost; perhaps twice, perhaps late.
    pub fn webhook(&mut self, id: u64) {
        if self.polling {
            return;
        }
        let now = self.now;
        let job = self.github.job(id).at(now);
        for daemon in 0..self.daemons.len() {
            let mut copies = u32::from(!self.fault(self.faults.drop));
            copies += u32::from(self.fault(self.faults.duplicate));
            for _ in 0..copies {
                let hint = match self.rng.range(0, 9) {
                    0 => Hint::CheckRun {
                        repo: job.repo.clone(),
                        public: Some(false),
                        job: JobId(id),
                        completed: job.status == JobStatus::Completed,
                    },
                    1 if job.status == JobStatus::Queued => Hint::LookAt(job.repo.clone()),
                    _ => Hint::Job(job.clone()),
                };
                if self.delivered_of_the_day(&hint) == Some(false) {
                    continue;
                }
                let latest = if self.fault(self.faults.late) { 90_000 } else { 1500 };
                self.after(50, latest, Ev::Deliver { daemon, hint });
            }
        }
    }

    pub fn assign(&mut self) {
        let pairs = self.github.matches(self.now);
        if pairs.is_empty() {
            return;
        }
        let (job, runner) = pairs[self.rng.range(0, pairs.len() as u64 - 1) as usize];
        let now = self.now;
        let name = self.github.runner(runner).name.clone();
        self.github.runner(runner).job = Some((now, job));
        self.github.job(job).taken = Some((now, name.clone(), runner));
        self.totals.served = now.saturating_sub(self.calm_at);
        self.tell(format!("runner {name} ({runner}) takes job {job}"));
        self.webhook(job);
        let long = if self.rng.chance(100) { 900_000 } else { 30_000 };
        self.after(1000, long, Ev::JobEnds { job, runner });
        self.after(100, 3000, Ev::Assign);
    }

    pub fn job_ends(&mut self, job: u64, runner: u64) {
        let now = self.now;
        let row = self.github.job(job);
        if row.done.is_some() || row.taken.as_ref().is_none_or(|(.., by)| *by != runner) {
            return;
        }
        if let Some((_, until)) = self.github.runner(runner).away.filter(|(from, until)| *from <= now && now < *until) {
            // It cannot tell.
            self.at(until + 1000, Ev::JobEnds { job, runner });
            return;
        }
        self.github.job(job).done = Some(now);
        self.totals.lives += 1;
        self.tell(format!("job {job} is done"));
        let row = self.github.runner(runner);
        row.gone = Some(now);
        row.offline = Some(now);
        self.webhook(job);
        self.power_off_soon(runner);
        self.perhaps_again(job);
    }

    pub fn power_off_soon(&mut self, runner: u64) {
        let place = self.lxd.iter().enumerate().find_map(|(lxd, map)| {
            map.iter().find(|(_, i)| i.process == Some(runner)).map(|(name, _)| (lxd, name.clone()))
        });
        if let Some((lxd, name)) = place
            && !self.fault(self.faults.no_power_off)
        {
            self.after(100, 3000, Ev::PowerOff { lxd, name, runner });
        }
    }

    pub fn online(&mut self, runner: u64) {
        let now = self.now;
        let lives = self.lxd.iter().any(|map| map.values().any(|i| i.process == Some(runner)));
        let row = self.github.runner(runner);
        if !lives {
            return;
        }
        if row.gone.is_some() {
            // Its registration was taken away: the listener ends.
            self.power_off_soon(runner);
            return;
        }
        row.online = Some(now);
        let name = row.name.clone();
        self.tell(format!("runner {name} ({runner}) is online"));
        self.after(100, 3000, Ev::Assign);
    }

    // ---- LXD moves ----

    pub fn power_off(&mut self, lxd: usize, name: String, runner: u64) {
        let Some(inst) = self.lxd[lxd].get_mut(&name).filter(|i| i.process == Some(runner)) else { return };
        if inst.hangs_until > self.now {
            let until = inst.hangs_until;
            self.at(until, Ev::PowerOff { lxd, name, runner });
            return;
        }
        inst.running = false;
        inst.process = None;
        inst.ended = true;
        let made = inst.made;
        self.tell(format!("instance {name} powers off"));
        if !self.fault(20) {
            self.after(50, 2000, Ev::SelfDelete { lxd, name, made });
        }
    }

    pub fn self_delete(&mut self, lxd: usize, name: &str, made: u64) {
        if self.lxd[lxd].get(name).is_some_and(|i| i.made == made && !i.running) {
            self.lxd[lxd].remove(name);
            self.tell(format!("instance {name} is gone"));
            for daemon in 0..self.daemons.len() {
                if self.daemons[daemon].lxd == lxd && self.rng.chance(500) {
                    self.fold(daemon, lxdrunner::world::Event::InstanceEnded);
                }
            }
        }
    }

    /// Takes an instance's processes away; whoever asks for that must have been careful.
    pub fn kill(&mut self, lxd: usize, name: &str, forced: bool) {
        let now = self.now;
        let Some(inst) = self.lxd[lxd].get_mut(name) else { return };
        if inst.owner.is_none() {
            self.fail(&format!("instance {name}, which is somebody else's, was stopped"));
        }
        inst.running = false;
        let Some(process) = inst.process.take() else { return };
        inst.ended = true;
        let row = self.github.runner(process);
        row.offline.get_or_insert(now);
        let job = row.job.map(|(_, job)| job);
        let Some(job) = job.filter(|job| self.github.job(*job).done.is_none()) else { return };
        if !forced {
            self.fail(&format!("instance {name} was stopped while its runner ran job {job}"));
        }
        self.github.job(job).done = Some(now);
        self.github.runner(process).gone = Some(now);
        self.webhook(job);
    }

    /// What a look at LXD by this life of this daemon finds.
    pub fn list(&mut self, daemon: usize) -> Result<Vec<InstanceSeen>, String> {
        let (lxd, life) = (self.daemons[daemon].lxd, self.daemons[daemon].life);
        if !self.lxd_up[lxd] || self.fault(self.faults.step) {
            return Err("LXD does not answer".to_owned());
        }
        let stranger = self.token && self.rng.chance(100);
        let maker = |owner: (usize, u32)| match self.maker(daemon, life, owner) {
            Maker::Dead | Maker::Other if stranger => Maker::Unknown,
            maker => maker,
        };
        let ours = self.lxd[lxd].iter().filter_map(|(name, i)| {
            Some(InstanceSeen {
                name: name.clone(),
                alias: i.alias.clone(),
                project: "default".to_owned(),
                class: i.class.clone(),
                scope: i.scope.clone(),
                job: i.job,
                runner_id: i.runner_key,
                phase: i.phase,
                recipe: i.recipe.clone(),
                status: i.status(),
                created_at: Some(Timestamp(i.made)),
                maker: maker(i.owner?),
                progress: i.noted.saturating_sub(i.made),
            })
        });
        Ok(ours.collect())
    }

    /// What a look at GitHub finds of runners; each listing may be late, may lie and may fail.
    pub fn ask_github(&mut self) -> GitHubSeen {
        let mut seen = GitHubSeen { targets: Some(Ok(self.config.targets.clone())), ..GitHubSeen::default() };
        for scope in self.config.targets.clone() {
            let (time, lie) = (self.lagged(), self.fault(self.faults.lie));
            let answer = match self.listing_fails() {
                true => Err("502".to_owned()),
                false => Ok(self.github.list(&scope, time, lie)),
            };
            seen.runners.push((scope, answer));
        }
        seen
    }

    /// What it finds in one repository's queue.
    pub fn ask_queue(&mut self, place: usize, begun: u64) -> Queue {
        let (asked_at, time) = (self.time(), self.lagged());
        let jobs = match self.listing_fails() {
            true => Err("502".to_owned()),
            false => Ok(self.github.open_jobs(place, time)),
        };
        Queue { repo: REPOS[place].parse().unwrap(), begun, asked_at, jobs, unasked: BTreeSet::new() }
    }

    /// How long GitHub takes to answer; a look asks one queue after the other.
    pub fn answer_takes(&mut self) -> u64 {
        if self.fault(self.faults.slow) { self.rng.range(5_000, 45_000) } else { self.rng.range(20, 1500) }
    }

    pub fn lagged(&mut self) -> u64 {
        if self.fault(self.faults.lag) { self.now - self.rng.range(0, 20_000) } else { self.now }
    }

    fn listing_fails(&mut self) -> bool {
        self.asked_of_the_day(Purpose::List) == Some(false)
            || self.github_refuses(Limit::Listings)
            || self.fault(self.faults.github)
    }

    pub fn github_fails(&mut self) -> bool {
        self.asked_of_the_day(Purpose::Ask) == Some(false)
            || self.github_refuses(Limit::Everything)
            || self.fault(self.faults.github)
    }

    // ---- the end ----

    /// Where nothing goes wrong, one runner a job is enough; one more for the name that is taken, and for each job that
    /// GitHub gave to a runner of the other class.
    pub fn check_thrift(&self) {
        let jobs = self.github.jobs.iter().filter(|j| j.ours()).count() as u64;
        let gpu = |labels: &Labels| labels.iter().any(|l| l == "gpu");
        let astray = |r: &&crate::github::RunnerRow| {
            let job = r.job.and_then(|(_, id)| self.github.jobs.iter().find(|j| j.id == id));
            job.is_some_and(|j| gpu(&r.labels) && !j.labels.contains(&"gpu"))
        };
        let enough = jobs + 1 + self.github.runners.iter().filter(astray).count() as u64;
        if self.quiet && self.faults.sick_runner == 0 && !self.power.was_cut() && self.totals.launches > enough {
            self.fail(&format!("{} launches for {jobs} jobs", self.totals.launches));
        }
    }

    pub fn clean(&self) -> Result<(), String> {
        if let Some(job) = self.github.jobs.iter().find(|j| j.ours() && j.done.is_none()) {
            return Err(format!("job {} of {} never ran to its end", job.id, scope_of(job.repo)));
        }
        for map in &self.lxd {
            let left = |i: &Inst| i.owner.is_some() && i.phase.has_runner() && !self.is_kept_idle(i);
            if let Some((name, _)) = map.iter().find(|(_, i)| left(i)) {
                return Err(format!("instance {name} is left"));
            }
            if map.values().filter(|i| i.owner.is_none()).count() != 2 {
                return Err("the instance or the image of somebody else is gone".to_owned());
            }
        }
        self.check_ready()?;
        let worlds = self.daemons.iter().filter_map(|process| process.world.as_ref());
        if let Some((what, entry)) = worlds.flat_map(|world| world.troubles()).find(|(what, _)| is_asked_again(what)) {
            return Err(format!("{what} is called failing still: {}", entry.reason));
        }
        let waits = |r: &&crate::github::RunnerRow| {
            self.lxd.iter().flat_map(|map| map.values()).any(|i| i.process == Some(r.id) && self.is_kept_idle(i))
        };
        match self.github.runners.iter().find(|r| r.by.is_some() && r.gone.is_none() && !waits(r)) {
            Some(left) => Err(format!("registration {} ({}) is left", left.name, left.id)),
            None => Ok(()),
        }
    }
}

/// True for what is asked for again and again, whether a job needs it or not.
fn is_asked_again(what: &Subject) -> bool {
    use Subject::{ForkOrigin, Lxd, Queue, Runners, Targets};

    matches!(what, Lxd | Targets | Runners(_) | Queue(_) | ForkOrigin(_))
}
