//! What happened, in lines that a person can follow; and of a story that failed, the part that matters.

use std::collections::BTreeSet;
use std::fmt::Write;

use lxdrunner::world::{Action, Launch, LaunchSource};

/// A short story has about this many lines.
const SHORT: usize = 40;

/// Nobody reads of a story that went well: it is told only when it is heard again.
#[derive(Default)]
pub struct Tale {
    pub told: bool,
    lines: Vec<Line>,
}

struct Line {
    /// Milliseconds since the story began.
    at: u64,
    text: String,
    /// Of everybody: that a daemon died, or that LXD answers again.
    general: bool,
}

impl Tale {
    pub fn add(&mut self, at: u64, text: String, general: bool) {
        if self.told {
            self.lines.push(Line { at, text, general });
        }
    }

    pub fn full(&self) -> String {
        write(self.lines.iter())
    }

    /// The lines that touch what `why` speaks of, what that became, and what befell everybody meanwhile.
    pub fn short(&self, why: &str) -> String {
        let whom = self.whom(why);
        let touches = |line: &&Line| subjects(&line.text).any(|s| whom.contains(s));
        let own = self.lines.iter().filter(touches).count();
        let first = self.lines.iter().find(touches).map_or(0, |line| line.at);
        let all = self.lines.iter().filter(|line| touches(line) || line.general && line.at >= first);
        let mut lines: Vec<&Line> =
            if own < SHORT { all.collect() } else { self.lines.iter().filter(touches).collect() };
        // The beginning says how it came to be, the end what went wrong.
        let (head, left_out) = (SHORT / 4, lines.len().saturating_sub(SHORT));
        if left_out == 0 {
            return write(lines.into_iter());
        }
        let tail = lines.split_off(head + left_out);
        lines.truncate(head);
        format!("{}            … {left_out} lines …\n{}", write(lines.into_iter()), write(tail.into_iter()))
    }

    /// What `why` names, and the instances, runners and jobs which that had to do with.
    fn whom(&self, why: &str) -> BTreeSet<&str> {
        let named: BTreeSet<&str> = subjects(why).collect();
        let mut whom = BTreeSet::new();
        for line in &self.lines {
            let here: BTreeSet<&str> = subjects(&line.text).collect();
            if here.iter().any(|s| named.contains(s)) && !line.general {
                whom.extend(here.into_iter().filter(|s| !s.starts_with("sim-template-") || named.contains(s)));
            }
        }
        whom
    }
}

/// Names of instances, and numbers of jobs and registrations, which have four digits.
fn subjects(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.starts_with("sim-") || word.len() == 4 && word.bytes().all(|b| b.is_ascii_digit()))
}

fn write<'a>(lines: impl Iterator<Item = &'a Line>) -> String {
    let mut text = String::new();
    for Line { at, text: line, .. } in lines {
        let _ = writeln!(text, "{:>6}.{:03} {line}", at / 1000, at % 1000);
    }
    text
}

/// An action in a few words.
pub fn words(action: &Action) -> String {
    match action {
        Action::Launch(Launch { job, name, from, .. }) => {
            let whom = job.map_or("nobody yet".to_owned(), |job| format!("job {job}"));
            let from = match from {
                LaunchSource::Image => "the image".to_owned(),
                LaunchSource::Template(template) => template.id().to_owned(),
                LaunchSource::Standby { .. } => "what is a standby".to_owned(),
            };
            format!("launches {name} for {whom} from {from}")
        }
        Action::Remove { name, judged, .. } => {
            let runner = judged.runner.map_or(String::new(), |id| format!(", runner {id}"));
            format!("removes {name} ({:?}{runner})", judged.reason)
        }
        Action::RemoveImage { alias, reason, .. } => format!("removes the image {alias} ({reason:?})"),
        Action::Deregister { name, runner, .. } => format!("deregisters {name} ({runner})"),
        Action::Bake { name, .. } => format!("bakes {name}"),
        Action::PrepareStandby { name, .. } => format!("prepares {name}"),
        Action::LookUpJob { job, .. } => format!("asks GitHub for job {job}"),
        Action::LookUpRun { run, .. } => format!("asks GitHub for run {run}"),
        other => format!("{:?}", other.flight()),
    }
}

#[test]
fn a_short_story_has_what_a_failure_is_about_and_what_befell_everybody() {
    let mut tale = Tale { told: true, ..Tale::default() };
    tale.add(0, "daemon 0 starts".to_owned(), true);
    for job in 1000..1300 {
        tale.add(job, format!("job {job} queued in acme/app"), false);
        tale.add(job, format!("daemon 0 launches sim-{job}-1 for job {job} from sim-template-small-1"), false);
        tale.add(job, format!("registration sim-{job}-1 ({}) made by 0", job + 4000), false);
    }
    tale.add(1301, "LXD 0 does not answer".to_owned(), true);
    tale.add(1302, "runner sim-1007-1 (5007) takes job 1200".to_owned(), false);
    let story = tale.short("instance sim-1007-1 is left");
    let lines: Vec<&str> = story.lines().map(|line| &line[11..]).collect();
    assert_eq!(
        lines,
        [
            "job 1007 queued in acme/app",
            "daemon 0 launches sim-1007-1 for job 1007 from sim-template-small-1",
            "registration sim-1007-1 (5007) made by 0",
            "job 1200 queued in acme/app",
            "daemon 0 launches sim-1200-1 for job 1200 from sim-template-small-1",
            "LXD 0 does not answer",
            "runner sim-1007-1 (5007) takes job 1200",
        ]
    );
    let all = (1000..1300).map(|job| format!("sim-{job}-1")).collect::<Vec<_>>().join(" ");
    assert_eq!(tale.short(&all).lines().count(), SHORT + 1);
}
