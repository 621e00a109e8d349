//! How each event changes what we know.

use std::time::Duration;

use super::matching::place;
use super::{
    Action, Blame, Event, Flight, GitHubSeen, Hint, Instance, InstanceSeen, JOB_LIFETIME, JobState, LISTING_LAG,
    MAX_JOBS, Note, Outcome, Pause, REMEMBER_OVER, RunnerState, Snapshot, Status, World, pause_after,
};
use crate::config::Config;
use crate::model::{Job, JobId, JobStatus, Phase, RepoName, Runner, Scope, Timestamp};

/// The longest pause between two tries of what failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause before another runner is launched for a job whose runners ended without a job.
const LONGEST_WASTE_PAUSE: Duration = Duration::from_secs(600);
/// A clash means that somebody else is at it; he is given this long.
const STAND_BACK: Duration = Duration::from_secs(60);

impl World {
    /// Takes an event in. What it returns is for people; decisions are [`crate::plan::plan`]'s.
    pub fn fold(&mut self, event: Event, config: &Config, now: Timestamp) -> Vec<Note> {
        self.seq += 1;
        let mut notes = Vec::new();
        match event {
            Event::Hint(hint) => self.fold_hint(hint, config, now, &mut notes),
            Event::HintsLost => self.github_look.wanted = true,
            Event::Snapshot(snapshot) => self.fold_snapshot(*snapshot, config, now, &mut notes),
            Event::Outcome(action, outcome) => {
                self.flights.remove(&action.flight());
                self.fold_outcome(action, outcome, config, now, &mut notes);
            }
        }
        notes
    }

    fn fold_hint(&mut self, hint: Hint, config: &Config, now: Timestamp, notes: &mut Vec<Note>) {
        match hint {
            Hint::Job(job) => self.fold_job(job, config, now, notes),
            Hint::CheckRun { repo, job, completed: false } => {
                if !self.jobs.contains_key(&job) && !self.over.contains_key(&job) && self.unknown_jobs.len() < MAX_JOBS
                {
                    self.unknown_jobs.insert(job, (repo, now));
                }
            }
            Hint::CheckRun { job, completed: true, .. } => self.job_is_over(job, now, notes),
            Hint::LookAt(repo) => {
                if self.look_at.len() < MAX_JOBS {
                    self.look_at.insert(repo, now);
                }
            }
            Hint::Ping => {}
        }
    }

    fn fold_job(&mut self, job: Job, config: &Config, now: Timestamp, notes: &mut Vec<Note>) {
        self.unknown_jobs.remove(&job.id);
        match job.status {
            JobStatus::Queued => self.job_is_queued(job, config, now, notes),
            JobStatus::Waiting => {
                self.jobs.remove(&job.id);
            }
            JobStatus::InProgress => {
                if !self.over.contains_key(&job.id) {
                    self.job_is_taken(job, config, now, notes);
                }
            }
            JobStatus::Completed => {
                if let Some(runner) = &job.runner_name {
                    self.runner_had_its_job(runner, now);
                }
                self.job_is_over(job.id, now, notes);
            }
        }
    }

    fn job_is_queued(&mut self, job: Job, config: &Config, now: Timestamp, notes: &mut Vec<Note>) {
        if self.over.contains_key(&job.id) {
            return;
        }
        let seq = self.seq;
        if let Some(known) = self.jobs.get_mut(&job.id) {
            // A job never goes back from a runner to the queue: this delivery is late.
            if known.job.status == JobStatus::Queued {
                known.heard_at = now;
                known.touched = seq;
                if known.job.public.is_none() && job.public.is_some() {
                    known.job.public = job.public;
                    known.place = place(&known.job, self.targets.as_deref(), config);
                }
            }
            return;
        }
        if self.jobs.len() >= MAX_JOBS {
            self.github_look.wanted = true;
            return;
        }
        let place = place(&job, self.targets.as_deref(), config);
        if let Some((scope, class)) = place.as_ref().ok().and_then(|(s, c)| Some((s, config.classes.get(*c)?))) {
            notes.push(Note::JobQueued {
                job: job.id,
                repo: job.repo.to_string(),
                class: class.name.clone(),
                scope: scope.clone(),
                name: job.name.clone(),
            });
        }
        // GitHub's clock and ours differ: nobody gets ahead by coming from the future.
        let queued_at = job.created_at.unwrap_or(now).min(now);
        let state = JobState { job, place, queued_at, not_before: None, wasted: 0, heard_at: now, touched: seq };
        self.jobs.insert(state.job.id, state);
    }

