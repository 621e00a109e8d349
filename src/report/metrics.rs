//! Metrics: counts since the start and the current state, in Prometheus' text format
//! (prometheus.io/docs/instrumenting/exposition_formats).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::time::Duration;

use super::status::{State, Status};
use crate::config::Config;
use crate::github::Standing;
use crate::model::{ClassId, Timestamp};
use crate::world::{Action, Event, Launch, LaunchSource, Note, Outcome, World};

/// From a job's queueing at GitHub to its runner's start, in seconds.
const BUCKETS: [f64; 11] = [0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0];

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// By class (its place in the config), what was made, of what, and what came of it.
    made: BTreeMap<(ClassId, &'static str, &'static str, &'static str), u64>,
    removals: BTreeMap<&'static str, u64>,
    waits: BTreeMap<ClassId, Histogram>,
    jobs_taken: u64,
}

#[derive(Debug, Default)]
struct Histogram {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    fn observe(&mut self, length: Duration) {
        let seconds = length.as_secs_f64();
        for (count, limit) in self.counts.iter_mut().zip(BUCKETS) {
            *count += u64::from(seconds <= limit);
        }
        self.count += 1;
        self.sum += seconds;
    }
}

impl Counters {
    /// Takes in an event, before the world does.
    pub fn count(&mut self, event: &Event, world: &World, now: Timestamp) {
        let Event::Outcome(action, outcome) = event else { return };
        let came = match outcome {
            Outcome::Launched { .. } | Outcome::Baked | Outcome::Published { .. } | Outcome::Prepared { .. } => "well",
            Outcome::Clash { .. } | Outcome::StandbyLost { .. } => "stood_back",
            Outcome::LaunchFailed { .. } | Outcome::NotMade { .. } => "failed",
            Outcome::Removed => return self.removed("well"),
            Outcome::Kept { .. } | Outcome::Changed { .. } => return self.removed("kept"),
            Outcome::RemoveFailed { .. } => return self.removed("failed"),
            _ => return,
        };
        let (class, what, from) = match action {
            Action::Launch(Launch { class, from, .. }) => (*class, "runner", from.as_str()),
            Action::Bake { class, .. } => (*class, "template", LaunchSource::Image.as_str()),
            Action::PrepareStandby { class, .. } => (*class, "standby", "template"),
            _ => return,
        };
        *self.made.entry((class, what, from, came)).or_default() += 1;
        if let (Action::Launch(Launch { job: Some(job), .. }), Outcome::Launched { .. }) = (action, outcome)
            && let Some(state) = world.job(*job)
        {
            self.waits.entry(class).or_default().observe(now.since(state.queued_at));
        }
    }

    /// Takes in what people are told of it.
    pub fn count_notes(&mut self, notes: &[Note]) {
        let taken = notes.iter().filter(|note| matches!(note, Note::JobTaken { ours: true, .. })).count();
        self.jobs_taken += taken as u64;
    }

    fn removed(&mut self, came: &'static str) {
        *self.removals.entry(came).or_default() += 1;
    }
}

/// A page of metrics while it is written.
#[derive(Default)]
struct Page(String);

impl Page {
    /// Begins a metric: `kind` is gauge, counter or histogram.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "# HELP lxdrunner_{name} {help}\n# TYPE lxdrunner_{name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "lxdrunner_{name}{labels} {value}");
    }

    /// A metric that has one value.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.value(name, &[], value);
    }
}

fn escaped(text: &str) -> String {
    crate::text::escaped(text).replace('\\', "\\\\").replace('"', "\\\"")
}

