//! Why a job runs, waits or is not ours, and what happens next: one line, then details. **Pure**: it uses the daemon's own
//! [`plan`], so the two cannot differ.

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::config::{Class, ForkPolicy};
use crate::model::{ClassId, Hint, Job, JobId, JobStatus, Phase, RunOrigin, Scope, Timestamp};
use crate::plan::{Group, LAUNCHES_AT_ONCE, Plan, Planner, Reason, plan};
use crate::world::{
    Action, Event, Instance, JobState, Launch, LaunchSource, RunnerState, Subject, World, class_for, scope_for,
};

/// What there is to say of a job. Prints the one line first, then each detail in a line of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// The answer in one line.
    pub summary: String,
    /// What it is about, and what there is to say of that.
    pub details: Vec<(&'static str, String)>,
}

impl Explanation {
    fn say(&mut self, about: &'static str, text: impl Into<String>) {
        self.details.push((about, text.into()));
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, rest) = self.summary.split_once('\n').unwrap_or((&self.summary, ""));
        // What a script printed is told once, in the details.
        write!(f, "{first}{}", if rest.is_empty() { "" } else { " …" })?;
        let below = format!("\n{:12}", "");
        self.details.iter().try_for_each(|(about, text)| {
            write!(f, "\n  {:<9} {}", format!("{about}:"), text.trim_end().replace('\n', &below))
        })
    }
}

/// Explains a job. `told` is what GitHub says of it now, where somebody asked: it serves where the job was not heard of.
pub fn explain(world: &World, now: Timestamp, id: JobId, told: Option<&Job>) -> Explanation {
    let mut all = Explanation::default();
    let heard = world.jobs.get(&id).map(|state| state.job.status);
    let unheard = heard.is_none();
    match told {
        // The delivery that tells the same is on its way, or was lost.
        Some(told) if heard.is_some_and(|heard| stage(told.status) > stage(heard)) => elsewhere(world, told, &mut all),
        Some(told) if unheard && told.status == JobStatus::Queued && !world.is_over(id) => {
            // What would be done if a delivery came now.
            let mut heard = world.clone();
            heard.fold(Event::Hint(Hint::Job(told.clone())), now);
            let look = world.github_look.ended_at.map(|at| at.after(world.config().reconcile_interval));
            let when = look.map_or_else(
                || "the next look at GitHub".to_owned(),
                |at| format!("the look at GitHub {}", at_in(at, now)),
            );
            all.say("heard", format!("no delivery told of it yet, what follows is as if one did; {when} may find it"));
            known(&heard, now, id, &mut all);
        }
        _ if !unheard => known(world, now, id, &mut all),
        Some(told) => elsewhere(world, told, &mut all),
        None if world.is_over(id) => all.summary = format!("job {id} is over"),
        None => all.summary = format!("job {id}: nothing was heard of it, and GitHub was not asked"),
    }
    all
}

/// How far a job is: it never goes back.
fn stage(status: JobStatus) -> u8 {
    match status {
        JobStatus::Queued | JobStatus::Waiting => 0,
        JobStatus::InProgress => 1,
        JobStatus::Completed => 2,
    }
}

/// A job that waits for no runner, as GitHub tells it.
fn elsewhere(world: &World, job: &Job, all: &mut Explanation) {
    let id = job.id;
    all.summary = match (job.status, job.runner_name.as_deref()) {
        (JobStatus::InProgress, Some(runner)) => runs_on(world, id, runner),
        (JobStatus::InProgress, None) => format!("job {id} runs"),
        (JobStatus::Completed, Some(runner)) => format!("job {id} is over; {runner} ran it"),
        (JobStatus::Completed, None) => format!("job {id} is over; no runner ever had it"),
        (JobStatus::Waiting, _) => {
            format!("job {id} waits at GitHub for something else than a runner: an approval, or its concurrency group")
        }
        (JobStatus::Queued, _) => format!(
            "job {id} is over, as GitHub told before; it says now that the job is queued, and the next look at GitHub decides"
        ),
    };
    about(job, None, all);
}

fn runs_on(world: &World, id: JobId, runner: &str) -> String {
    match world.instances.contains_key(runner) {
        true => format!("job {id} runs on {runner}, an instance of ours"),
        false => format!("job {id} runs on {runner}, a runner of others"),
    }
}

fn about(job: &Job, since: Option<(Timestamp, Timestamp)>, all: &mut Explanation) {
    let waits = since.map(|(at, now)| format!(", queued {} ago", length(now.since(at)))).unwrap_or_default();
    all.say("job", format!("{:?} of {}, run {}{waits}", job.name, job.repo, job.run_id));
}