    fn job_is_taken(&mut self, job: Job, config: &Config, now: Timestamp, notes: &mut Vec<Note>) {
        let runner = job.runner_name.clone().unwrap_or_default();
        let ours = match self.instances.get_mut(&runner) {
            Some(instance) => {
                instance.touched = self.seq;
                instance.took_job = true;
                instance.started_at.get_or_insert(now);
                if !matches!(instance.runner, RunnerState::Done(_)) {
                    instance.runner = RunnerState::Busy;
                }
                true
            }
            None => false,
        };
        let was = self.jobs.remove(&job.id);
        if was.as_ref().is_some_and(|w| w.job.status == JobStatus::Queued && w.place.is_ok()) || (was.is_none() && ours)
        {
            notes.push(Note::JobTaken { job: job.id, runner, ours });
        }
        let state = JobState {
            place: place(&job, self.targets.as_deref(), config),
            queued_at: was.as_ref().map_or(now, |w| w.queued_at),
            not_before: None,
            wasted: 0,
            heard_at: now,
            touched: self.seq,
            job,
        };
        if self.jobs.len() < MAX_JOBS {
            self.jobs.insert(state.job.id, state);
        }
    }

    fn runner_had_its_job(&mut self, runner: &str, now: Timestamp) {
        if let Some(instance) = self.instances.get_mut(runner) {
            instance.touched = self.seq;
            instance.took_job = true;
            if !matches!(instance.runner, RunnerState::Done(_)) {
                instance.runner = RunnerState::Done(now);
            }
            self.lxd_look.wanted = true;
        }
    }

    fn job_is_over(&mut self, job: JobId, now: Timestamp, notes: &mut Vec<Note>) {
        self.unknown_jobs.remove(&job);
        let was = self.jobs.remove(&job);
        if was.is_some_and(|w| w.place.is_ok()) {
            let ours = self.instances.values().any(|i| i.seen.job == Some(job));
            notes.push(Note::JobOver { job, ours });
        }
        if self.over.len() < MAX_JOBS {
            self.over.insert(job, now);
        }
    }

    fn fold_snapshot(&mut self, snapshot: Snapshot, config: &Config, now: Timestamp, notes: &mut Vec<Note>) {
        let look = if snapshot.github.is_some() { &mut self.github_look } else { &mut self.lxd_look };
        look.under_way = false;
        look.ended_at = Some(now);
        let listed = snapshot.instances.is_some();
        match snapshot.instances {
            Some(Ok(seen)) => {
                self.recovered("lxd", notes);
                self.lxd = Some(Ok(now));
                self.fold_instances(snapshot.begun, seen, now, notes);
            }
            Some(Err(reason)) => {
                self.trouble("lxd", &reason, notes);
                self.lxd = Some(Err(reason));
            }
            None => {}
        }
        if let Some(github) = snapshot.github {
            debug_assert!(listed, "instances are listed before runners");
            self.fold_github(snapshot.begun, github, config, now, notes);
        }
        self.forget(now);
    }

    /// Something that fails is told once, until it works again.
    fn trouble(&mut self, what: &str, reason: &str, notes: &mut Vec<Note>) {
        if self.troubles.insert(what.to_owned()) {
            notes.push(Note::Trouble { what: what.to_owned(), reason: reason.to_owned() });
        }
    }

    fn recovered(&mut self, what: &str, notes: &mut Vec<Note>) {
        if self.troubles.remove(what) {
            notes.push(Note::Recovered { what: what.to_owned() });
        }
    }

    fn fold_instances(&mut self, begun: u64, seen: Vec<InstanceSeen>, now: Timestamp, notes: &mut Vec<Note>) {
        let listed: std::collections::BTreeSet<String> = seen.iter().map(|i| i.name.clone()).collect();
        for seen in seen {
            match self.instances.get_mut(&seen.name) {
                Some(known) if known.touched > begun => {}
                Some(known) => {
                    if seen.phase == Phase::Started {
                        known.started_at.get_or_insert(now);
                    }
                    let runner_id = seen.runner_id.or(known.seen.runner_id);
                    known.seen = InstanceSeen { runner_id, ..seen };
                    known.stopped_since = match known.seen.status {
                        Status::Stopped => known.stopped_since.or(Some(now)),
                        _ => None,
                    };
                }
                None => {
                    let started_at = (seen.phase == Phase::Started).then_some(now);
                    let instance = Instance {
                        runner: RunnerState::Awaited,
                        first_seen: now,
                        started_at,
                        stopped_since: (seen.status == Status::Stopped).then_some(now),
                        took_job: false,
                        leave_until: None,
                        failures: 0,
                        touched: begun,
                        seen,
                    };
                    self.instances.insert(instance.seen.name.clone(), instance);
                }
            }
        }
        let gone = |i: &Instance| !listed.contains(&i.seen.name) && i.touched <= begun;
        let gone: Vec<String> = self.instances.values().filter(|i| gone(i)).map(|i| i.seen.name.clone()).collect();
        for name in gone {
            if !self.flights.contains_key(&Flight::Instance(name.clone())) {
                self.instance_is_gone(&name, now, notes);
            }
        }
    }

