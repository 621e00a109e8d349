//! The order of the questions, and a simulated hour of an organisation of 500 repositories.
#![allow(clippy::print_stdout)]

use super::*;

const MINUTE: u64 = 60_000;
const DAWN: u64 = 1_700_000_000_000;

fn repo(n: usize) -> RepoName {
    format!("acme/r{n:03}").parse().unwrap()
}

fn pace(left: u64) -> Pace {
    Pace { interval: Duration::from_secs(60), round: ROUND, budget: Some((left, 1000)) }
}

#[test]
fn those_with_signs_come_first_and_every_time_the_others_in_turn() {
    let mut queues = Queues::default();
    let now = Timestamp(DAWN);
    let day = |n: usize| Some(Timestamp(DAWN - 86_400_000 * (n as u64 + 1)));
    assert_eq!(queues.serve((0..40).map(|n| (repo(n), day(n))), now), []);
    queues.sign(&repo(30), now);
    let first = queues.next(&pace(1000), now);
    assert_eq!(first.len(), 40, "with all of the share left, a small organisation is known at once");
    assert_eq!(first[..3], [repo(30), repo(0), repo(1)], "then the one that was pushed to last");
    first.iter().for_each(|repo| queues.looked(repo, 2, false, now));

    let mut looked = BTreeMap::new();
    for minute in 1..=20 {
        let now = Timestamp(DAWN + minute * MINUTE);
        let next = queues.next(&pace(900), now);
        assert_eq!(next[0], repo(30));
        assert!(next.len() <= 4, "{next:?}");
        for repo in next {
            queues.looked(&repo, 0, false, now);
            *looked.entry(repo).or_insert(0) += 1;
        }
    }
    assert_eq!((looked.len(), looked[&repo(30)]), (40, 20), "each has had its turn within the round");
    // Nothing happened there for long: it waits for its turn, too.
    let late = Timestamp(DAWN + 3_600_001);
    assert!(!queues.next(&pace(900), late).contains(&repo(30)));
}

#[test]
fn a_push_and_a_change_are_signs_and_what_is_gone_is_told() {
    let mut queues = Queues::default();
    let now = Timestamp(DAWN);
    let old = Some(Timestamp(DAWN - 86_400_000));
    queues.serve((0..100).map(|n| (repo(n), old)), now);
    (0..100).for_each(|n| queues.looked(&repo(n), 2, false, now));
    let next = |queues: &Queues, minute: u64| queues.next(&pace(900), Timestamp(DAWN + minute * MINUTE));
    assert!(!next(&queues, 1).contains(&repo(99)));
    let pushed = |n: usize| if n == 99 { Some(Timestamp(DAWN + 50_000)) } else { old };
    queues.serve((0..100).map(|n| (repo(n), pushed(n))), Timestamp(DAWN + MINUTE));
    assert_eq!(next(&queues, 1)[0], repo(99));
    queues.looked(&repo(98), 1, false, Timestamp(DAWN + MINUTE));
    assert!(next(&queues, 2)[..2].contains(&repo(98)));
    assert_eq!(queues.serve((0..99).map(|n| (repo(n), old)), Timestamp(DAWN + 2 * MINUTE)), [repo(99)]);
    assert_eq!(queues.repos.len(), 99);
}

#[test]
fn little_budget_means_turns_for_the_active_ones_too() {
    let mut queues = Queues::default();
    queues.serve((0..100).map(|n| (repo(n), None)), Timestamp(DAWN));
    (0..100).for_each(|n| queues.looked(&repo(n), 2, true, Timestamp(DAWN)));
    // Each look at any of them costs three.
    let mut seen = BTreeSet::new();
    for minute in 1..=10 {
        let now = Timestamp(DAWN + minute * MINUTE);
        for repo in queues.next(&pace(600), now) {
            queues.looked(&repo, 3, true, now);
            seen.insert(repo);
        }
    }
    assert!(seen.len() > 60, "{}", seen.len());
    assert_eq!(queues.next(&pace(0), Timestamp(DAWN + 11 * MINUTE)), [], "nothing is left");
    let unlimited = Pace { budget: None, ..pace(0) };
    assert_eq!(queues.next(&unlimited, Timestamp(DAWN + 12 * MINUTE)).len(), 100);
}

/// GitHub as far as listings cost: each queue has two listings of runs and one of jobs for each open run; what changed
/// since it was last asked counts.
struct Hour {
    now: u64,
    /// (queued at, begins at, over at) by repository.
    runs: Vec<Vec<(u64, u64, u64)>>,
    asked: BTreeMap<(usize, u8, u64), u64>,
    counted: Vec<u64>,
    sent: u64,
    noticed: BTreeMap<(usize, u64), u64>,
}

impl Hour {
    /// One listing that changed last at `changed`.
    fn ask(&mut self, key: (usize, u8, u64), changed: u64) -> u32 {
        self.sent += 1;
        let known = self.asked.insert(key, self.now);
        let costs = known.is_none_or(|at| changed > at);
        if costs {
            self.counted.push(self.now);
        }
        // A request takes a moment.
        self.now += 100;
        u32::from(costs)
    }