fn known(world: &World, now: Timestamp, id: JobId, all: &mut Explanation) {
    let Some(state) = world.jobs.get(&id) else { return };
    let job = &state.job;
    if job.status != JobStatus::Queued {
        return elsewhere(world, job, all);
    }
    let plan = plan(world, now);
    all.summary = summary(world, now, state, &plan);
    about(job, Some((state.queued_at, now)), all);
    matches(world, job, all);
    guard(world, job, all);
    if let Ok((scope, id)) = &state.place {
        let class = world.config().class(*id);
        let planner = Planner::new(world, now);
        line(world, state, scope, class, all);
        supply(world, now, (scope, *id), class, all);
        caps(&planner, *id, all);
        source(&planner, *id, all);
        obstacles(world, now, scope, class, all);
    }
    next(world, now, state, &plan, all);
}

fn summary(world: &World, now: Timestamp, state: &JobState, plan: &Plan) -> String {
    let id = state.job.id;
    let of = |action: &&Action| matches!(action, Action::Launch(Launch { job, .. }) if *job == Some(id));
    if let Some(Action::Launch(Launch { name, .. })) = world.flights.values().find(of) {
        return format!("job {id} is being served: instance {name} is being made for it");
    }
    if let Some(Action::Launch(Launch { name, .. })) = plan.actions.iter().find(of) {
        return format!("job {id} is next: instance {name} is made for it now");
    }
    match plan.deferred.iter().find(|(job, _)| *job == id).map(|(_, reason)| reason) {
        Some(Reason::Refused(refusal)) if refusal.is_undecided() => format!("job {id} waits: {refusal}"),
        Some(Reason::Refused(refusal)) => format!("job {id} is not served here: {refusal}"),
        Some(Reason::Covered) => match overdue(world, now, state) {
            Some(name) => format!(
                "job {id} waits at GitHub: runner {name} fits and has been idle for long; see whether its runner group lets \
                 {} in",
                state.job.repo
            ),
            None => format!("job {id} waits for a runner that is on its way, or for GitHub to give it to an idle one"),
        },
        Some(reason) => format!("job {id} waits: {reason}"),
        None => format!("job {id} waits, and nothing is known of why"),
    }
}

/// GitHub gives a job to an idle runner within seconds; after this something keeps it from doing so.
const SOON: Duration = Duration::from_secs(60);

/// A runner that could have taken the job long ago.
fn overdue<'a>(world: &'a World, now: Timestamp, state: &JobState) -> Option<&'a str> {
    let (scope, class) = state.place.as_ref().ok()?;
    let class = world.config().class(*class);
    let idle_long = |i: &&Instance| match i.runner {
        RunnerState::Idle(since) => now.since(since.max(state.queued_at)) > SOON,
        _ => false,
    };
    let of_class = world.instances.values().filter(|i| is_of(i, scope, class));
    of_class.filter(idle_long).map(|i| i.seen.name.as_str()).next()
}

fn is_of(instance: &Instance, scope: &Scope, class: &Class) -> bool {
    instance.seen.scope.as_ref() == Some(scope) && instance.seen.class == class.name
}

/// What each class has of what it asks for.
fn matches(world: &World, job: &Job, all: &mut Explanation) {
    let config = world.config();
    let group_only = job.labels.is_empty();
    all.say("runs-on", if group_only { "a runner group, and no label".to_owned() } else { job.labels.to_string() });
    let chosen = class_for(&config.classes, &job.labels, &job.repo).ok();
    for (id, class) in config.class_ids() {
        let lacks = job.labels.missing_from(&class.labels);
        let surplus = class.labels.len().saturating_sub(job.labels.len());
        let text = match (lacks.is_empty(), class.repos.judge(&job.repo)) {
            _ if group_only && !class.has_own_group() => "has no runner_group of its own".to_owned(),
            (_, Ok(())) if group_only && chosen == Some(id) => {
                format!("takes it: has the only runner_group of its own, {:?}", class.runner_group)
            }
            (_, Ok(())) if group_only => format!("could be meant: its runner_group is {:?}", class.runner_group),
            _ if chosen == Some(id) => format!("takes it: has all its labels and {surplus} more"),
            (false, _) => format!("lacks {lacks}"),
            (true, Err(Some(glob))) => format!("has its labels, but its repos deny {}", glob.as_str()),
            (true, Err(None)) => format!("has its labels, but its repos do not name {}", job.repo),
            (true, Ok(())) => format!("could take it, and has {surplus} labels more: another one fits better"),
        };
        all.say("class", format!("{:?} {text}", class.name));
    }
}