    fn instance_is_gone(&mut self, name: &str, now: Timestamp, notes: &mut Vec<Note>) {
        let Some(gone) = self.instances.remove(name) else { return };
        let took_job = gone.took_job;
        notes.push(Note::InstanceGone { instance: name.to_owned(), job: gone.seen.job, took_job });
        if took_job || gone.started_at.is_none() {
            return;
        }
        // Its runner ended without a job that we know of. Where the job still waits, something may be wrong with
        // the runner itself: the next one waits a little longer each time.
        let waiting = gone.seen.job.and_then(|job| self.jobs.get_mut(&job));
        if let Some(job) = waiting.filter(|j| j.job.status == JobStatus::Queued) {
            job.wasted += 1;
            job.not_before = Some(now.after(pause_after(job.wasted, LONGEST_WASTE_PAUSE)));
        }
    }

    fn fold_github(&mut self, begun: u64, seen: GitHubSeen, config: &Config, now: Timestamp, notes: &mut Vec<Note>) {
        match seen.targets {
            Some(Ok(targets)) => {
                self.recovered("github targets", notes);
                if self.targets.as_deref() != Some(&targets) {
                    self.targets = Some(targets);
                    for job in self.jobs.values_mut() {
                        job.place = place(&job.job, self.targets.as_deref(), config);
                    }
                }
            }
            Some(Err(reason)) => self.trouble("github targets", &reason, notes),
            None => {}
        }
        for (scope, runners) in seen.runners {
            let what = format!("github runners of {scope}");
            match runners {
                Ok(runners) => {
                    self.recovered(&what, notes);
                    self.fold_runners(begun, scope, runners, now);
                }
                Err(reason) => {
                    self.trouble(&what, &reason, notes);
                    self.scopes.entry(scope).or_default().runners = None;
                }
            }
        }
        for (repo, jobs) in seen.jobs {
            let what = format!("github jobs of {repo}");
            match jobs {
                Ok(jobs) => {
                    self.recovered(&what, notes);
                    self.fold_jobs(begun, &repo, jobs, config, now, notes);
                }
                Err(reason) => self.trouble(&what, &reason, notes),
            }
        }
    }

    fn fold_runners(&mut self, begun: u64, scope: Scope, runners: Vec<Runner>, now: Timestamp) {
        let by_name: std::collections::BTreeMap<&str, &Runner> = runners.iter().map(|r| (r.name.as_str(), r)).collect();
        for instance in self.instances.values_mut() {
            if instance.seen.scope.as_ref() != Some(&scope) || instance.touched > begun {
                continue;
            }
            let runner = by_name.get(instance.seen.name.as_str());
            if let Some(runner) = runner {
                instance.seen.runner_id = Some(runner.id);
                if runner.online {
                    instance.started_at.get_or_insert(now);
                }
                if runner.busy {
                    instance.took_job = true;
                }
            }
            instance.runner = match (runner, instance.runner) {
                (Some(r), _) if r.busy => RunnerState::Busy,
                (Some(r), RunnerState::Idle(since)) if r.online => RunnerState::Idle(since),
                (Some(r), _) if r.online => RunnerState::Idle(now),
                (Some(_), RunnerState::Idle(_)) => RunnerState::Awaited,
                (Some(_), before) => before,
                (None, RunnerState::Idle(_) | RunnerState::Busy) => RunnerState::Done(now),
                (None, before) => before,
            };
        }
        let view = self.scopes.entry(scope).or_default();
        let was = std::mem::take(&mut view.offline_since);
        for runner in runners.iter().filter(|r| !r.online && !r.busy) {
            let since = was.get(&runner.name).copied().unwrap_or(now);
            view.offline_since.insert(runner.name.clone(), since);
        }
        view.runners = Some(runners);
    }