    fn look(&mut self, n: usize) -> (u32, bool) {
        let now = self.now;
        let latest = |times: Vec<u64>| times.into_iter().filter(|at| *at <= now).max().unwrap_or(0);
        let queued = latest(self.runs[n].iter().flat_map(|r| [r.0, r.1]).collect());
        let running = latest(self.runs[n].iter().flat_map(|r| [r.1, r.2]).collect());
        let mut cost = self.ask((n, 0, 0), queued) + self.ask((n, 1, 0), running);
        let open: Vec<_> = self.runs[n].iter().filter(|r| r.0 <= now && now < r.2).copied().collect();
        for run in &open {
            cost += self.ask((n, 2, run.0), if run.1 <= now { run.1 } else { run.0 });
            self.noticed.entry((n, run.0)).or_insert(self.now);
        }
        (cost, !open.is_empty())
    }

    fn left(&self, share: u64) -> (u64, u64) {
        let spent = self.counted.iter().filter(|at| **at + 3_600_000 > self.now).count() as u64;
        (share.saturating_sub(spent), share)
    }
}

/// What an hour costs, and how long jobs wait to be noticed, where nothing but looks tells of them.
fn simulate(polling: bool, minutes: u64) -> (u64, u64, u64, u64) {
    let (interval, round) = if polling { (20, ROUND_POLLING) } else { (60, ROUND) };
    let share = if polling { 2500 } else { 1000 };
    let mut die = 12345u64;
    let mut roll = |most: u64| {
        die = die.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (die >> 33) % most
    };
    // Twenty repositories have a run about every ten minutes; it waits up to a minute and runs up to four. The others
    // have one a day.
    let runs = (0..500).map(|n| {
        let (mut at, mut runs) = (DAWN + roll(5 * MINUTE), Vec::new());
        let pause = if n % 25 == 0 { 10 * MINUTE } else { 24 * 60 * MINUTE };
        if n % 25 != 0 {
            at += roll(pause);
        }
        while at < DAWN + minutes * MINUTE {
            let begins = at + 5000 + roll(MINUTE);
            runs.push((at, begins, begins + 10_000 + roll(4 * MINUTE)));
            at += pause / 2 + roll(pause);
        }
        runs
    });
    let mut hour = Hour {
        now: DAWN,
        runs: runs.collect(),
        asked: BTreeMap::new(),
        counted: vec![],
        sent: 0,
        noticed: BTreeMap::new(),
    };
    let mut queues = Queues::default();
    queues
        .serve((0..500).map(|n| (repo(n), Some(Timestamp(DAWN - 86_400_000 * (n as u64 % 25 + 1))))), Timestamp(DAWN));
    let index = |repo: &RepoName| repo.name[1..].parse::<usize>().unwrap();
    let mut longest_look = 0;
    while hour.now < DAWN + minutes * MINUTE {
        let begun = hour.now;
        // The runners and the repositories that were pushed to last: both have changed each time.
        hour.counted.extend([begun, begun]);
        hour.sent += 2;
        let pace = Pace { interval: Duration::from_secs(interval), round, budget: Some(hour.left(share)) };
        for repo in queues.next(&pace, Timestamp(hour.now)) {
            let (cost, busy) = hour.look(index(&repo));
            queues.looked(&repo, cost, busy, Timestamp(hour.now));
        }
        longest_look = longest_look.max(hour.now - begun);
        hour.now = hour.now.max(begun + interval * 1000);
    }
    // The last hour: the first ones learn who is active.
    let last = DAWN + (minutes - 60) * MINUTE;
    let within = |from: u64| hour.counted.iter().filter(|at| (from..from + 60 * MINUTE).contains(at)).count() as u64;
    let (counted, dearest) = (within(last), (DAWN..last).step_by(MINUTE as usize).map(within).max().unwrap());
    let mut waits: Vec<u64> = Vec::new();
    let mut unseen = 0;
    for n in (0..500).step_by(25) {
        for run in hour.runs[n].iter().filter(|r| r.0 >= last && r.0 + 4 * MINUTE < DAWN + minutes * MINUTE) {
            match hour.noticed.get(&(n, run.0)) {
                Some(at) => waits.push(at - run.0),
                // It came and went between two looks.
                None => unseen += u64::from(run.2 - run.0 > 2 * interval * 1000),
            }
        }
    }
    let worst = waits.iter().max().copied().unwrap_or(0);
    let (worst_s, sent, n) = (worst / 1000, hour.sent * 60 / minutes, waits.len());
    println!(
        "polling={polling} interval={interval}s repos=500 active=20: {counted} requests that count in the last hour \
         (share {share} of 5000; {dearest} in the dearest, at the start), {sent} sent an hour with those answered 304, worst notice of {n} jobs in active \
         repositories {worst_s} s, longest look {} s, unseen {unseen}",
        longest_look / 1000
    );
    (counted.max(dearest), worst, unseen, longest_look)
}

#[test]
fn an_hour_with_500_repositories_stays_within_the_share_and_notices_in_two_intervals() {
    for (polling, share, interval) in [(false, 1000, 60_000), (true, 2500, 20_000)] {
        let (counted, worst, unseen, _) = simulate(polling, 180);
        assert!(counted <= share, "{counted}");
        assert!(worst <= 2 * interval, "{worst}");
        assert_eq!(unseen, 0);
    }
}