/// Whether it is let in.
fn guard(world: &World, job: &Job, all: &mut Explanation) {
    let config = world.config();
    let scope = match world.targets.as_deref() {
        None => "not known yet: GitHub has not told what the credential may serve".to_owned(),
        Some(targets) => match scope_for(targets, &job.repo) {
            Some(scope) => format!("{scope}: its runners register there"),
            None => format!("none: {} is not among the {} targets", job.repo, targets.len()),
        },
    };
    all.say("scope", scope);
    let seen = match (job.public, config.allow_public_repos) {
        (Some(false), _) => "private",
        (Some(true), true) => "public, which allow_public_repos allows",
        (Some(true), false) => "public, which is refused without allow_public_repos",
        (None, true) => "public or private is not known, and counts as public",
        (None, false) => "public or private is not known yet",
    };
    let rules = match config.repos.judge(&job.repo) {
        Ok(()) if config.repos == Default::default() => String::new(),
        Ok(()) => ", let in by repos".to_owned(),
        Err(Some(glob)) => format!(", kept out by repos: deny {}", glob.as_str()),
        Err(None) => ", not named by repos".to_owned(),
    };
    all.say("repo", format!("{seen}{rules}"));
    let policy = match ForkPolicy::holds(config.fork_policy, job.public != Some(false)) {
        ForkPolicy::Allow => "allow",
        ForkPolicy::Members => "members",
        ForkPolicy::Deny => "deny",
    };
    let run = world.runs.get(&(job.repo.clone(), job.run_id));
    let origin = match run.map(|run| &run.origin) {
        None if policy == "allow" => "where its commits come from does not matter".to_owned(),
        None | Some(None) => match world.failures.get(&Subject::ForkOrigin(job.repo.clone())) {
            Some(entry) => format!("where its commits come from is not known: {}", entry.reason),
            None => "where its commits come from is not known yet".to_owned(),
        },
        Some(Some(RunOrigin::Own)) => "its commits come from the repository itself".to_owned(),
        Some(Some(RunOrigin::Hidden)) => "GitHub does not tell where its commits come from".to_owned(),
        Some(Some(RunOrigin::Fork { from, trust: Ok(()) })) => format!("its commits come from {from}, by a member"),
        Some(Some(RunOrigin::Fork { from, trust: Err(why) })) => format!("its commits come from {from}: {why}"),
    };
    all.say("forks", format!("fork_policy {policy}: {origin}"));
}

/// Who else waits.
fn line(world: &World, state: &JobState, scope: &Scope, class: &Class, all: &mut Explanation) {
    let beside = |other: &&JobState| other.job.status == JobStatus::Queued && other.place == state.place;
    let waiting = world.jobs.values().filter(beside);
    let before = |other: &&JobState| (other.queued_at, other.job.id) < (state.queued_at, state.job.id);
    let (total, ahead) = waiting.fold((0, 0), |(all, ahead), other| (all + 1, ahead + usize::from(before(&other))));
    all.say("line", format!("number {} of {total} that wait for class {:?} in {scope}", ahead + 1, class.name));
    all.say("group", format!("runners register in the group {:?} of {scope}", class.runner_group));
}

/// The runners that may get it.
fn supply(world: &World, now: Timestamp, (scope, place): Group<'_>, class: &Class, all: &mut Explanation) {
    let instances = world.instances.values().filter(|i| is_of(i, scope, class));
    for instance in instances {
        let age = length(now.since(instance.made_at));
        let how = match (instance.runner, instance.seen.phase) {
            (runner, _) if runner != RunnerState::Busy && world.failed_removal(instance).is_some() => {
                "it is to go, and could not be removed yet: lxdrunner status and the log tell why".to_owned()
            }
            (RunnerState::Idle(since), _) => format!("its runner is idle since {}", length(now.since(since))),
            (RunnerState::Awaited, Phase::Started) => "its runner is started and not online yet".to_owned(),
            (RunnerState::Awaited, _) => "it is being prepared".to_owned(),
            (RunnerState::Busy, _) => "its runner has a job".to_owned(),
            (RunnerState::Done(_), _) => "its runner is done".to_owned(),
        };
        all.say("instance", format!("{}: {how}; made {age} ago", instance.seen.name));
    }
    for action in world.flights.values() {
        if let Action::Launch(Launch { name, class: of, scope: at, job, from }) = action
            && (at, *of) == (scope, place)
            && !world.instances.contains_key(name)
        {
            let why = job.map_or_else(|| "to be kept idle".to_owned(), |job| format!("for job {job}"));
            all.say("instance", format!("{name}: is being made from the {}, {why}", from.as_str()));
        }
    }
}

fn caps(planner: &Planner, id: ClassId, all: &mut Explanation) {
    let (census, config, class) = (&planner.census, planner.config, planner.config.class(id));
    let own = census.classes[id].total;
    let launching = census.launching;
    all.say(
        "caps",
        format!(
            "{} of {} instances; {own} of {} of class {:?}; {launching} of {LAUNCHES_AT_ONCE} launches under way",
            census.total, config.max_workers, class.max_workers, class.name
        ),
    );
}