    /// A repository's open jobs, whole: what is not among them is not open any more.
    fn fold_jobs(
        &mut self,
        begun: u64,
        repo: &RepoName,
        jobs: Vec<Job>,
        config: &Config,
        now: Timestamp,
        notes: &mut Vec<Note>,
    ) {
        let open: std::collections::BTreeSet<JobId> = jobs.iter().map(|j| j.id).collect();
        for job in jobs {
            if self.jobs.get(&job.id).is_some_and(|known| known.touched > begun) {
                continue;
            }
            if job.status == JobStatus::Queued {
                self.believe_listing(job.id, now);
            }
            self.fold_job(job, config, now, notes);
        }
        let stale = |job: &&JobState| {
            let unheard = now.since(job.heard_at) > LISTING_LAG;
            &job.job.repo == repo && !open.contains(&job.job.id) && job.touched <= begun && unheard
        };
        let closed: Vec<JobId> = self.jobs.values().filter(stale).map(|j| j.job.id).collect();
        for job in closed {
            self.job_is_over(job, now, notes);
        }
    }

    /// GitHub lists as queued what we take for taken or over. Within the time that its listings lag, we know better;
    /// after that, it does.
    fn believe_listing(&mut self, job: JobId, now: Timestamp) {
        let lagging = |at: Timestamp| now.since(at) <= LISTING_LAG;
        if self.over.get(&job).is_some_and(|at| !lagging(*at)) {
            self.over.remove(&job);
        }
        if self.jobs.get(&job).is_some_and(|j| j.job.status != JobStatus::Queued && !lagging(j.heard_at)) {
            self.jobs.remove(&job);
        }
    }

    /// Lets go of what is too old to matter.
    fn forget(&mut self, now: Timestamp) {
        self.over.retain(|_, at| now.since(*at) < REMEMBER_OVER);
        self.jobs.retain(|_, job| now.since(job.heard_at.max(job.queued_at)) < JOB_LIFETIME);
        self.taken.retain(|_, at| now.since(*at) < Duration::from_secs(600));
        self.unknown_jobs.retain(|_, (_, at)| now.since(*at) < Duration::from_secs(600));
        self.look_at.retain(|_, at| now.since(*at) < Duration::from_secs(600));
    }

    fn fold_outcome(
        &mut self,
        action: Action,
        outcome: Outcome,
        config: &Config,
        now: Timestamp,
        notes: &mut Vec<Note>,
    ) {
        match action {
            Action::Launch { job, class, scope, name } => {
                self.fold_launch(Launched { job, class, scope, name }, outcome, config, now, notes);
            }
            Action::Remove { name, .. } => self.fold_removal(&name, outcome, now, notes),
            Action::Deregister { scope, runner, name } => match outcome {
                Outcome::Deregistered => {
                    if let Some(view) = self.scopes.get_mut(&scope) {
                        view.offline_since.remove(&name);
                        view.runners.iter_mut().for_each(|list| list.retain(|r| r.id != runner));
                    }
                    notes.push(Note::Deregistered { runner: name, scope });
                }
                Outcome::Kept { why } => {
                    self.scopes.entry(scope).or_default().offline_since.remove(&name);
                    notes.push(Note::Kept { instance: name, why });
                }
                other => {
                    // Looked at again after as long as it took to call it dead.
                    self.scopes.entry(scope.clone()).or_default().offline_since.insert(name, now);
                    if let Outcome::LookFailed { reason } | Outcome::RemoveFailed { reason } = other {
                        self.trouble(&format!("github runners of {scope}"), &reason, notes);
                    }
                }
            },
            Action::FetchPackage { arch, .. } => match outcome {
                Outcome::PackageReady { version } => {
                    self.pauses.remove(&Blame::Package(arch));
                    let state = self.packages.entry(arch).or_default();
                    let news = state.version.as_deref() != Some(&version);
                    state.version = Some(version.clone());
                    state.checked_at = Some(now);
                    notes.push(Note::PackageReady { version, arch: arch.as_str(), news });
                }
                Outcome::PackageFailed { reason } => {
                    let what = format!("runner package linux-{arch}");
                    if self.pause(Blame::Package(arch), &reason, now).1 {
                        notes.push(Note::Trouble { what, reason });
                    }
                }
                _ => {}
            },
            Action::LookUpJob { repo, job } => {
                self.unknown_jobs.remove(&job);
                match outcome {
                    Outcome::JobFound(Some(found)) => self.fold_job(*found, config, now, notes),
                    Outcome::JobFound(None) => {}
                    Outcome::LookFailed { reason } => {
                        self.github_look.wanted = true;
                        notes.push(Note::LookFailed { what: format!("job {job} of {repo}"), reason });
                    }
                    _ => {}
                }
            }
            Action::LookAtRepo { repo } => {
                self.look_at.remove(&repo);
                match outcome {
                    Outcome::JobsFound(jobs) => {
                        jobs.into_iter().for_each(|job| self.fold_job(job, config, now, notes));
                    }
                    Outcome::LookFailed { reason } => {
                        self.github_look.wanted = true;
                        notes.push(Note::LookFailed { what: format!("queue of {repo}"), reason });
                    }
                    _ => {}
                }
            }
        }
    }