pub fn text(status: &Status, config: &Config, counters: &Counters, standings: &[(String, Standing)]) -> String {
    let mut page = Page::default();
    page.metric("build_info", "gauge", "The version that runs.");
    page.value("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    now(&mut page, status);
    since_the_start(&mut page, config, counters);
    github(&mut page, standings);
    page.0
}

fn now(page: &mut Page, status: &Status) {
    let seconds = |length: Option<Duration>| length.map_or("NaN".to_owned(), |length| length.as_secs_f64().to_string());
    page.single("lxd_up", "gauge", "1 where LXD answers.", u8::from(status.lxd.is_ok()));
    page.single("lxd_look_age_seconds", "gauge", "Since LXD last answered a look.", seconds(status.looked_at_lxd));
    page.single(
        "github_look_age_seconds",
        "gauge",
        "Since GitHub last answered a look.",
        seconds(status.looked_at_github),
    );
    page.single("troubles", "gauge", "What does not work, as healthz tells it.", status.troubles.len());
    page.single("stuck_instances", "gauge", "Instances that are to go and cannot be removed.", status.stuck.len());
    page.single("places", "gauge", "max_workers.", status.max);
    page.single("places_taken", "gauge", "Instances that count against max_workers.", status.counted);
    page.single("jobs_not_served", "gauge", "Queued jobs that no class here serves.", status.others);
    page.single("jobs_held_up", "gauge", "Queued jobs of ours that no runner is on its way for.", status.waiting.len());
    page.metric("jobs", "gauge", "Jobs of ours that are not over.");
    for class in &status.classes {
        page.value("jobs", &[("class", &class.name), ("state", "queued")], class.queued);
        page.value("jobs", &[("class", &class.name), ("state", "running")], class.running);
    }
    page.metric("oldest_queued_job_seconds", "gauge", "How long the job that waits longest has waited.");
    for class in &status.classes {
        let oldest = class.oldest.unwrap_or_default().as_secs_f64();
        page.value("oldest_queued_job_seconds", &[("class", &class.name)], oldest);
    }
    page.metric("class_places", "gauge", "max_workers of the class.");
    for class in &status.classes {
        if let Some(max) = class.max {
            page.value("class_places", &[("class", &class.name)], max);
        }
    }
    page.metric("instances", "gauge", "Instances, templates that are images included, by what they are at.");
    for class in &status.classes {
        for state in State::ALL {
            let count = class.instances.get(&state).copied().unwrap_or(0);
            page.value("instances", &[("class", &class.name), ("state", state.as_str())], count);
        }
    }
}

fn since_the_start(page: &mut Page, config: &Config, counters: &Counters) {
    let class = |id: ClassId| config.class(id).name.as_str();
    page.single("jobs_taken_total", "counter", "Jobs that runners of ours took.", counters.jobs_taken);
    page.metric("made_total", "counter", "Runners, templates and standbys that were to be made, and what came of it.");
    for ((at, what, from, came), count) in &counters.made {
        let labels = [("class", class(*at)), ("what", *what), ("from", *from), ("result", *came)];
        page.value("made_total", &labels, count);
    }
    page.metric("removals_total", "counter", "Removals of instances and images.");
    for (came, count) in &counters.removals {
        page.value("removals_total", &[("result", came)], count);
    }
    page.metric("start_seconds", "histogram", "From a job's queueing at GitHub to its runner's start.");
    for (at, histogram) in &counters.waits {
        let class = class(*at);
        for (count, limit) in histogram.counts.iter().zip(BUCKETS) {
            page.value("start_seconds_bucket", &[("class", class), ("le", &limit.to_string())], count);
        }
        page.value("start_seconds_bucket", &[("class", class), ("le", "+Inf")], histogram.count);
        page.value("start_seconds_sum", &[("class", class)], histogram.sum);
        page.value("start_seconds_count", &[("class", class)], histogram.count);
    }
}

fn github(page: &mut Page, standings: &[(String, Standing)]) {
    let mut family = |name: &str, kind: &str, help: &str, value: fn(&Standing) -> Option<u64>| {
        page.metric(name, kind, help);
        for (credential, standing) in standings {
            if let Some(value) = value(standing) {
                page.value(name, &[("credential", credential)], value);
            }
        }
    };
    let left = |standing: &Standing| standing.left.map(|(left, _)| left);
    family("github_requests_left", "gauge", "What is left of GitHub's hourly limit.", left);
    family("github_requests_limit", "gauge", "GitHub's hourly limit.", |standing| {
        standing.left.map(|(_, limit)| limit)
    });
    family("github_requests_total", "counter", "Requests to GitHub.", |standing| Some(standing.counts.sent));
    let unchanged = |standing: &Standing| Some(standing.counts.unchanged);
    family("github_requests_unchanged_total", "counter", "Of these, the ones that cost nothing.", unchanged);
    let held_back = |standing: &Standing| Some(standing.counts.held_back);
    family(
        "github_requests_held_back_total",
        "counter",
        "Requests that were not made, for GitHub's limits.",
        held_back,
    );
}