/// What the next instance would come from.
fn source(planner: &Planner, id: ClassId, all: &mut Explanation) {
    let (standbys, class) = (planner.census.classes[id].standbys.len(), planner.config.class(id));
    let text = match planner.origin(id) {
        Some(LaunchSource::Standby { .. }) => format!("one of {standbys} standbys of class {:?}", class.name),
        Some(LaunchSource::Template(template)) => {
            let known = planner.world.instances.get(template.id());
            format!("the template {}", known.map_or(template.id(), Instance::label))
        }
        Some(LaunchSource::Image) => "the image".to_owned(),
        None => "nothing now, see paused and package".to_owned(),
    };
    all.say("from", text);
}

/// What does not work.
fn obstacles(world: &World, now: Timestamp, scope: &Scope, class: &Class, all: &mut Explanation) {
    let of_class = [Subject::Storage, Subject::Network, Subject::Class, Subject::Template, Subject::Standby];
    let of_class = of_class.map(|subject| subject(class.name.clone()));
    let blames = [Subject::Host, Subject::Scope(scope.clone())].into_iter().chain(of_class);
    for what in blames.chain([Subject::Package(class.arch)]) {
        if let Some(pause) = world.failures.get(&what) {
            let until = world.paused(&what, now).map(|(until, _)| at_in(until, now));
            let when = until.unwrap_or_else(|| "now, with one launch".to_owned());
            let times = if pause.failures == 1 { "once".to_owned() } else { format!("{} times", pause.failures) };
            all.say("paused", format!("{what} failed {times}, tried again {when}: {}", pause.reason));
        }
    }
    let package = world.packages.get(&class.arch).and_then(|p| p.version.as_deref());
    all.say(
        "package",
        match package {
            Some(version) => format!("runner {version} for linux-{} is here", class.arch),
            None => format!("the runner for linux-{} is not here yet", class.arch),
        },
    );
    for (what, entry) in world.troubles() {
        all.say("trouble", format!("{what}: {}", entry.reason));
    }
    if let Err(reason) = world.lxd_health(now) {
        all.say("lxd", reason);
    }
}

/// What comes, and when.
fn next(world: &World, now: Timestamp, state: &JobState, plan: &Plan, all: &mut Explanation) {
    let reason = plan.deferred.iter().find(|(job, _)| *job == state.job.id).map(|(_, reason)| reason);
    let look = world.github_look.ended_at.map(|at| at.after(world.config().reconcile_interval));
    let text = match reason {
        None => "the instance is made, GitHub gives its runner the job".to_owned(),
        Some(Reason::Refused(refusal)) if refusal.is_undecided() => "it is decided when GitHub has told".to_owned(),
        Some(Reason::Refused(_)) => {
            "nothing here; it is left for other runners, and GitHub cancels it after a day".to_owned()
        }
        Some(Reason::Covered) => format!(
            "GitHub gives it to the first runner that is online; one that is not online within {} of its last progress is replaced",
            length(world.config().provision_timeout)
        ),
        Some(Reason::Asked(_)) => {
            "GitHub's answer decides: where the job still waits, an instance is launched".to_owned()
        }
        Some(Reason::Paused { until, .. } | Reason::HeldBack { until, .. }) => {
            format!("it is tried again {}", at_in(*until, now))
        }
        Some(Reason::ClassFull { .. } | Reason::HostFull { .. }) => {
            let class = match reason {
                Some(Reason::ClassFull { class, .. }) => Some(class),
                _ => None,
            };
            let ends = |i: &&Instance| i.seen.phase.has_runner() && class.is_none_or(|class| i.seen.class == *class);
            let oldest = world.instances.values().filter(ends).min_by_key(|i| i.made_at);
            let oldest =
                oldest.map(|i| format!("; the oldest, {}, was made {} ago", i.seen.name, length(now.since(i.made_at))));
            format!("the next instance that ends makes room{}", oldest.unwrap_or_default())
        }
        Some(Reason::LaunchesBusy) => "a launch that ends makes room".to_owned(),
        Some(Reason::NoPackage(_)) => "it is launched as soon as the package is here".to_owned(),
        Some(Reason::LxdUnknown) => "it is launched as soon as LXD answers".to_owned(),
    };
    all.say("next", text);
    if let Some(look) = look {
        all.say("look", format!("the next look at GitHub is {}", at_in(look, now)));
    }
}

/// `at 2026-01-02T03:04:05Z, in 12 s`
fn at_in(at: Timestamp, now: Timestamp) -> String {
    if at <= now { "now".to_owned() } else { format!("at {}, in {}", at.to_rfc3339(), length(at.since(now))) }
}

/// `12 s`, `3 min`, `2 h`
pub(super) fn length(length: Duration) -> String {
    match length.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