    fn fold_launch(
        &mut self,
        launch: Launched,
        outcome: Outcome,
        config: &Config,
        now: Timestamp,
        notes: &mut Vec<Note>,
    ) {
        let Launched { job, class, scope, name } = launch;
        let class = config.classes.get(class);
        let class_name = class.map(|c| c.name.clone()).unwrap_or_default();
        let remember = |world: &mut World, phase: Phase, runner_id| {
            let seq = world.seq;
            let instance = world.instances.entry(name.clone()).or_insert_with(|| Instance {
                seen: InstanceSeen {
                    name: name.clone(),
                    project: class.map(|c| c.project.clone()).unwrap_or_default(),
                    class: class_name.clone(),
                    scope: Some(scope.clone()),
                    job: Some(job),
                    runner_id,
                    phase,
                    status: Status::Running,
                    created_at: None,
                    maker: crate::identity::Maker::Us,
                },
                runner: RunnerState::Awaited,
                first_seen: now,
                started_at: None,
                stopped_since: None,
                took_job: false,
                leave_until: None,
                failures: 0,
                touched: seq,
            });
            instance.seen.phase = phase;
            instance.seen.runner_id = runner_id.or(instance.seen.runner_id);
            instance.touched = seq;
            if phase == Phase::Started {
                instance.started_at.get_or_insert(now);
            }
        };
        match outcome {
            Outcome::Launched { runner } => {
                remember(self, Phase::Started, runner);
                self.pauses.remove(&Blame::Class(class_name));
                self.pauses.remove(&Blame::Scope(scope.clone()));
                self.pauses.remove(&Blame::Host);
                notes.push(Note::Launched { instance: name, job });
            }
            Outcome::Clash { reason } => {
                // Whoever has it gets time to bring it up; what he made shows in the next look.
                if let Some(state) = self.jobs.get_mut(&job) {
                    state.not_before = Some(now.after(STAND_BACK));
                }
                self.taken.insert(name.clone(), now);
                self.lxd_look.wanted = true;
                self.github_look.wanted = true;
                notes.push(Note::Clash { instance: name, job, reason });
            }
            Outcome::LaunchFailed { blame, reason, made } => {
                if made {
                    remember(self, Phase::Provisioning, None);
                }
                let (until, news) = self.pause(blame.clone(), &reason, now);
                notes.push(Note::LaunchFailed { instance: name, job, blame, reason, until, news });
            }
            _ => {}
        }
    }

    /// One more failure of this kind: until when to pause, and whether the reason is news.
    fn pause(&mut self, blame: Blame, reason: &str, now: Timestamp) -> (Timestamp, bool) {
        let before = self.pauses.get(&blame);
        let news = before.is_none_or(|p| p.reason != reason);
        // Several launches that were under way together and failed together are one failure.
        let failures = match before {
            Some(p) if p.until > now => p.failures,
            Some(p) => p.failures + 1,
            None => 1,
        };
        let until = now.after(pause_after(failures, LONGEST_PAUSE));
        self.pauses.insert(blame, Pause { until, failures, reason: reason.to_owned() });
        (until, news)
    }

    fn fold_removal(&mut self, name: &str, outcome: Outcome, now: Timestamp, notes: &mut Vec<Note>) {
        match outcome {
            Outcome::Removed => self.instance_is_gone(name, now, notes),
            Outcome::Kept { why } => {
                if let Some(instance) = self.instances.get_mut(name) {
                    instance.leave_until = Some(now.after(LONGEST_PAUSE));
                    instance.touched = self.seq;
                }
                notes.push(Note::Kept { instance: name.to_owned(), why });
            }
            Outcome::RemoveFailed { reason } => {
                if let Some(instance) = self.instances.get_mut(name) {
                    instance.failures += 1;
                    let until = now.after(pause_after(instance.failures, LONGEST_WASTE_PAUSE));
                    instance.leave_until = Some(until);
                    let failures = instance.failures;
                    notes.push(Note::RemoveFailed { instance: name.to_owned(), reason, failures, until });
                }
            }
            _ => {}
        }
    }
}

/// A launch whose outcome came.
struct Launched {
    job: JobId,
    class: usize,
    scope: Scope,
    name: String,
}
